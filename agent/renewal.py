"""Keeps a board's certificate young: a new one long before the old one ends, so that no connection ever lacks one.

A process of its own asks for it: making a key needs a library that would stay in the daemon's memory for ever.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from pathlib import Path

from protos.errors import BadInputError
from protos.identity import load

log = logging.getLogger(__name__)

LOOK_EVERY_S = 600.0
CLOCK_SET_S = 1.6e9  # 2020: a board without a clock of its own begins in 1970, and then nothing is due


class Renewal:
    """Renews the identity in `certificate` with the coordinator at `address`; does nothing without one."""

    def __init__(self, address: str, certificate: Path | None) -> None:
        self._address = address
        self._certificate = certificate

    def due(self, now_s: float) -> bool:
        """Whether to ask for the next certificate at this wall time. Raises BadInputError for a damaged identity."""
        identity = load(self._certificate) if self._certificate is not None else None
        return identity is not None and now_s > CLOCK_SET_S and now_s >= identity.renew_wall_s

    async def run(self) -> None:
        """Look from time to time, until cancelled. What fails is tried again at the next look."""
        while True:
            try:
                if self.due(time.time()):
                    await self._renew()
            except BadInputError as error:
                log.error("%s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _renew(self) -> None:
        command = [sys.executable, "-m", "agent", "renew", "--coordinator", self._address]
        process = await asyncio.create_subprocess_exec(
            *command,
            "--identity",
            str(self._certificate),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode:
            log.warning("the certificate could not be renewed: %s", said.decode(errors="replace").strip()[-300:])
        else:
            log.info("the certificate has been renewed")
