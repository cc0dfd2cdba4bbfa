"""`coordinator lut tag|tags|lint|diff`, as a user calls them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.cli.lut_diff import architectures
from coordinator.embedded import serving
from lut_store.lut import Lut
from lut_store.store import Store
from protos.errors import BadInputError
from protos.types import Configuration
from tests.coordinator.luts import validated_lut, with_hole
from tests.coordinator.test_cli import Here, here  # noqa: F401 - a fixture
from tests.lut_store.samples import space_of

SPACE = space_of()
NAME = f"rpi3b/{SPACE.name}"


def slower(lut: Lut, factor: float, op: int) -> Lut:
    """The candidate `op` costs `factor` times as much on every layer; and its flagged rounds are in the numbers."""
    assert lut.latency is not None
    scale = np.ones(lut.space.shape)
    scale[:, op] = factor
    metric = replace(lut.latency, value=scale * lut.latency.value, corrected=scale * lut.latency.corrected)
    return replace(lut, latency=metric, provenance={**lut.provenance, "preset": "standard", "rounds_left_out": 0})


@pytest.fixture
def stored(here: Here, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Lut]]:  # noqa: F811
    """Two versions in a coordinator that the commands find, the second with a slower candidate 3."""
    first = replace(validated_lut(SPACE), version=0, flags={})
    url = f"sqlite:///{here.folder / 'edgelut.db'}"
    with closing(Store(url)) as store:
        luts = [store.add_lut(first), store.add_lut(slower(first, 1.3, 3))]
    with serving(url) as address:
        monkeypatch.setenv("EDGELUT_COORDINATOR", address)
        yield luts


def lut(here: Here, *arguments: str, status: int = 0) -> str:  # noqa: F811
    done = here.run("coordinator", "lut", *arguments, status=status)
    assert "Traceback" not in done.stderr
    return done.stdout if status in (0, 1) else done.stderr


@pytest.mark.usefixtures("stored")
def test_a_tag_is_set_moved_and_remembered(here: Here) -> None:  # noqa: F811
    assert f"{NAME}@paper points at version 1" in lut(here, "tag", f"{NAME}@1", "paper", "--reason", "as printed")
    moved = json.loads(lut(here, "tag", NAME, "paper", "--json"))
    assert (moved["reference"], moved["previous_version"], moved["forced"]) == (f"{NAME}@2", 1, False)
    assert "@" in moved["moved_by"]
    assert [(t["name"], t["version"]) for t in json.loads(lut(here, "tags", NAME, "--json"))] == [
        ("latest", 2),
        ("paper", 2),
    ]
    history = lut(here, "tags", f"{NAME}@paper", "--history")
    assert history.index(f"{NAME}@paper        2") < history.index("as printed")
    assert json.loads(lut(here, "show", f"{NAME}@paper", "--json"))["version"] == 2
    assert "latest, paper" in lut(here, "list")
    lut(here, "export", f"{NAME}@paper", "--output", "paper.lut")
    assert Lut.load(here.folder / "paper.lut").version == 2


def test_stable_is_refused_with_the_reasons_and_forced_with_a_record(here: Here, stored: list[Lut]) -> None:  # noqa: F811
    refused = lut(here, "tag", NAME, "stable", status=2)
    assert f"{NAME}@2 cannot be stable: lint, " in refused
    assert "or force it, which the tag's history will say" in refused
    assert "Forced, which the history says, although:\n  - lint, " in lut(here, "tag", NAME, "stable", "--force")
    assert "stable → 2 was forced, although lint, " in lut(here, "tags", "--history")
    assert "more than 0.1%" in lut(here, "tag", NAME, "stable", "--max-mape", "0.1", status=2)
    assert len(stored) == 2


BAD_INPUT = (
    (("tag", f"{NAME}@9", "x"), f"{NAME} has no version 9. There is: {NAME}@2 (latest), {NAME}@1"),
    (("tag", f"{NAME}@stabel", "x"), "has no tag 'stabel'"),
    (("tag", NAME, "a b"), "'a b' is no name for a tag"),
    (("tag", NAME, "latest"), "'latest' moves by itself"),
    (("tag", "pi.lut", "x"), "pi.lut is a file; tags point at versions"),
    (("tag", NAME, "stable", "--max-mape", "-1"), "must be zero or more"),
    (("tags", "rpi4"), "there is no LUT rpi4"),
    (("tags", f"{NAME}@nope"), "has no tag 'nope'"),
    (("lint", f"{NAME}@7"), "has no version 7"),
    (("lint", "nowhere.lut"), "nowhere.lut cannot be read"),
    (("diff", f"{NAME}@1", f"{NAME}@5"), "has no version 5"),
    (("diff", f"{NAME}@1", f"{NAME}@2", "--choices", "0,1"), "2 choices for 4 layers"),
    (
        ("diff", f"{NAME}@1", f"{NAME}@2", "--choices", "0,1,2,k9"),
        "choice 4 is 'k9'; it must be a candidate's name",
    ),
    (("diff", f"{NAME}@1", f"{NAME}@2", "--choices", "skip,0,0,0"), "layer 0: skip is not allowed"),
    (("diff", f"{NAME}@1", f"{NAME}@2", "--fdr", "2"), "must lie between 0 and 1"),
    (("diff", f"{NAME}@1", f"{NAME}@2", "--picture", "x.jpg"), "does not end in .png"),
    (("diff", f"{NAME}@1", f"{NAME}@2", "--choices", "net.json"), "net.json is no file"),
)


@pytest.mark.usefixtures("stored")
def test_bad_input_is_a_sentence(here: Here) -> None:  # noqa: F811
    for arguments, words in BAD_INPUT:
        assert words in lut(here, *arguments, status=2)


# ---- lint ----


def test_lint_of_a_version_is_what_was_stored_and_of_a_file_what_is_found(here: Here, stored: list[Lut]) -> None:  # noqa: F811
    stored[1].save(here.folder / "pi.lut")
    of_version = json.loads(lut(here, "lint", f"{NAME}@2", "--json", status=1))
    of_file = json.loads(lut(here, "lint", "pi.lut", "--json", status=1))
    assert of_version == of_file
    assert of_version["errors"] == sum(f["severity"] == "error" for f in of_version["findings"]) > 0
    assert {"rule", "severity", "sentence", "metric", "cells"} == set(of_version["findings"][0])
    shown = lut(here, "lint", NAME, status=1)
    assert "error  flagged-samples  2 rounds were hot, throttled or disturbed" in shown
    assert re.search(r"\n +layer \d, k\d_e\d", shown)
    shown = lut(here, "show", NAME, "--view", "none")
    assert "error  flagged-samples  2 rounds were" in shown
    assert json.loads(lut(here, "show", NAME, "--json"))["lint"] == of_version["findings"]


def test_lint_ends_well_when_there_are_no_errors(here: Here) -> None:  # noqa: F811
    quiet = replace(validated_lut(SPACE, energy=False), flags={})
    quiet.save(here.folder / "quiet.lut")
    found = json.loads(lut(here, "lint", "quiet.lut", "--json"))
    assert found["errors"] == 0


# ---- diff ----


@pytest.mark.usefixtures("stored")
def test_diff_of_versions_and_files(here: Here) -> None:  # noqa: F811
    lut(here, "export", f"{NAME}@1", "--output", "one.lut")
    for first in (f"{NAME}@1", "one.lut"):
        shown = lut(here, "diff", first, f"{NAME}@latest", "--choices", "k3_e6,0,skip,0", "--picture", "diff.png")
        assert f"{NAME}@1 → {NAME}@2" in shown
        assert "latency: 3 of 27 operators changed beyond their joint uncertainty (false-discovery rate 5 %)" in shown
        assert "+30.0 %" in shown
        assert "energy: 0 of 27 operators changed" in shown
        assert "uniform mixture" in shown
        assert "architecture 1" in shown
        assert "preset" in shown
    assert (here.folder / "diff.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("stored")
def test_diff_for_programs(here: Here) -> None:  # noqa: F811
    (here.folder / "nets.txt").write_text("0 0 0 0\n\n3,3,3,3\n")
    found = json.loads(lut(here, "diff", f"{NAME}@1", f"{NAME}@2", "--choices", "nets.txt", "--fdr", "0.01", "--json"))
    assert found["a"]["reference"] == f"{NAME}@1"
    assert found["false_discovery_rate"] == 0.01
    latency = found["latency"]
    assert (latency["operators"], latency["tested"], len(latency["changed"])) == (27, 27, 3)
    assert {cell[1] for change in latency["changed"] for cell in change["cells"]} == {3}
    assert [total["choices"] for total in latency["totals"]] == [None, [0, 0, 0, 0], [3, 3, 3, 3]]
    assert latency["totals"][1]["relative"] == 0
    assert 0 < latency["totals"][0]["relative"] < latency["totals"][2]["relative"] < 0.31
    assert found["provenance"] == [{"key": "preset", "a": "quick", "b": "standard"}]


def test_diff_of_tables_without_uncertainty_holes_or_other_configurations(here: Here, stored: list[Lut]) -> None:  # noqa: F811
    base = replace(stored[0], configuration=Configuration("rpi3b", SPACE.name, threads=4))
    assert base.latency is not None
    unknown = np.full_like(base.latency.se, np.nan)
    replace(base, latency=replace(base.latency, se=unknown)).save(here.folder / "bare.lut")
    with_hole(base).save(here.folder / "holed.lut")
    shown = lut(here, "diff", f"{NAME}@1", "bare.lut")
    assert "have no uncertainty and cannot be tested" in shown
    assert "configuration.threads" in shown
    shown = lut(here, "diff", f"{NAME}@1", "holed.lut", "--picture", "holed.png")
    assert f"only {NAME}@1 holds energy" in shown
    assert "1 cells only in A" in shown
    none = json.loads(lut(here, "diff", f"{NAME}@1", "holed.lut", "--json"))["latency"]["totals"][0]
    assert none["b"] is None


def test_architectures_as_people_and_programs_write_them(tmp_path: Path) -> None:
    assert architectures("k3_e6,0,skip,8", SPACE) == [(3, 0, 8, 8)]
    file = tmp_path / "nets"
    for text in (
        "[0, 1, 2, 3]",
        '{"choices": [0, 1, 2, 3], "latency_s": 1.0}',
        '[{"choices": [0, 1, 2, 3]}]',
        "0 1 2 3",
    ):
        file.write_text(text)
        assert architectures(str(file), SPACE) == [(0, 1, 2, 3)]
    file.write_text("[[0, 1, 2, 3], [1, 1, 1, 1]]")
    assert architectures(str(file), SPACE) == [(0, 1, 2, 3), (1, 1, 1, 1)]
    for text, words in (
        ('{"nets": 1}', "holds no architecture"),
        ("{", "is no JSON"),
        ("0 1 2 3\n0 1", "line 2: .*2 choices for 4 layers"),
        ("[0, 1, 2.5, 3]", "choice 3 is '2.5'"),
    ):
        file.write_text(text)
        with pytest.raises(BadInputError, match=words):
            architectures(str(file), SPACE)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputError, match="cannot be read"):
        architectures(str(file), SPACE)
