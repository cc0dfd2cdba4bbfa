"""What feeds the watchdog: the daemon's real progress."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agent import daemon
from agent.daemon import Agent, Identity
from agent.emulator.device import EmulatedDevice
from agent.emulator.runner import EmulatedRunner, ScaledClock
from agent.metering import NONE, Meters
from agent.renewal import Renewal
from agent.spool import Spool
from protos.identity import Identity as Certificate
from protos.identity import save
from tests.agent.spaces import lease_of, tiny_run

DAY_S = 86400.0


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    clock = ScaledClock(1.0)
    runner = EmulatedRunner(EmulatedDevice("rpi3b", 1), clock)
    return Agent(Identity("pi-01", "rpi3b"), runner, Meters(NONE, clock), Spool(tmp_path), "127.0.0.1:1")


def test_a_session_or_a_task_that_does_not_come_on_is_stuck(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agent.stuck() == ""
    monkeypatch.setattr(daemon, "HUNG_TASK_S", -1.0)
    assert agent.stuck() == ""  # at rest
    agent._lease = lease_of(tiny_run())
    assert "task task-1 has not come on" in agent.stuck()
    agent._activity = "waiting: the spool is full"
    assert agent.stuck() == ""
    monkeypatch.setattr(daemon, "HUNG_SESSION_S", -1.0)
    assert "the session has done nothing" in agent.stuck()


def test_a_certificate_is_renewed_after_two_thirds_of_its_life_but_not_in_1970(tmp_path: Path) -> None:
    now_s = time.time()
    folder = tmp_path / "identity"
    save(folder, Certificate("pi-01", "agent", "rpi3b", now_s, now_s + 30 * DAY_S), b"", b"", b"")
    renewal = Renewal("127.0.0.1:1", folder)
    assert not renewal.due(now_s + 19.9 * DAY_S)
    assert renewal.due(now_s + 20.1 * DAY_S)
    assert not renewal.due(1000.0)
    save(folder, Certificate("pi-01", "agent", "rpi3b", 0.0, 1.0), b"", b"", b"")
    assert not renewal.due(1000.0)
    assert not Renewal("127.0.0.1:1", None).due(now_s)
