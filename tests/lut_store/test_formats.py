"""Files: what is written loads back as the same LUT, and what is not a LUT is refused in one sentence."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lut_store import formats
from lut_store.document import FORMAT_VERSION, to_document
from lut_store.formats import decode, files, json_text, parquet
from lut_store.lut import Lut
from protos import types
from protos.errors import BadInputError, StorageError
from tests.lut_store.samples import fbnet, lut_of, random_choices, space_of
from tests.lut_store.strategies import luts

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# ---- round trips ----


@quick
@given(luts())
def test_every_lossless_format_gives_the_same_lut_back(lut: Lut) -> None:
    for write, read in (
        (formats.to_bytes, formats.from_bytes),
        (lambda each: json_text.readable(each).encode(), decode.from_text),
        (parquet.to_bytes, parquet.from_bytes),
    ):
        back = read(write(lut), "here")
        assert back == lut
        assert back.digest == lut.digest
        assert write(back) == write(lut)


@quick
@given(luts())
def test_every_document_satisfies_the_shipped_schema(lut: Lut) -> None:
    jsonschema.validate(to_document(lut), schema())


def schema() -> Any:
    return json.loads(resources.files(formats).joinpath("lut.schema.json").read_text())


def test_the_schema_itself_is_one_and_names_the_format_version() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["properties"]["format_version"] == {"const": FORMAT_VERSION}


def test_the_schema_knows_the_words_of_the_vocabulary() -> None:
    operator = schema()["$defs"]["operator"]["properties"]
    configuration = schema()["properties"]["configuration"]["properties"]
    for node, words in (
        (operator["kind"], types.BLOCK_KINDS),
        (operator["activation"], types.ACTIVATIONS),
        (operator["norm"], types.NORMS),
        (configuration["emulation"], types.EMULATIONS),
        (configuration["context"], types.CONTEXTS),
    ):
        assert node["enum"] == list(words)
    assert set(operator) == {item.name for item in fields(types.BlockSpec)}


@pytest.mark.parametrize("ending", [".lut", ".json", ".parquet", ".LUT"])
def test_save_and_load_predict_the_same(tmp_path: Path, ending: str) -> None:
    lut = lut_of(fbnet(), version=3, created_wall_s=1234.5)
    lut.save(tmp_path / f"mine{ending}")
    back = Lut.load(str(tmp_path / f"mine{ending}"))
    assert back == lut
    assert back.reference == "rpi3b/fbnet-cifar10@3"
    choices = random_choices(lut.space, 100)
    np.testing.assert_array_equal(back.predict(choices), lut.predict(choices))
    np.testing.assert_array_equal(back.predict_interval(choices), lut.predict_interval(choices))
    assert [path.name for path in tmp_path.iterdir()] == [f"mine{ending}"]


def test_a_file_is_made_for_others_to_read_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.lut"
    old = os.umask(0o022)
    try:
        lut_of().save(path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o644
    other = lut_of(seed=5)
    other.save(path)
    assert Lut.load(path) == other


def test_readable_json_has_one_table_row_on_a_line() -> None:
    lines = json_text.readable(lut_of(fbnet())).splitlines()
    assert sum(line.strip().startswith("[0.") for line in lines) > 22 * 3
    assert len(lines) < 600


# ---- files that cannot be ----


def test_csv_and_unknown_endings_say_what_there_is(tmp_path: Path) -> None:
    lut_of().save(tmp_path / "mine.csv")
    with pytest.raises(BadInputError, match=r"mine\.csv: a \.csv file holds the table alone.*\.lut, \.json, \.parquet"):
        Lut.load(tmp_path / "mine.csv")
    with pytest.raises(BadInputError, match=r"must be one of \.lut, \.csv, \.json, \.parquet"):
        lut_of().save(tmp_path / "mine.txt")
    with pytest.raises(BadInputError, match="not a LUT's ending"):
        Lut.load(tmp_path / "mine")


def test_files_that_are_not_there_or_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"none\.lut cannot be read: No such file"):
        Lut.load(tmp_path / "none.lut")
    with pytest.raises(StorageError, match=r"x\.lut cannot be written: No such file"):
        lut_of().save(tmp_path / "no" / "x.lut")


SAVE_ON_FULL_DISK = """
import resource, signal, sys
from lut_store.lut import Lut
lut = Lut.load(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
lut.save(sys.argv[2])
"""


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    lut_of().save(tmp_path / "mine.lut")
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "old.lut"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", SAVE_ON_FULL_DISK, str(tmp_path / "mine.lut"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"StorageError: {path} cannot be written: File too large" in done.stderr
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def packed(text: bytes) -> bytes:
    return gzip.compress(text)


BAD_FILES: list[tuple[str, bytes, str]] = [
    ("empty.lut", b"", "cut off"),
    ("pickle.lut", pickle.dumps({"format": "edgelut-lut"}), "not a .lut file"),
    ("pickle.json", pickle.dumps({"format": "edgelut-lut"}), "not the JSON of a LUT|not JSON"),
    ("text.lut", b"hello", "not a .lut file"),
    ("text.json", b"hello", "not JSON, or is cut off: .* line 1, column 1"),
    ("nothing.json", b"", "not JSON"),
    ("list.json", b"[1]", "must be an object, not list"),
    ("other.json", b'{"format": "x"}', "JSON but not a LUT"),
    ("deep.json", b"[" * 100_000, "not the JSON of a LUT|not JSON"),
    ("digits.json", b"9" * 5000, "not the JSON of a LUT"),
    ("nan.json", b'{"format": NaN}', "holds NaN.*null"),
    ("infinity.json", b'{"format": -Infinity}', "holds -Infinity"),
    ("bytes.json", b'{"a": "\xff"}', "not the JSON of a LUT"),
    ("trailing.lut", packed(b"{}") + b"more", "goes on after its end with 4 bytes"),
    ("text.parquet", b"hello", "not a Parquet file"),
    ("empty.parquet", b"", "not a Parquet file"),
]


@pytest.mark.parametrize(("name", "data", "words"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_what_is_not_a_lut_is_refused_in_one_sentence(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInputError, match=words) as refusal:
        Lut.load(tmp_path / name)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_cut_off_anywhere_is_refused() -> None:
    whole = formats.to_bytes(lut_of())
    for end in range(0, len(whole), 97):
        with pytest.raises(BadInputError):
            formats.from_bytes(whole[:end], "cut")


def test_a_zip_bomb_is_refused_before_it_unfolds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_DOCUMENT_BYTES", 1 << 20)
    bomb = gzip.compress(bytes(8 << 20))
    assert len(bomb) < 20_000
    with pytest.raises(BadInputError, match="unpacks to more than 1 MiB"):
        formats.from_bytes(bomb, "bomb")


def test_a_document_of_exactly_the_limit_is_not_called_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_DOCUMENT_BYTES", 1000)
    assert files.decompress(gzip.compress(bytes(1000)), "x") == bytes(1000)
    with pytest.raises(BadInputError, match="unpacks to more"):
        files.decompress(gzip.compress(bytes(1001)), "x")


def test_a_file_beyond_the_size_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10)
    (tmp_path / "large.json").write_bytes(bytes(11))
    with pytest.raises(BadInputError, match="larger than 0 MiB"):
        Lut.load(tmp_path / "large.json")


def test_a_parquet_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(BadInputError, match="without the LUT's document in its metadata"):
        Lut.load(tmp_path / "other.parquet")


# ---- documents that cannot be ----

Edit = Callable[[dict[str, Any]], object]


def edited(edit: Edit) -> bytes:
    document = json.loads(json.dumps(to_document(lut_of())))
    edit(document)
    return json.dumps(document).encode()


EDITS: list[tuple[Edit, str]] = [
    (lambda d: d.pop("energy"), "the document has no field 'energy'"),
    (lambda d: d.update(extra=1), "has a field 'extra', which format version 1 does not know"),
    (lambda d: d.update(format_version=2), "format version 2, this program reads 1"),
    (lambda d: d.update(format_version=None), "format version null"),
    (lambda d: d.update(version="3"), 'version must be a whole number, not "3"'),
    (lambda d: d.update(version=True), "version must be a whole number, not true"),
    (lambda d: d.update(version=-1), "version is -1"),
    (lambda d: d.update(version=10**400), "version is larger than any count"),
    (lambda d: d.update(created_wall_s=10**400), "created_wall_s is not a finite number"),
    (lambda d: d.update(digest="0" * 64), "digest does not fit the content"),
    (lambda d: d["latency"]["value"][0].__setitem__(0, 9.0), "digest does not fit the content"),
    (lambda d: d["latency"]["value"].pop(), r"latency\.value has 3 entries; the space needs 4"),
    (lambda d: d["energy"]["se"][1].append(0.1), r"energy\.se\[1\] has 10 entries; the space needs 9"),
    (lambda d: d["latency"]["value"][0].__setitem__(0, "1"), r'latency\.value\[0\]\[0\] must be a number, not "1"'),
    (lambda d: d["latency"]["value"][0].__setitem__(0, []), r"latency\.value\[0\]\[0\] must be a number, not list"),
    (lambda d: d["latency"]["value"][0].__setitem__(8, 1.0), "latency cannot be: corrected and value must be NaN"),
    (lambda d: d["latency"]["n"][0].__setitem__(0, 1.5), r"latency\.n\[0\]\[0\] must be a whole number, not 1\.5"),
    (lambda d: d["latency"]["n"][0].__setitem__(0, None), r"latency\.n\[0\]\[0\] must be a whole number, not null"),
    (lambda d: d["latency"]["se"][0].__setitem__(0, -1), "latency cannot be: se holds a negative standard error"),
    (lambda d: d["latency"].pop("fixed_n"), "latency has no field 'fixed_n'"),
    (lambda d: d["space"]["layers"][1].__setitem__(0, 999), r"space\.layers\[1\]\[0\] names operator 999; there are"),
    (lambda d: d["space"]["layers"][1].__setitem__(0, -1), r"space\.layers\[1\]\[0\] names operator -1"),
    (lambda d: d["space"]["layers"].__setitem__(1, [None] * 9), "space cannot be: .* no candidate is allowed"),
    (lambda d: d["space"]["operators"][0].update(kernel=2), r"space\.operators\[0\] cannot be: kernel is 2"),
    (lambda d: d["space"]["operators"][0].update(kind=3), r"space\.operators\[0\]\.kind must be text, not 3"),
    (lambda d: d["space"].update(name="other"), "the document cannot be: the configuration names space sample"),
    (lambda d: d["space"]["op_names"].__setitem__(0, "\ud800"), r"space\.op_names\[0\] holds half a surrogate pair"),
    (lambda d: d["configuration"].update(context="warm"), "configuration cannot be: context is 'warm'"),
    (lambda d: d["flags"][0].update(layer=77), "flags name layer 77"),
    (lambda d: d["flags"][0].update(flags="x"), r"flags\[0\]\.flags must be a list, not \"x\""),
    (lambda d: d.update(validation=[]), "validation must be an object, not list"),
    (lambda d: d["provenance"].update(a={"b": "\udc00"}), r"provenance\.a\.b holds half a surrogate pair"),
    (lambda d: d.update(fixed_included=False), "numbers for stem and head"),
]


@pytest.mark.parametrize(("edit", "words"), EDITS, ids=[words[:40] for _, words in EDITS])
def test_a_document_that_cannot_be_names_the_field(edit: Edit, words: str) -> None:
    with pytest.raises(BadInputError, match=words) as refusal:
        decode.from_text(edited(edit), "mine.json")
    assert str(refusal.value).startswith("mine.json")
    assert "\n" not in str(refusal.value)


def test_numbers_that_overflow_are_refused() -> None:
    text = edited(lambda d: d["latency"]["value"][0].__setitem__(0, 0.125)).replace(b"0.125", b"1e999")
    with pytest.raises(BadInputError, match=r"latency\.value\[0\]\[0\] is not a finite number"):
        decode.from_text(text, "x")


def test_records_nested_too_deep_are_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(40):
        nested = {"a": nested}
    with pytest.raises(BadInputError, match="nested more than 32 deep"):
        decode.from_text(edited(lambda d: d.update(provenance=nested)), "x")


@quick
@given(st.data())
def test_damage_anywhere_is_refused_or_harmless(data: st.DataObject) -> None:
    """One byte of the file changed: never another exception, never other numbers."""
    lut = lut_of(space_of(((1, 16, 1),)), flags={})
    for write, read in ((formats.to_bytes, formats.from_bytes), (parquet.to_bytes, parquet.from_bytes)):
        whole = bytearray(write(lut))
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        with contextlib.suppress(BadInputError):
            assert read(bytes(whole), "damaged").digest == lut.digest


@quick
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    for read in (formats.from_bytes, decode.from_text, parquet.from_bytes):
        with pytest.raises(BadInputError):
            read(data, "noise")
    with pytest.raises(BadInputError):
        formats.from_bytes(gzip.compress(data), "noise")


def test_equal_luts_give_equal_bytes() -> None:
    assert formats.to_bytes(lut_of()) == formats.to_bytes(replace(lut_of()))
    assert zlib.decompress(formats.to_bytes(lut_of()), 31) == json_text.canonical(lut_of()).encode()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("devices", "x", "provenance.devices must be a list"),
        ("devices", [{"facts": {}}], r"provenance.devices\[0\] has no field 'name'"),
        ("devices", [{"name": "a", "facts": "x"}], r"provenance.devices\[0\].facts must be an object"),
        ("settings", 3, "provenance.settings must be an object"),
        ("host", [1], "provenance.host must be an object"),
        ("host", {"temp_c": [40]}, "provenance.host.temp_c must be a list of 2"),
        ("meter", "no", "provenance.meter must be an object"),
        ("meter", {"calibration": {"measured_wall_s": 1e300}}, "measured_wall_s must be seconds since 1970"),
        ("boards", [1], "provenance.boards must be an object"),
        ("boards", {"cells": [[99, 0]], "operators": ["a"]}, "names a cell that the space does not have"),
        ("boards", {"cells": [[0, 0]], "operators": []}, "provenance.boards.operators must be 1"),
        ("runs", [None], r"provenance.runs\[0\] must be text"),
        ("rounds", True, "provenance.rounds must be a whole number from 0"),
        ("conditions", {"kernel": "6"}, "provenance.conditions.kernel must be a list"),
        ("reused", {}, "provenance.reused has no field 'reference'"),
        ("estimates", {"latency": 3}, "provenance.estimates.latency must be an object"),
        ("origin", {"files": []}, "provenance.origin.files must be an object"),
    ],
)
def test_a_provenance_that_readers_would_stumble_over_is_refused(key: str, value: object, says: str) -> None:
    lut = lut_of()
    bad = replace(lut, provenance={**lut.provenance, key: value})
    with pytest.raises(BadInputError, match=rf"^theirs\.lut: .*{says}"):
        formats.from_bytes(formats.to_bytes(bad), "theirs.lut")
    empty = replace(lut, provenance={**lut.provenance, key: None})
    assert formats.from_bytes(formats.to_bytes(empty), "theirs.lut") == empty
