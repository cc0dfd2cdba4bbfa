"""The systemd units: free of mistakes, and closed as far as their work allows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
SERVICES = ("edgelut-agent.service", "edgelut-coordinator.service")
EXPOSURE = 2.0

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def copied(folder: Path, name: str) -> Path:
    """The unit with programs that exist here."""
    text = (UNITS / name).read_text()
    text = re.sub(r"^(Exec\w+=-?)/\S+", r"\1/bin/true", text, flags=re.MULTILINE)
    path = folder / name
    path.write_text(re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE))
    return path


@pytest.mark.parametrize("name", [path.name for path in sorted(UNITS.glob("*.service")) if "@" not in path.name])
def test_systemd_finds_nothing_wrong(tmp_path: Path, name: str) -> None:
    (tmp_path / "bluetooth.service").write_text("[Service]\nExecStart=/bin/true\n")
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copied(tmp_path, name))],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
    )
    own = [line for line in found.stderr.splitlines() if name in line]
    assert own == []


@pytest.mark.parametrize("name", SERVICES)
def test_exposure(tmp_path: Path, name: str) -> None:
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(copied(tmp_path, name))],
        capture_output=True,
        text=True,
    )
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", found.stdout)
    assert level is not None, found.stderr
    assert float(level[1]) <= EXPOSURE
