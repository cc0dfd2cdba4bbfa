"""Where edgelut keeps its database when nobody says otherwise."""

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
