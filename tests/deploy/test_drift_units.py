"""The template units that ask every night whether a LUT still holds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_an_instance(tmp_path: Path) -> None:
    for kind in ("service", "timer"):
        text = (UNITS / f"edgelut-drift@.{kind}").read_text()
        (tmp_path / f"edgelut-drift@pi-01.{kind}").write_text(
            text.replace("/opt/edgelut/venv/bin/coordinator", "/bin/true")
        )
    names = [str(tmp_path / f"edgelut-drift@pi-01.{kind}") for kind in ("service", "timer")]
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in found.stderr.splitlines() if "edgelut-drift" in line] == []


def test_the_unit_asks_about_the_device_that_it_is_named_after() -> None:
    service = (UNITS / "edgelut-drift@.service").read_text()
    assert "ExecStart=/opt/edgelut/venv/bin/coordinator drift --device %i" in service
    assert "SuccessExitStatus" not in service  # a LUT that has drifted is a failed unit
