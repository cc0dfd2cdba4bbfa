"""HANNA's published tables, for the tests that use them. They are not part of edgelut: EDGELUT_HANNA names the folder
with rpi_speed.txt, new_rpi_energy.txt and theta_model29.txt, by default shared/data/hanna beside the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lut_store.formats import hanna
from lut_store.lut import Lut
from nas.space import load_space

FOLDER = Path(os.environ.get("EDGELUT_HANNA") or Path(__file__).resolve().parents[2] / "shared" / "data" / "hanna")
needs_tables = pytest.mark.skipif(
    not (FOLDER / "rpi_speed.txt").is_file(), reason=f"HANNA's tables are not in {FOLDER} (EDGELUT_HANNA)"
)


def hanna_lut() -> Lut:
    space = load_space("fbnet-cifar10")
    return hanna.load_pair(space, "rpi3b-hanna", FOLDER / "rpi_speed.txt", FOLDER / "new_rpi_energy.txt")
