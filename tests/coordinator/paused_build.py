"""A build that stops inside the transaction which stores its version: `python -m tests.coordinator.paused_build URL
RUN`.

It says "inside" when the rows are written and not yet committed, and waits to be killed.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from coordinator.build import build_lut
from lut_store import lut_rows
from lut_store.store import Store


def main() -> None:
    write = lut_rows.add

    def pause(*arguments: Any) -> None:
        write(*arguments)
        print("inside", flush=True)
        time.sleep(3600)

    lut_rows.add = pause
    build_lut(Store(sys.argv[1]), sys.argv[2])


if __name__ == "__main__":
    main()
