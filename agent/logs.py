"""Log lines, one for each event: on stderr, or with their fields in the journal. Where one process is several devices,
each line says which, and each says of which run and task it is.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar

from protos.systemd import JournalHandler, has_journal

# Set by the daemon of each device, inherited by its tasks.
DEVICE: ContextVar[str] = ContextVar("DEVICE", default="")
RUN: ContextVar[str] = ContextVar("RUN", default="")
TASK: ContextVar[str] = ContextVar("TASK", default="")


class _WithDevice(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        device = DEVICE.get()
        record.device = f"{device}: " if device else ""
        return True


def fields(_record: logging.LogRecord) -> dict[str, str]:
    """To search the journal by: `journalctl EDGELUT_RUN=…`."""
    return {"EDGELUT_DEVICE": DEVICE.get(), "EDGELUT_RUN": RUN.get(), "EDGELUT_TASK": TASK.get()}


def set_up(*, verbose: bool = False) -> None:
    handler: logging.Handler
    if has_journal():
        handler, line = JournalHandler(fields), "%(device)s%(message)s"
    else:
        handler, line = logging.StreamHandler(sys.stderr), "%(asctime)s %(levelname)s %(device)s%(message)s"
    handler.addFilter(_WithDevice())
    handler.setFormatter(logging.Formatter(line, "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    for noisy in ("grpc", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
