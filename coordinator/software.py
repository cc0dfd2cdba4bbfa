"""What computed a version: edgelut, the libraries that did the arithmetic, and the state of its sources."""

from __future__ import annotations

import json
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

GIT_TIMEOUT_S = 5.0
_LIBRARIES = ("numpy", "scipy")


@cache
def software() -> dict[str, Any]:
    """Versions, and of edgelut's sources {"commit", "changed"}; None where they are under no version control."""
    return {
        "edgelut": metadata.version("edgelut"),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES},
        "git": git_state(Path(__file__).parents[1]),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit that `folder` is a checkout of, and whether files were changed since; else what pip was told."""
    if not (folder / ".git").exists():
        return _installed_commit()
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": None if changes is None else bool(changes)}


def _git(folder: Path, *command: str) -> str | None:
    """What git says; None when there is no git, or it fails: a version without its commit is better than none."""
    try:
        done = subprocess.run(
            ("git", "-C", str(folder), *command), capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _installed_commit() -> dict[str, Any] | None:
    """Of `pip install git+https://…`, which keeps the commit (PEP 610)."""
    text = metadata.distribution("edgelut").read_text("direct_url.json")
    commit = (json.loads(text).get("vcs_info") or {}).get("commit_id") if text else None
    return {"commit": commit, "changed": False} if commit else None
