"""Words to the service manager and lines for the journal, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.systemd import JournalHandler, keep_alive, notify, watchdog_s


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_states_go_to_the_manager(manager: socket.socket) -> None:
    notify(READY="1", STATUS="listening")
    assert manager.recv(4096) == b"READY=1\nSTATUS=listening"


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify(READY="1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify(READY="1")


def test_without_a_watchdog_it_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)

    async def live() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(keep_alive(lambda: "stuck"), 0.05)

    asyncio.run(live())


@pytest.mark.parametrize(
    ("microseconds", "pid", "expected"),
    [("60000000", "", 60.0), ("", "", None), ("soon", "", None), ("0", "", None), ("60000000", "1", None)],
)
def test_the_watchdogs_patience(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert watchdog_s() == expected


def test_what_is_stuck_gives_no_sign_of_life(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    stuck = ["", "", "the task hangs", "the task hangs", ""]

    def next_of() -> str:
        return stuck.pop(0) if stuck else ""

    async def live() -> None:
        task = asyncio.create_task(keep_alive(next_of))
        while stuck:
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(live())
    found = [manager.recv(4096) for _ in range(4)]
    assert found == [b"WATCHDOG=1", b"WATCHDOG=1", b"STATUS=the task hangs", b"WATCHDOG=1"]


def test_lines_come_to_the_journal_with_their_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.settimeout(30)
        handler = JournalHandler(lambda _: {"EDGELUT_TASK": "t1", "EDGELUT_RUN": ""}, str(tmp_path / "journal"))
        record = logging.LogRecord("agent.daemon", logging.WARNING, "", 0, "one\ntwo", None, None)
        handler.emit(record)
        handler.close()
        found = journal.recv(1 << 16)
    text = b"one\ntwo"
    assert found.startswith(b"MESSAGE\n" + struct.pack("<Q", len(text)) + text + b"\n")
    assert b"PRIORITY=4\n" in found
    assert b"EDGELUT_TASK=t1\n" in found
    assert b"EDGELUT_RUN" not in found
    with pytest.raises(OSError, match="No such file"):
        JournalHandler(lambda _: {}, str(tmp_path / "none"))
