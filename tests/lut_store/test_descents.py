"""Which versions came from which runs, over every backend."""

from __future__ import annotations

from lut_store.store import Store
from tests.lut_store.samples import lut_of, run_of


def test_versions_are_found_by_any_of_their_runs_with_all_of_them(store: Store) -> None:
    for run in ("one", "two", "three"):
        store.add_run(run, run_of())
    first = store.add_lut(lut_of(seed=1), ["one"])
    both = store.add_lut(lut_of(seed=2), ["one", "two"])
    store.add_lut(lut_of(seed=3), ["three"])
    store.add_lut(lut_of(seed=4))
    found = store.descents(["one"])
    assert [(d.digest, d.reference, d.run_ids) for d in found] == [
        (first.digest, first.reference, {"one"}),
        (both.digest, both.reference, {"one", "two"}),
    ]
    assert [d.digest for d in store.descents(["two", "three"])] == [both.digest, store.luts()[1].digest]
    assert store.descents(["nothing"]) == store.descents([]) == []
