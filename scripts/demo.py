"""`make demo`: profiles this machine with an emulated meter into demo/, and touches nothing else.

A coordinator of its own, over demo/edgelut.db, so that neither a daemon that runs nor the usual database takes part.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import coordinator.plots as plots
from coordinator.cli.connect import Link
from coordinator.cli.local import local_agent, spec_device
from coordinator.cli.options import console
from coordinator.cli.outcome import print_lut, watched
from coordinator.cli.profile import EMULATED_METER, announce, new_run_id
from coordinator.client import Coordinator
from coordinator.embedded import serving
from coordinator.plan import make_run
from coordinator.units import duration
from lut_store.lut import Lut
from nas.space import load_space
from protos.errors import EdgelutError

FOLDER = Path("demo")
SPACE, PRESET = "fbnet-cifar10", "quick"


def measure(folder: Path) -> Lut | None:
    """The LUT of this machine; None when the operator pressed Ctrl-C."""
    database = (folder / "edgelut.db").resolve()
    with serving(f"sqlite:///{database}") as address, Coordinator(address, cache=folder / "cache") as client:
        link = Link(client, embedded=True, where=str(database))
        spec = make_run(load_space(SPACE), spec_device(link), preset=PRESET, meter=EMULATED_METER, seed=1)
        with local_agent(link, EMULATED_METER, folder / "agent") as device:
            announce(spec, [device])
            run_id = new_run_id()
            client.submit(spec, run_id)
            run = watched(link, run_id)
        if run is None:
            return None
        if run.state != "done":
            raise EdgelutError(f"the run {run.state}: {run.reason}")
        return client.lut(digest=run.lut_digest)


def write(lut: Lut, folder: Path) -> list[tuple[Path, str]]:
    """The four files and what they are."""
    files = [
        (folder / "lut.csv", "one row per cell: numbers, 95 % bounds, samples, flags"),
        (folder / "lut.json", "the whole LUT; Lut.load() and `coordinator lut show` read it"),
        (folder / "heatmap.png", "what every candidate costs"),
        (folder / "validation.png", "predicted against measured networks"),
    ]
    lut.save(files[0][0])
    lut.save(files[1][0])
    plots.heatmap(lut, files[2][0])
    plots.validation_plot(lut, files[3][0])
    return files


def main() -> int:
    started_s = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    print(f"Profiling this machine: {SPACE}, preset {PRESET}. This takes up to three minutes; leave the machine alone.")
    try:
        lut = measure(FOLDER)
    except EdgelutError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    if lut is None:
        print("\nStopped.", file=sys.stderr)
        return 130
    files = write(lut, FOLDER)
    print_lut(lut, console())
    print(f"Done in {duration(time.monotonic() - started_s)}. In {FOLDER}/:")
    for path, text in files:
        print(f"  {path!s:22} {text}")
    print("The meter is emulated: its current follows the CPU time of the measured process.")
    print("So the latencies are real, the energies are not.")
    print(f"Look closer:  .venv/bin/coordinator lut show {files[1][0]} --view cells")
    return 0


if __name__ == "__main__":
    sys.exit(main())
