"""The file of `edgelut-agent monitor`: rows reach the disk while they come, the name appears when all are there."""

from __future__ import annotations

import csv
import importlib.util
import os
import time
from pathlib import Path
from typing import TextIO

from protos.errors import BadInputError, StorageError
from protos.types import MeterSamples

COLUMNS = ("t_s", "voltage_v", "current_a", "power_w", "fresh", "temp_c")
FLUSH_S = 2.0  # what a lost board can cost


class SampleFile:
    """CSV as FILE.part until `close`, which gives it its name, as Parquet where the name says so.

    t_s counts from `start_ns`, fresh is 1 or 0, temp_c is empty where the meter has none. An older file of the same
    name stays until then. Raises BadInputError before anything is measured, StorageError when the disk refuses.
    """

    def __init__(self, path: Path, start_ns: int) -> None:
        self.path = path
        self.rows = 0
        self.part = path.with_name(path.name + ".part")
        self._start_ns = start_ns
        self._flushed_s = time.monotonic()
        if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
            raise BadInputError(
                f"--output {path}: Parquet needs pyarrow, which is not installed; pip install pyarrow, or write .csv"
            )
        try:
            self._file: TextIO = self.part.open("w", newline="")
        except OSError as error:
            raise BadInputError(f"--output {path}: {self.part} cannot be written: {error.strerror or error}") from error
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def add(self, samples: MeterSamples) -> None:
        temps = samples.temp_c or ("",) * len(samples.t_ns)
        times_s = [f"{(t_ns - self._start_ns) * 1e-9:.6f}" for t_ns in samples.t_ns]
        columns = (times_s, samples.voltage_v, samples.current_a, samples.power_w, map(int, samples.fresh), temps)
        try:
            self._writer.writerows(zip(*columns, strict=True))
            self.rows += len(times_s)
            if time.monotonic() - self._flushed_s > FLUSH_S:
                self._sync()
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Give the file its name."""
        try:
            self._sync()
            self._file.close()
            if self.path.suffix.lower() == ".parquet":
                self._convert()
            else:
                self.part.replace(self.path)
        except OSError as error:
            raise self._refused(error) from error

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._flushed_s = time.monotonic()

    def _convert(self) -> None:
        from pyarrow import bool_, csv, float64, parquet

        types = dict.fromkeys(COLUMNS, float64()) | {"fresh": bool_()}
        table = csv.read_csv(self.part, convert_options=csv.ConvertOptions(column_types=types))
        half = self.path.with_name(self.path.name + ".half")
        parquet.write_table(table, half)
        with half.open("rb") as file:
            os.fsync(file.fileno())
        half.replace(self.path)
        self.part.unlink()

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.path} cannot be written: {error.strerror or error}. What came until then is in {self.part}."
        )
