"""What a service tells systemd (sd_notify(3)) and the journal: ready, stopping, alive; lines with their fields.

Without systemd all of it does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable

JOURNAL = "/run/systemd/journal/socket"
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def notify(**state: str) -> None:
    """Send states such as READY="1" or STATUS="…" to the service manager that started this process."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return
    address = f"\0{name[1:]}" if name.startswith("@") else name
    text = "\n".join(f"{key}={value}" for key, value in state.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.sendto(text.encode(), address)


def watchdog_s() -> float | None:
    """How long the service manager waits for a sign of life; None when it does not."""
    own = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return float(microseconds) * 1e-6 if own and microseconds.isdecimal() and int(microseconds) > 0 else None


async def keep_alive(stuck: Callable[[], str]) -> None:
    """Give signs of life until cancelled, but only while `stuck` says "": then the service manager restarts what hangs.

    Without a watchdog it only waits.
    """
    period_s = watchdog_s()
    if period_s is None:
        await asyncio.Event().wait()
        return
    said = ""
    while True:
        reason = stuck()
        if not reason:
            notify(WATCHDOG="1")
        elif reason != said:
            logging.getLogger(__name__).error("no sign of life for the watchdog: %s", reason)
            notify(STATUS=reason)
        said = reason
        await asyncio.sleep(period_s / 3)


class JournalHandler(logging.Handler):
    """Lines for the journal in its own protocol, with `fields` of each record (as DEVICE=pi-01) to search by."""

    def __init__(self, fields: Callable[[logging.LogRecord], dict[str, str]], path: str = JOURNAL) -> None:
        """Raises OSError when there is no journal."""
        super().__init__()
        self._fields = fields
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(priority),
            "SYSLOG_IDENTIFIER": "edgelut",
            "CODE_MODULE": record.name,
            **self._fields(record),
        }
        try:
            self._socket.send(b"".join(_entry(name, value) for name, value in fields.items() if value))
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def _entry(name: str, value: str) -> bytes:
    data = value.encode()
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def has_journal() -> bool:
    """Whether the journal reads this process's standard error: then it can have the lines with their fields."""
    return bool(os.environ.get("JOURNAL_STREAM")) and os.path.exists(JOURNAL)  # noqa: PTH110 it is a socket
