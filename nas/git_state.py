"""The state of the source code: a result that cannot be repeated is not a result."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

TIMEOUT_S = 10.0


def git_state(folder: Path = Path(__file__).parent) -> dict[str, Any] | None:
    """Commit of the checkout that `folder` is in, and the files that differ from it; None for an installed package."""
    commit, changed = (_git(folder, *words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain")))
    if commit is None or changed is None:
        return None
    return {"commit": commit.strip(), "changed": [line[3:] for line in changed.splitlines()]}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ("git", *words), cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
