"""The formats of others by name: what `coordinator lut import` and `coordinator lut export` offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lut_store import formats
from lut_store.formats import csv_table, files, hanna, hw_nas_bench, ofa, operators
from lut_store.formats.operators import Dumped, Scheme
from lut_store.lut import Lut
from protos.errors import BadInputError, unknown
from protos.types import Configuration, SearchSpace

SCHEMES: dict[str, Scheme] = {scheme.format: scheme for scheme in (ofa.SCHEME, hw_nas_bench.SCHEME)}
PAIRS = (hanna.FORMAT, *SCHEMES)  # a file of latencies and one of energies
OWN = tuple(ending.removeprefix(".") for ending in formats.LOADABLE)  # hold a whole LUT
FORMATS = (*PAIRS, csv_table.FORMAT, *OWN)


def load_tables(
    format_: str, space: SearchSpace, configuration: Configuration, latency: Path | None, energy: Path | None
) -> Lut:
    """A format of PAIRS. Raises BadInputError with file and line, cell or key, whatever the files hold."""
    paths = {name: path for name, path in (("latency", latency), ("energy", energy)) if path is not None}
    if format_ == hanna.FORMAT:
        if latency is None or energy is None:
            raise BadInputError("the hanna format is a pair: name both --latency FILE and --energy FILE")
        return hanna.load_pair(space, configuration.device_type, latency, energy, configuration)
    if format_ not in SCHEMES:
        raise unknown("format of tables", format_, PAIRS)
    return operators.load(SCHEMES[format_], space, configuration, paths)


def load_file(
    format_: str,
    path: Path,
    space: SearchSpace | None = None,
    configuration: Configuration | None = None,
    device_type: str = "",
) -> Lut:
    """A format of one file: csv needs the space and the configuration; a file with a whole LUT must fit the space and
    the device type that are named.

    Raises BadInputError with file and line or field.
    """
    if format_ == csv_table.FORMAT:
        if space is None or configuration is None:
            raise BadInputError(f"{path}: a csv table does not say what it is of: name --device-type and --space")
        return csv_table.load(space, configuration, path)
    if format_ not in OWN:
        raise unknown("format of a file", format_, (csv_table.FORMAT, *OWN))
    lut = formats.read_as(f".{format_}", files.read(path), str(path))
    if space is not None and space.digest != lut.space.digest:
        raise BadInputError(f"{path} is of space {lut.space.name}, which is not {space.name}: its operators differ")
    if device_type and device_type != lut.configuration.device_type:
        raise BadInputError(
            f"{path} is of device type {lut.configuration.device_type}, not {device_type}; leave out --device-type"
        )
    if "origin" in lut.provenance:
        return lut
    origin = {"format": format_, "files": {"lut": path.name}, "note": f"a LUT of edgelut, there version {lut.version}"}
    return replace(lut, provenance=dict(lut.provenance) | {"origin": origin})


def dump_tables(format_: str, lut: Lut) -> Dumped:
    """A format of PAIRS: one text per metric. Raises BadInputError for what the format has no place for."""
    if format_ == hanna.FORMAT:
        texts = dict(zip(("latency", "energy"), hanna.dump_pair(lut), strict=True))
        ends = lut.fixed_included and bool(lut.space.stem or lut.space.head)
        note = "stem and head are not in the files: the hanna format has no place for them"
        return Dumped(texts, (note,) if ends else ())
    if format_ not in SCHEMES:
        raise unknown("format of tables", format_, PAIRS)
    return operators.dump(SCHEMES[format_], lut)


def save_pair(texts: Mapping[str, str], latency: Path, energy: Path | None) -> tuple[Path, ...]:
    """Write the texts, each whole or not at all. Raises BadInputError when one of them has no file to go to."""
    places = {"latency": latency, "energy": energy}
    if set(texts) == {"energy"}:  # a LUT of energies alone
        places = {"energy": energy or latency}
    chosen = {name: path for name in texts if (path := places[name]) is not None}
    if energy is not None and "energy" not in texts:
        raise BadInputError(f"{energy}: the LUT holds no energy; leave out --energy")
    for name in texts.keys() - chosen.keys():
        raise BadInputError(f"the format is one file per quantity: say with --energy FILE where the {name} goes")
    for name, path in chosen.items():
        files.write(path, texts[name].encode())
    return tuple(chosen.values())
