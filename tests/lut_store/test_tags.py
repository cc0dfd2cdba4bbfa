"""Tags in every database behind a Store: they move, they remember, and `stable` has to be deserved."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise

import pytest

from lut_store import lint_rows
from lut_store.lint import lint
from lut_store.lut import Lut
from lut_store.schema import lints
from lut_store.store import Store
from protos.errors import AmbiguousError, BadInputError, NotFoundError
from protos.types import Configuration, LutQuery, TagMove
from tests.lut_store.samples import lut_of

VALIDATED = {name: {"corrected": {"mape": 0.01}} for name in ("latency", "energy")}


def fit(seed: int = 0, **changes: object) -> Lut:
    """A LUT that may be `stable`."""
    return lut_of(seed=seed, validation=VALIDATED, flags={}, **changes)


@pytest.fixture
def versions(store: Store) -> list[Lut]:
    return [store.add_lut(fit(seed)) for seed in range(3)]


def move(store: Store, version: int, name: str, **options: object) -> TagMove:
    return store.move_tag(LutQuery("rpi3b", "sample", str(version)), name, moved_by="ada@lab", **options)  # type: ignore[arg-type]


def test_a_tag_moves_and_the_reference_follows(store: Store, versions: list[Lut]) -> None:
    first = move(store, 1, "stable", reason="first that is good")
    assert (first.name, first.version, first.previous_version, first.digest) == ("stable", 1, 0, versions[0].digest)
    assert (first.moved_by, first.reason, first.forced, first.objections) == (
        "ada@lab",
        "first that is good",
        False,
        (),
    )
    assert first.moved_wall_s > 1e9
    for query in (LutQuery("rpi3b", version="stable"), LutQuery("rpi3b", "sample", "stable")):
        assert store.lut(query) == versions[0]
    assert move(store, 3, "stable").previous_version == 1
    assert store.lut(LutQuery("rpi3b", version="stable")) == versions[2]
    assert store.lut(LutQuery("rpi3b", version="1")) == versions[0]  # versions never change


def test_the_history_is_kept_newest_first(store: Store, versions: list[Lut]) -> None:
    for version in (1, 2, 2, 1):
        move(store, version, "paper")
    found = store.tags(LutQuery("rpi3b", version="paper"), history=True)
    assert [(m.version, m.previous_version) for m in found] == [(1, 2), (2, 1), (1, 0)]  # 2 → 2 is no move
    everything = store.tags(LutQuery("rpi3b", "sample"), history=True)
    assert [(m.name, m.version, m.previous_version) for m in everything] == [
        *(("latest", 3, 2), ("latest", 2, 1), ("latest", 1, 0)),
        *(("paper", 1, 2), ("paper", 2, 1), ("paper", 1, 0)),
    ]
    assert [(m.name, m.version) for m in store.tags()] == [("latest", 3), ("paper", 1)]
    assert [m.moved_by for m in store.tags(LutQuery(version="latest"))] == ["edgelut"]
    assert [m.name for m in store.tags(LutQuery("rpi3b", version="3"))] == ["latest"]
    assert store.tags(LutQuery("rpi3b", version="2")) == []
    assert versions[0].digest == found[0].digest


def test_lists_say_which_tags_point_where(store: Store, versions: list[Lut]) -> None:
    move(store, 1, "stable")
    move(store, 1, "paper")
    assert [(s.version, s.tags) for s in store.luts()] == [(3, ("latest",)), (2, ()), (1, ("paper", "stable"))]
    assert [s.version for s in store.luts(LutQuery("rpi3b", version="stable"))] == [1]
    assert [s.tags for s in store.luts(LutQuery(digest=versions[2].digest))] == [("latest",)]
    assert store.luts(LutQuery("rpi3b", version="nothing")) == []


def test_each_configuration_has_tags_of_its_own(store: Store) -> None:
    one = store.add_lut(fit(0))
    four = store.add_lut(fit(1, configuration=Configuration("rpi3b", "sample", threads=4)))
    store.move_tag(LutQuery(digest=four.digest), "stable", moved_by="ada")
    assert store.lut(LutQuery("rpi3b", version="stable")) == four  # the only configuration that has it
    store.move_tag(LutQuery("rpi3b", threads=1), "stable", moved_by="ada")
    with pytest.raises(AmbiguousError, match="rpi3b@stable fits 2 configurations; add --threads"):
        store.lut(LutQuery("rpi3b", version="stable"))
    assert store.lut(LutQuery("rpi3b", version="stable", threads=1)) == one
    assert [(m.threads, m.name, m.version) for m in store.tags(LutQuery("rpi3b", threads=4))] == [
        (4, "latest", 2),
        (4, "stable", 2),
    ]


def test_what_is_not_there_says_what_is(store: Store, versions: list[Lut]) -> None:
    move(store, 2, "stable")
    with pytest.raises(NotFoundError) as refusal:
        store.lut(LutQuery("rpi3b", "sample", "stabel"))
    there = "There is: rpi3b/sample@3 (latest), rpi3b/sample@2 (stable), rpi3b/sample@1"
    assert str(refusal.value) == f"rpi3b/sample has no tag 'stabel'; did you mean 'stable'? {there}"
    with pytest.raises(NotFoundError, match=r"rpi3b/sample has no version 9\. There is: rpi3b/sample@3"):
        store.lut(LutQuery("rpi3b", "sample", "9"))
    with pytest.raises(NotFoundError, match="rpi3b has no tag 'mine'"):
        store.tags(LutQuery("rpi3b", version="mine"))
    with pytest.raises(NotFoundError, match=r"there is no LUT rpi4@stable.*There is: rpi3b/sample@3"):
        store.lut(LutQuery("rpi4", version="stable"))
    assert store.tags(LutQuery()) != []
    assert len(versions) == 3


@pytest.mark.parametrize("name", ["latest", "", "a@b", "a b", "3", "-x", "ü", "x" * 65, "a/b"])
def test_names_that_no_tag_may_have(store: Store, name: str) -> None:
    store.add_lut(fit())
    with pytest.raises(BadInputError, match=r"moves by itself|is no name for a tag; write 1 to 64 letters"):
        store.move_tag(LutQuery("rpi3b"), name, moved_by="ada")
    assert [m.name for m in store.tags()] == ["latest"]


# ---- stable ----


def test_stable_is_refused_with_every_reason_and_forcing_is_recorded(store: Store) -> None:
    emulated = Configuration("rpi3b", "sample", emulation="device")
    store.add_lut(lut_of(configuration=emulated, validation={}))
    with pytest.raises(BadInputError) as refusal:
        move(store, 1, "stable")
    for words in ("rpi3b/sample@1 cannot be stable", "emulated device", "latency was never validated", "or force it"):
        assert words in str(refusal.value)
    assert [m.name for m in store.tags()] == ["latest"]
    move(store, 1, "mine")  # other names are free
    forced = move(store, 1, "stable", force=True, reason="a demonstration")
    assert (forced.forced, forced.reason) == (True, "a demonstration")
    assert forced.objections[0] == "its data are from an emulated device, not from hardware"
    (kept,) = store.tags(LutQuery("rpi3b", version="stable"), history=True)
    assert kept == forced


def test_the_policy_may_be_stricter(store: Store, versions: list[Lut]) -> None:
    with pytest.raises(BadInputError, match=r"latency misses measured networks by 1\.0% \(MAPE\), more than 0\.5%"):
        move(store, 1, "stable", max_mape=0.005)
    assert not move(store, 1, "stable", force=True).forced  # nothing spoke against it
    for nonsense in (-0.1, float("nan")):
        with pytest.raises(BadInputError, match="must be zero or more"):
            move(store, 1, "stable", max_mape=nonsense)
    assert versions[0].version == 1


def test_moves_at_the_same_moment_follow_each_other(store: Store, versions: list[Lut]) -> None:
    threads = [threading.Thread(target=move, args=(store, 1 + n % 3, "busy")) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = store.tags(LutQuery("rpi3b", version="busy"), history=True)[::-1]
    assert history[0].previous_version == 0
    assert all(b.previous_version == a.version for a, b in pairwise(history))
    assert len(versions) == 3


# ---- findings ----


def test_findings_are_stored_with_every_version(store: Store) -> None:
    lut = store.add_lut(lut_of(provenance={"disturbed_share": 0.9, "method": "paths"}))
    digest, findings = store.findings(LutQuery("rpi3b"))
    assert digest == lut.digest
    assert findings == lint(lut)
    assert any("90% of the executions" in finding.sentence for finding in findings)
    with store._database.reading() as connection:
        assert lint_rows.of_version(connection, digest) == findings
        assert lint_rows.of_version(connection, "0" * 64) is None
    with pytest.raises(NotFoundError, match="no version 7"):
        store.findings(LutQuery("rpi3b", version="7"))


def test_a_version_of_an_older_edgelut_is_looked_at_when_asked(store: Store) -> None:
    lut = store.add_lut(lut_of(provenance={"disturbed_share": 0.9, "method": "paths"}))
    with store._database.writing() as connection:
        connection.execute(lints.delete())
    assert store.findings(LutQuery(digest=lut.digest)) == (lut.digest, lint(lut))


def test_the_same_content_again_changes_no_finding(store: Store) -> None:
    first = store.add_lut(lut_of())
    again = store.add_lut(replace(lut_of(), provenance={**lut_of().provenance, "disturbed_share": 0.9}))
    assert again == first
    assert store.findings(LutQuery("rpi3b"))[1] == lint(first)
