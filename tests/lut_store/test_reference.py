"""References to LUTs and where the database is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lut_store.paths import default_database_url
from lut_store.reference import name_of, parse_reference, tag_name, version_number
from protos.errors import BadInputError
from protos.types import LutQuery


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("rpi3b", LutQuery("rpi3b")),
        (" rpi3b/fbnet-cifar10 ", LutQuery("rpi3b", "fbnet-cifar10")),
        ("rpi3b@latest", LutQuery("rpi3b", version="latest")),
        ("rpi3b@stable", LutQuery("rpi3b", version="stable")),
        ("rpi3b/fbnet-cifar10@12", LutQuery("rpi3b", "fbnet-cifar10", "12")),
        ("local/spaces/mine@1", LutQuery("local", "spaces/mine", "1")),
    ],
)
def test_references(text: str, query: LutQuery) -> None:
    assert parse_reference(text) == query
    assert name_of(query) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/x",
        "a/",
        "@1",
        "a@",
        "a@@1",
        "a@1/b",
        "a b",
        "a@0",
        "a@-1",
        "a@1.5",
        "a@ü",
        f"a@{'x' * 65}",
        f"a@{'9' * 30}",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match=r"names no LUT; write TYPE|must be a number from 1, 'latest' or a tag"):
        parse_reference(text)


@given(st.text(max_size=20))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        query = parse_reference(text)
    except BadInputError:
        return
    assert query.device_type
    assert parse_reference(name_of(query)) == query


def test_version_number() -> None:
    assert version_number(LutQuery()) is version_number(LutQuery(version="latest")) is None
    assert version_number(LutQuery(version="stable")) is None
    assert version_number(LutQuery(version="7")) == 7


def test_tag_name() -> None:
    assert [tag_name(LutQuery(version=text)) for text in ("", "latest", "7", "stable", "v2.1-rc_1")] == [
        *("", "", "", "stable", "v2.1-rc_1"),
    ]


def test_name_of_a_query_with_options() -> None:
    query = LutQuery("local", threads=2, context="steady")
    assert name_of(query) == "local --context steady --threads 2"
    assert name_of(LutQuery(space="s")) == "any device type/s"


def test_the_database_is_in_the_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_database_url() == f"sqlite:///{tmp_path}/edgelut/edgelut.db"
    monkeypatch.setenv("HOME", "/home/somebody")
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_DATA_HOME", ignored)
        assert default_database_url() == "sqlite:////home/somebody/.local/share/edgelut/edgelut.db"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_database_url() == "sqlite:////home/somebody/.local/share/edgelut/edgelut.db"
