"""This machine as a device, over the embedded database: worker, agent and coordinator for one command."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from lut_store.lut import Lut
from tests.e2e.processes import DEADLINE_S, World


@pytest.fixture
def local(tmp_path: Path) -> World:
    return World(tmp_path)


PROFILE = ("coordinator", "profile", "--device", "local", "--space", "tiny.toml", "--preset", "quick")


@pytest.mark.slow
def test_a_local_run_is_stopped_by_ctrl_c_and_resumed_to_a_lut_of_latency_alone(local: World) -> None:
    process = subprocess.Popen(PROFILE, cwd=local.folder, env=local.environment, stderr=subprocess.PIPE, text=True)
    try:
        run = _running(local)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "No meter: latency only" in said
    assert f"coordinator runs resume {run}" in said
    assert "Traceback" not in said
    assert not _agents_of(local)

    found = local.json("coordinator", "runs", "resume", run, "--json")
    assert found["reference"] == "local/tiny@1"
    assert found["configuration"]["emulation"] == "none"
    assert found["energy"] is None
    assert "not measured" in local.run("coordinator", "lut", "show", "local/tiny").stdout
    local.run("coordinator", "lut", "export", "local", "--output", "local.lut")
    assert Lut.load(local.folder / "local.lut").digest == found["digest"]
    assert not _agents_of(local)


def _running(world: World) -> str:
    """The id of the only run, once an agent works for it."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        runs = world.json("coordinator", "runs", "list", "--json")
        if runs and runs[0]["state"] == "latency" and _agents_of(world):
            return str(runs[0]["run_id"])
        time.sleep(0.2)
    raise AssertionError("the run never began")


def _agents_of(world: World) -> list[int]:
    """Agents that were started in this world, by the state directory in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if "agent" in process.cmdline() and process.environ().get("XDG_STATE_HOME") == str(world.folder / "state"):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found
