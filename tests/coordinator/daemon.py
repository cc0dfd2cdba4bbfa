"""A coordinator as a process of its own, with methods that need no real evidence: `python -m
tests.coordinator.daemon FOLDER|URL [HOST:PORT]`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from coordinator.server import serve
from tests.coordinator.scripted import FakeMethods, url_of


def main() -> None:
    def ready(address: str) -> None:
        print(address, flush=True)

    where = sys.argv[1]
    url = where if "://" in where else url_of(Path(where))
    listen = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:0"
    asyncio.run(serve(listen, url, ready=ready, methods=FakeMethods()))


if __name__ == "__main__":
    main()
