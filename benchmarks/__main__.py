"""`python -m benchmarks [NAME ...] [--long]`: the figures of the project, each measured side by side in one run.

Without names: every figure, those that take longer than ten minutes in a shorter form. With --long: these in full.
"""

from __future__ import annotations

import argparse
import importlib
import sys

FIGURES = {
    "fidelity": "predicted against measured networks on this machine",
    "truth": "latency and energy against the emulated Pi's truth",
    "spread": "identical blocks measured separately",
    "device-time": "device time of a full LUT on the emulated Pi 3B, and error against device time",
    "overhead": "the agent against torch.utils.benchmark; memory and CPU of daemon and worker",
    "meter-energy": "energy of operators with each emulated meter, against the emulated Pi's truth",
    "meter-lag": "lag found by `edgelut-agent calibrate`, against the emulator's true one",
    "forecast": "the doctor's forecast of a meter against what emulated runs reach",
    "fuzz": "damaged frames and byte streams through every meter driver",
    "meters": "CPU share of reading each meter, and decode rates",
    "meter-load": "latency of an operator with and without the meter being read",
    "ingest": "durable ingest against a bare stream",
    "ingest-scale": "ingest with 10⁴ and 10⁶ measurements stored, SQLite and PostgreSQL; bytes of each",
    "reads": "reading a LUT cold and warm, with 1 and with 10⁴ versions stored, and while a run is ingested",
    "build": "a version from a million latencies, against reading the rows with bare SQL",
    "predict": "predictions a second against numpy indexing and a dictionary",
    "regressor": "costs of held-out operators, guessed from the others",
    "optimise": "exact search over a full space against HiGHS",
    "supernet": "step time and peak memory of the supernet against a plain nine-path mixture",
    "search-evidence": "knobs against costs, searched against random children, ranks, two boards",
}
METER_LONG = ("meter-energy", "meter-lag", "forecast", "fuzz", "meter-load")
SEARCH_LONG = ("optimise", "supernet", "search-evidence")
# These have a short and a long form.
LONG = ("fidelity", "truth", "device-time", "regressor", "ingest-scale", *SEARCH_LONG, *METER_LONG)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description="The figures of edgelut.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FIGURES))
    parser.add_argument("--long", action="store_true", help="in full, also what takes over ten minutes")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in FIGURES]
    if unknown:
        parser.error(f"there is no figure {unknown[0]!r}; there are {', '.join(FIGURES)}")
    names = options.names or (LONG if options.long else tuple(FIGURES))
    for name in names:
        print(f"\n== {name}: {FIGURES[name]}", flush=True)
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        if name in LONG:
            module.main(full=options.long)
        else:
            module.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
