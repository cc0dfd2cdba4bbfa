"""Log lines on stderr, one for each event; where one process is several devices, each line says which."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar

DEVICE: ContextVar[str] = ContextVar("DEVICE", default="")  # set by the daemon of each device, inherited by its tasks


class _WithDevice(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        device = DEVICE.get()
        record.device = f"{device}: " if device else ""
        return True


def set_up(*, verbose: bool = False) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_WithDevice())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(device)s%(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    for noisy in ("grpc", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
