"""`coordinator lut build`, `lut log` and `lut show --by-device`, with a coordinator inside the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lut_store.paths import default_database_url
from lut_store.store import Store
from tests.coordinator.luts import provenance
from tests.coordinator.recorded import Board, record, spec_of
from tests.coordinator.test_cli import Here
from tests.e2e.processes import World
from tests.lut_store.samples import lut_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """A folder whose embedded database holds two runs, the second of three boards."""
    own = Here(World(tmp_path), monkeypatch, capsys)
    store = Store(default_database_url())
    record(store, "one")
    record(store, "two", [Board("pi-01"), Board("pi-02", 1.004), Board("pi-03", 1.15)], spec=spec_of(1), seed=1)
    record(store, "going", state="latency", energy=False)
    store.close()
    return own


def test_a_build_is_a_version_once_and_the_log_shows_its_descent(here: Here) -> None:
    build = ("coordinator", "lut", "build", "--run", "one")
    first = json.loads(here.run(*build, "--json").stdout)
    assert (first["reference"], first["version"], first["existed"]) == ("rpi3b/test@1", 1, False)
    said = here.run(*build).stdout
    assert "rpi3b/test@1 was already there: the same evidence and settings, from run one, in " in said
    options = ("--latency", "p10", "--energy", "peak", "--energy-form", "hanna", "--no-correction")
    said = here.run(*build, *options).stdout
    assert "rpi3b/test@2 is new, from run one, in " in said
    assert "coordinator lut log rpi3b/test@2" in said
    both = here.run(*build, "--run", "two", "--exclude-device", "pi-03").stdout
    assert "rpi3b/test@3 is new, from runs one, two, in " in both
    assert "left out as asked: pi-03" in both
    log = json.loads(here.run("coordinator", "lut", "log", "rpi3b/test@3", "--json").stdout)
    assert [entry["reference"] for entry in log] == ["rpi3b/test@3", "rpi3b/test@1"]
    assert [[parent["reference"] for parent in entry["parents"]] for entry in log] == [
        ["rpi3b/test@1"],
        [],
    ]
    assert log[0]["runs"] == ["one", "two"]
    shown = here.run("coordinator", "lut", "log", "rpi3b/test@3").stdout
    assert "rpi3b/test@3  20" in shown
    assert "    from       rpi3b/test@1\n" in shown
    assert "    left out   pi-03\n" in shown
    low = json.loads(here.run("coordinator", "lut", "log", "rpi3b/test@2", "--json").stdout)
    assert low[0]["settings"] == {"latency": "p10", "energy": "peak", "energy_form": "hanna", "correction": False}
    shown = here.run("coordinator", "lut", "log", "rpi3b/test@2").stdout
    assert "p10 latency; peak energy as 5.1 V × current × time; not corrected" in shown


def test_boards_side_by_side(here: Here) -> None:
    here.run("coordinator", "lut", "build", "--run", "two")
    said = here.run("coordinator", "lut", "show", "rpi3b", "--by-device").stdout
    assert [line.split()[0] for line in said.splitlines() if "outside the others" in line] == ["pi-03"]
    assert "between boards: standard deviation" in said
    record_ = json.loads(here.run("coordinator", "lut", "show", "rpi3b", "--by-device", "--json").stdout)
    assert [device["name"] for device in record_["devices"]] == ["pi-01", "pi-02", "pi-03"]
    assert [device["latency_outside"] for device in record_["devices"]] == [False, False, True]
    assert record_["between"]["latency"]["outside"] == ["pi-03"]
    row = record_["operators"][0]
    assert set(row["latency_s"]) == {"pi-01", "pi-02", "pi-03"}
    assert set(row) == {
        *("layer", "op", "operator_id", "label", "latency_s", "latency_se_s", "energy_j", "energy_se_j"),
    }


def test_one_board_alone_is_shown_too(here: Here) -> None:
    here.run("coordinator", "lut", "build", "--run", "one")
    found = json.loads(here.run("coordinator", "lut", "show", "rpi3b", "--by-device", "--json").stdout)
    assert [device["name"] for device in found["devices"]] == ["pi-01"]
    assert found["between"]["latency"]["between_rel_sd"] is None
    assert len(found["operators"]) == 12
    assert "pi-01" in here.run("coordinator", "lut", "show", "rpi3b", "--by-device").stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--run", "none"), "there is no run none; `coordinator runs list` shows those that there are"),
        (("--run", "going"), "run going has not ended (latency): its evidence still grows"),
        (("--run", "one", "--latency", "p50"), "unknown --latency 'p50' (known: median, p10, mean)"),
        (("--run", "one", "--allow-different", "space"), "--allow-different space: one table holds one space"),
        (("--run", "one", "--exclude-device", "pi-09"), "unknown device to leave out 'pi-09' (known: pi-01)"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(here: Here, options: tuple[str, ...], says: str) -> None:
    said = here.run("coordinator", "lut", "build", *options, status=2)
    assert says in said.stderr
    assert said.stderr.startswith("coordinator: ")
    assert said.stdout == ""


def test_the_log_of_a_version_without_its_ancestors_names_them(here: Here) -> None:
    store = Store(default_database_url())
    gone = {"reference": "rpi3b/test@1", "digest": "0" * 64}
    store.add_lut(lut_of(provenance={**provenance(), "parents": [gone, 5], "follows": "nonsense", "settings": {}}))
    store.close()
    (entry,) = json.loads(here.run("coordinator", "lut", "log", "rpi3b/sample", "--json").stdout)
    assert (entry["parents"], entry["follows"], entry["devices"]) == ([gone], None, ["pi-01"])
    assert "    from       rpi3b/test@1\n" in here.run("coordinator", "lut", "log", "rpi3b/sample").stdout
