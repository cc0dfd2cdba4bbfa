"""Calibrations on disk: one JSON file per meter, which the daemon sends along with what the meter measures.

A meter is known by its kind and serial number, or by its port where it has none; an emulated one that is started for
each use has neither, and is known by its kind. Standard library only: the daemon reads these.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from agent.meters.spec import parse_spec
from protos.errors import BadInputError, StorageError
from protos.types import Calibration, MeterInfo, digest_of

FORMAT, FORMAT_VERSION = "edgelut-meter-calibration", 1
ID_DIGITS = 12
EMULATED = "emulated"


def default_folder() -> Path:
    """EDGELUT_CALIBRATIONS, else beside the spool: below systemd's state directory or the user's."""
    if given := os.environ.get("EDGELUT_CALIBRATIONS"):
        return Path(given)
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0]) / "calibrations"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edgelut" / "calibrations"


@dataclass(frozen=True)
class MeterKey:
    """Which meter a calibration is of."""

    kind: str
    serial: str
    port: str  # empty where the serial number is known

    @classmethod
    def of(cls, spec: str, info: MeterInfo) -> MeterKey:
        """`spec`: how the meter was named; a meter that was emulated for this use has a new port every time."""
        if parse_spec(spec).kind == EMULATED:
            return cls(info.kind, "", EMULATED)
        return cls(info.kind, info.serial, "" if info.serial else info.port)

    @property
    def file_name(self) -> str:
        """Readable, and different for different meters."""
        readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{self.kind}-{self.serial or self.port}").strip("-")[:60]
        return f"{readable}-{digest_of([self.kind, self.serial, self.port])[:8]}.json"


def identified(calibration: Calibration) -> Calibration:
    """With the id that its other fields give."""
    content = asdict(replace(calibration, id=""))
    return replace(calibration, id=digest_of(content)[:ID_DIGITS])


class CalibrationStore:
    """The calibrations below a folder; the newest of each meter."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def path(self, key: MeterKey) -> Path:
        return self.folder / key.file_name

    def prepare(self) -> None:
        """See that it can be written to, before minutes are spent on what to write; StorageError says why not."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise self._refused(self.folder, error) from error

    def save(self, key: MeterKey, model: str, calibration: Calibration) -> Path:
        """Write it whole and durably, in the place of an older one. StorageError says why it cannot be."""
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "meter": asdict(key) | {"model": model},
            "calibration": asdict(calibration),
        }
        path = self.path(key)
        self.prepare()
        try:
            _write_durably(path, json.dumps(document, indent=2) + "\n")
        except OSError as error:
            raise self._refused(path, error) from error
        return path

    @staticmethod
    def _refused(path: Path, error: OSError) -> StorageError:
        return StorageError(
            f"the calibration cannot be written to {path}: {error.strerror or error}. Choose another folder with "
            "--calibrations, the same for `run`."
        )

    def load(self, key: MeterKey) -> Calibration | None:
        """None when this meter was never calibrated. Raises BadInputError for a file that cannot be one."""
        path = self.path(key)
        try:
            text = path.read_text()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadInputError(f"the calibration {path} cannot be read: {error.strerror or error}.") from error
        try:
            return _calibration(json.loads(text))
        except (ValueError, TypeError, KeyError) as error:
            raise BadInputError(
                f"{path} is no calibration of this version ({error}); delete it and run `edgelut-agent calibrate` once "
                "more."
            ) from error


def _calibration(document: Any) -> Calibration:
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise ValueError("another format")
    if document.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"format version {document.get('format_version')!r}")
    values = document["calibration"]
    if not isinstance(values, Mapping):
        raise ValueError("`calibration` is no object")
    for item in fields(Calibration):
        if item.name in values and not isinstance(values[item.name], _allowed(str(item.type))):
            raise ValueError(f"{item.name} is {values[item.name]!r}")
    found = Calibration(**values)
    if found.id != identified(found).id:
        raise ValueError("its id does not fit its numbers")
    return found


def _allowed(hint: str) -> tuple[type, ...]:
    if hint == "str":
        return (str,)
    return (int, float, type(None)) if "None" in hint else (int,) if hint == "int" else (int, float)


def _write_durably(path: Path, text: str) -> None:
    """The file is the old one or the new one, whatever happens meanwhile."""
    number, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(number, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # the daemon may be another user
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
