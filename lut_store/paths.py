"""Where edgelut keeps its database, its authority and its identities when nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def data_directory() -> Path:
    """``$XDG_DATA_HOME/edgelut``, by default ``~/.local/share/edgelut``; a relative XDG_DATA_HOME is ignored (XDG
    says so).
    """
    home = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".local" / "share") / "edgelut"


def default_database_url() -> str:
    """The URL of the embedded database, which `coordinator serve` uses too."""
    return f"sqlite:///{data_directory() / 'edgelut.db'}"


def authority_directory() -> Path:
    """``$EDGELUT_CA``, by default ``ca`` in the data directory: where `coordinator serve` finds its authority."""
    named = os.environ.get("EDGELUT_CA")
    return Path(named) if named else data_directory() / "ca"


def identity_directory(address: str) -> Path:
    """Where this user's certificate for the coordinator at `address` (HOST:PORT) is, or would be:
    ``$EDGELUT_IDENTITY``, by default a folder of that name under ``identities`` in the data directory.
    """
    named = os.environ.get("EDGELUT_IDENTITY")
    return Path(named) if named else data_directory() / "identities" / address.replace(":", "_")
