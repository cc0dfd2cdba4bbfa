"""Files that somebody made to break a reader: one sentence, little memory, little time, nothing executed."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lut_store import formats
from lut_store.formats import csv_table, hanna, tables
from lut_store.lut import Lut
from nas.space import load_space
from protos.errors import BadInputError
from protos.types import Configuration
from tests.lut_store.samples import lut_of, space_of

quick = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
SPACE = space_of(((1, 16, 1), (2, 24, 2)))
HOW = Configuration("theirs", SPACE.name)
LUT = lut_of(SPACE, flags={})


def read_pair(format_: str) -> Callable[[Path], Lut]:
    return lambda path: tables.load_tables(format_, SPACE, HOW, path, path)


READERS: dict[str, Callable[[Path], Lut]] = {
    "hanna": read_pair("hanna"),
    "ofa": read_pair("ofa"),
    "hw-nas-bench": read_pair("hw-nas-bench"),
    "csv": lambda path: csv_table.load(SPACE, HOW, path),
    **{name: lambda path, name=name: tables.load_file(name, path, SPACE) for name in tables.OWN},  # type: ignore[misc]
}


def good(format_: str, tmp_path: Path) -> bytes:
    """A file that the reader accepts."""
    if format_ in tables.PAIRS:
        return tables.dump_tables(format_, LUT).texts["latency"].encode()
    formats.save_as(f".{format_}", LUT, tmp_path / "good")
    return (tmp_path / "good").read_bytes()


@pytest.fixture(scope="module")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return {name: good(name, tmp_path_factory.mktemp("good")) for name in READERS}


def refused(reader: Callable[[Path], Lut], path: Path, words: str | None = None) -> None:
    with pytest.raises(BadInputError, match=words) as refusal:
        reader(path)
    sentence = str(refusal.value)
    assert path.name in sentence
    assert "\n" not in sentence
    assert len(sentence) < 600


# ---- mutations ----

MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "repeat", "swap"]),
        st.integers(0, 1 << 30),
        st.binary(min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip
TOKENS = st.sampled_from(
    [b"nan", b"-1", b"1e999", b"[" * 50, b"{" * 50, b"&a", b"*a", b"!!python/object", b",", b'"', b"\n", b"\x00",
     b"\xff", b"\x80\x04", b"null", b"9" * 400, b": ", b"mean", b"--- ", b"Infinity", b"\xed\xa0\x80",
     b"1_0", b"\\ud800"]
)  # fmt: skip


def mutated(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for kind, at, piece in changes:
        at %= len(data) + 1
        if kind == "flip" and data:
            at %= len(data)
            data = data[:at] + bytes([data[at] ^ (piece[0] or 1)]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "insert":
            data = data[:at] + piece + data[at:]
        elif kind == "repeat":
            data = data[:at] + data[: len(piece) * 7] + data[at:]
        elif kind == "swap":
            data = data[at:] + data[:at]
    return data


@quick
@given(
    st.sampled_from(sorted(READERS)),
    MUTATIONS,
    st.lists(st.tuples(st.just("insert"), st.integers(0, 1 << 30), TOKENS), max_size=3),
)
def test_a_mutated_file_is_a_lut_or_one_sentence(
    good_files: dict[str, bytes],
    tmp_path: Path,
    format_: str,
    changes: list[tuple[str, int, bytes]],
    more: list[tuple[str, int, bytes]],
) -> None:
    path = tmp_path / "mutated"
    path.write_bytes(mutated(good_files[format_], changes + more))
    lut, sentence = read(READERS[format_], path)
    if lut is None:
        assert "mutated" in sentence
        assert "\n" not in sentence
    else:
        lut.save(tmp_path / "again.lut")
        assert Lut.load(tmp_path / "again.lut") == lut


def read(reader: Callable[[Path], Lut], path: Path) -> tuple[Lut | None, str]:
    try:
        return reader(path), ""
    except BadInputError as error:
        return None, str(error)


@quick
@given(st.sampled_from(sorted(READERS)), st.binary(max_size=300))
def test_any_bytes_are_one_sentence(tmp_path: Path, format_: str, data: bytes) -> None:
    path = tmp_path / "noise"
    path.write_bytes(data)
    refused(READERS[format_], path)


@pytest.mark.parametrize("format_", sorted(READERS))
def test_a_file_that_is_cut_off_is_refused(good_files: dict[str, bytes], tmp_path: Path, format_: str) -> None:
    whole = good_files[format_]
    path = tmp_path / "cut"
    ends = [0, 1, len(whole) // 3, len(whole) // 2]
    # A CSV table or a mapping that ends early is one with fewer cells, unless it ends inside a value.
    for end in ends if format_ not in ("csv", "ofa") else ends[:2]:
        path.write_bytes(whole[:end])
        refused(READERS[format_], path)


# ---- attacks ----


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("format_", sorted(READERS))
def test_a_pickle_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table").write_bytes(pickle.dumps({"ConvBlock": Bomb()}))
    refused(READERS[format_], tmp_path / "table", "pickle" if format_ == "hw-nas-bench" else None)
    assert not (tmp_path / "executed").exists()


def test_a_pickle_inside_text_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.yaml").write_text("a: !!python/object/apply:os.system ['touch executed']\n")
    refused(READERS["ofa"], tmp_path / "t.yaml", "line 1: the tag tag:yaml.org,2002:python/object/apply")
    assert not (tmp_path / "executed").exists()


LAUGHS = "a: &a {mean: 1, x: [1,1,1,1,1,1,1,1,1]}\n" + "".join(
    f"{b}: &{b} {{mean: 1, x: [{','.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefghi", "bcdefghij", strict=False)
)


@pytest.mark.parametrize(
    ("format_", "text", "words"),
    [
        ("ofa", LAUGHS, "line 2: an alias"),
        ("ofa", "a: {mean: 1, x: " + "[" * 5000 + "]" * 5000 + "}", "line 1: nested too deeply"),
        ("ofa", "a: {mean: 1}\na: {mean: 2}\n", "line 2: the operator 'a' stands twice"),
        ("ofa", "a: {mean: .nan}\n", "line 1, a: '.nan' is no number"),
        ("ofa", "a: {mean: NaN}\n", "line 1, a: 'NaN' is not finite"),
        ("ofa", "a:\n  mean: -3\n", "line 2, a: -3 is negative"),
        ("ofa", "a: 3\n", "line 1: a must hold a mapping"),
        ("ofa", "a: {count: 3}\n", "line 1: a has no key 'mean'"),
        ("ofa", "- a\n", "line 1: the file must be a mapping"),
        ("ofa", "a: {mean: 1}\n---\nb: {mean: 1}\n", "line 2: a second document"),
        ("ofa", "a: {mean: 1\n", "line 2: not valid YAML|line 1: not valid YAML"),
        ("ofa", "", "is empty"),
        ("ofa", "other: {mean: 1}\n", "none of its 1 operators is one of space sample: its first key is 'other'"),
        ("hw-nas-bench", '{"a": 1, "a": 2}', "the operator 'a' stands twice"),
        ("hw-nas-bench", '{"a": NaN}', "holds NaN"),
        ("hw-nas-bench", '{"a": 1e999}', "a: 1e999 is larger"),
        ("hw-nas-bench", '{"a": 1e-999}', "a: 1e-999 is smaller"),
        ("hw-nas-bench", '{"a": "1"}', "a: must be a number"),
        ("hw-nas-bench", '{"a": {"b": 1}}', "a: a table inside the file"),
        ("hw-nas-bench", '{"\\ud800": 1}', "is no name of an operator"),
        ("hw-nas-bench", '{"a": 1', "line 1: not JSON, or cut off"),
        ("hw-nas-bench", "[1]", "must be an object"),
        ("hw-nas-bench", "[" * 100_000, "nested too deeply|not JSON"),
        ("hw-nas-bench", '{"a": 1}', "none of its 1 operators is one of space sample"),
    ],
)
def test_tables_that_cannot_be_name_line_or_key(tmp_path: Path, format_: str, text: str, words: str) -> None:
    (tmp_path / "table").write_text(text)
    refused(READERS[format_], tmp_path / "table", words)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("1_000", "is no number"),
        ("٣.٥", "is no number"),
        ("1e300", "is larger than any operator's cost"),
        ("0x10", "is no number"),
    ],
)
def test_numbers_are_plain_decimals_that_a_cost_can_be(tmp_path: Path, word: str, says: str) -> None:
    grid = "\n".join([" ".join([word, *["1"] * 8]), *[" ".join(["1"] * 9)] * 2]) + "\n"
    (tmp_path / "table").write_text(grid)
    refused(READERS["hanna"], tmp_path / "table", f"line 1, column 1: .*{says}")
    (tmp_path / "table").write_text(f"layer,op,latency_s\n0,k3_e1,{word}\n")
    refused(READERS["csv"], tmp_path / "table", f"line 2, latency_s: .*{says}")
    (tmp_path / "table").write_text(f"a: {{mean: '{word}'}}\n")
    refused(READERS["ofa"], tmp_path / "table", f"a: .*{says}")


# What each of these files would take if it were read as it asks to be: gigabytes, or minutes.
LARGE: dict[str, Callable[[], bytes]] = {
    "hanna": lambda: b"1 " * (2 << 20) + b"\n" + b"1\n" * 2,
    "ofa": lambda: b"".join(b"k%d: {mean: 1}\n" % i for i in range(200_000)),
    "hw-nas-bench": lambda: b"[" + b"{}," * (1 << 20) + b"{}]",
    "csv": lambda: b"layer,op,latency_s\n" + b"0,k3_e1,1\n" * 700_000,
    "json": lambda: b'{"format": "edgelut-lut", "a": [' + b"0," * (4 << 20) + b"0]}",
}
READ_ALL = """
import sys
from pathlib import Path
from protos.errors import BadInputError
from tests.lut_store.test_hostile import READERS
for name in sys.argv[2:]:
    try:
        READERS[name](Path(sys.argv[1]) / name)
    except BadInputError as error:
        print(name, str(error)[:100])
status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with the parent's
print(int(status.partition("VmHWM:")[2].split()[0]) >> 10)
"""
WORST_MB = 500  # Python with numpy, pandas and pyarrow has 200 MB


def test_large_files_cost_little(tmp_path: Path) -> None:
    """All in one process: what it used at its worst."""
    for name, make in LARGE.items():
        (tmp_path / name).write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(tmp_path), *LARGE], capture_output=True, text=True, timeout=240, check=True
    )
    *said, usage = done.stdout.splitlines()
    assert [line.split()[0] for line in said] == list(LARGE)
    assert int(usage) < WORST_MB


def test_parquet_is_refused_from_its_footer_however_many_rows_follow(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.array(np.zeros(2_000_000, np.int8))
    pq.write_table(pa.table({"layer": column}), tmp_path / "rows.parquet")
    refused(READERS["parquet"], tmp_path / "rows.parquet", "without the LUT's document")


def test_a_file_larger_than_any_table_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)  # a sparse terabyte
    for reader in READERS.values():
        refused(reader, tmp_path / "huge", "is larger than")


def test_a_table_of_another_space_is_refused(tmp_path: Path) -> None:
    other = lut_of(load_space("fbnet-cifar10"), flags={})
    for format_ in ("hanna", "hw-nas-bench", "csv", "lut"):
        path = tmp_path / format_
        if format_ in tables.PAIRS:
            path.write_text(tables.dump_tables(format_, other).texts["latency"])
        else:
            formats.save_as(f".{format_}", other, path)
    refused(READERS["hanna"], tmp_path / "hanna", "has 22 lines; space sample has 3 layers")
    refused(READERS["csv"], tmp_path / "csv", "the table is of another space|is no cell of space sample")
    refused(READERS["lut"], tmp_path / "lut", "is of space fbnet-cifar10, which is not sample")


def test_a_word_of_a_megabyte_is_no_number() -> None:
    with pytest.raises(BadInputError, match="line 1, column 1: '1111") as refusal:
        hanna.parse_grid("1" * (1 << 20) + " 1" * 8 + "\n1\n1", "t", SPACE)
    assert len(str(refusal.value)) < 100
