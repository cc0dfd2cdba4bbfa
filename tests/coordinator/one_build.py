"""A build as a process of its own: `python -m tests.coordinator.one_build URL RUN LATENCY [pause]` prints the version.

With `pause` it stops inside the transaction that stores the version: it says "inside" when the rows are written and not
yet committed, and waits to be killed.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from coordinator.build import BuildRequest, build
from lut_store import lut_rows
from lut_store.estimate.settings import Settings
from lut_store.store import Store


def main() -> None:
    url, run, latency, *pause = sys.argv[1:]
    if pause:
        write = lut_rows.add

        def add(*arguments: Any) -> None:
            write(*arguments)
            print("inside", flush=True)
            time.sleep(3600)

        lut_rows.add = add
    store = Store(url)
    lut = build(store, BuildRequest((run,), Settings(latency=latency)))
    store.close()
    print(lut.version, lut.digest)


if __name__ == "__main__":
    main()
