"""What every database behind a Store must do (fixture `store`, conftest.py), read directly and over gRPC (`reader`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lut_store.records import Outcome
from lut_store.store import Store
from protos import common_pb2
from protos.convert import to_message
from protos.errors import AmbiguousError, BadInputError, ConflictError, NotFoundError, StaleLeaseError
from protos.types import Configuration, Device, HostFacts, Lease, LutQuery, MeterInfo, Network, RunSpec
from tests.lut_store.conftest import ClientReader
from tests.lut_store.samples import lut_of, measurement_of, round_of, run_of, space_of, trace_of

FAR = 1e12
Reader = Store | ClientReader


@pytest.fixture
def spec() -> RunSpec:
    return run_of()


@pytest.fixture
def lease(store: Store, spec: RunSpec) -> Lease:
    """Run "run", one task, leased to pi-01."""
    store.add_run("run", spec)
    store.add_task("run", "latency", 5, 0)
    leased = store.lease_task("run", "pi-01", FAR)
    assert leased is not None
    return leased


# ---- runs ----


def test_a_run_is_added_once(store: Store, spec: RunSpec) -> None:
    assert store.add_run("a", spec)
    assert not store.add_run("a", spec)
    with pytest.raises(ConflictError, match="run a is already there and asks for something else"):
        store.add_run("a", replace(spec, seed=9))
    for name in ("", "x" * 65):
        with pytest.raises(BadInputError, match="1 to 64 characters"):
            store.add_run(name, spec)


def test_a_run_comes_back_as_it_was(store: Store, spec: RunSpec) -> None:
    large = replace(spec, seed=2**64 - 1, meter="um25c:/dev/rfcomm0", networks=(Network("fit", (0, 0, 0, 0)),))
    store.add_run("a", large)
    record = store.run("a")
    assert record.spec == large
    assert (record.run_id, record.state, record.reason, record.lut_digest) == ("a", "queued", "", "")
    assert record.created_wall_s > 1e9
    with pytest.raises(NotFoundError, match="there is no run b"):
        store.run("b")


def test_runs_are_listed_newest_first(store: Store, reader: Reader, spec: RunSpec) -> None:
    assert reader.runs() == []
    for name in "abc":
        store.add_run(name, spec)
    assert [run.run_id for run in reader.runs()] == ["c", "b", "a"]
    assert [run.run_id for run in reader.runs(limit=2)] == ["c", "b"]


def test_a_run_changes_its_state(store: Store, reader: Reader, spec: RunSpec) -> None:
    store.add_run("a", spec)
    store.set_run("a", "failed", "no board")
    assert (reader.run("a").state, reader.run("a").reason) == ("failed", "no board")
    store.set_run("a", "done", lut_digest="d" * 64, lut_reference="rpi3b/sample@1")
    run = reader.run("a")
    assert (run.state, run.reason, run.lut_digest, run.lut_reference) == ("done", "", "d" * 64, "rpi3b/sample@1")
    with pytest.raises(NotFoundError, match="no run z"):
        store.set_run("z", "done")
    with pytest.raises(BadInputError, match="run state 'asleep'"):
        store.set_run("a", "asleep")


# ---- tasks and leases ----


def test_tasks_are_leased_oldest_first(store: Store, spec: RunSpec) -> None:
    store.add_run("a", spec)
    store.add_run("b", spec)
    first = store.add_task("a", "latency", 2**64 - 1, 0)
    second = store.add_task("a", "energy", 7, 20)
    store.add_task("b", "latency", 1, 0)
    one, two = store.lease_task("a", "pi-01", FAR), store.lease_task("a", "pi-02", FAR)
    assert one == Lease(first, 1, "a", "latency", 2**64 - 1, 0, spec)
    assert two == Lease(second, 1, "a", "energy", 7, 20, spec)
    assert store.lease_task("a", "pi-03", FAR) is None
    assert store.lease_task("nowhere", "pi-03", FAR) is None
    states = [(task.task_id, task.kind, task.state, task.device, task.fence) for task in store.tasks("a")]
    assert states == [(first, "latency", "leased", "pi-01", 1), (second, "energy", "leased", "pi-02", 1)]
    assert store.tasks("nowhere") == []


def test_a_task_needs_a_run_and_a_kind(store: Store, spec: RunSpec) -> None:
    with pytest.raises(NotFoundError, match="no run a"):
        store.add_task("a", "latency", 0, 0)
    store.add_run("a", spec)
    with pytest.raises(BadInputError, match="task kind 'power'"):
        store.add_task("a", "power", 0, 0)


def test_a_task_may_be_added_and_leased_at_once(store: Store, spec: RunSpec, lease: Lease) -> None:
    new = store.lease_new_task("run", "energy", 2**64 - 1, 3, "pi-02", FAR)
    assert (new.run_id, new.kind, new.seed, new.first_round, new.fence) == ("run", "energy", 2**64 - 1, 3, 1)
    assert new.run == spec
    assert [(task.task_id, task.state, task.device) for task in store.tasks("run")] == [
        (lease.task_id, "leased", "pi-01"),
        (new.task_id, "leased", "pi-02"),
    ]
    with pytest.raises(NotFoundError, match="there is no run elsewhere"):
        store.lease_new_task("elsewhere", "energy", 0, 0, "pi-02", FAR)


def test_a_finished_task_is_done_and_saying_it_again_is_harmless(store: Store, lease: Lease) -> None:
    store.end_task(lease.task_id, lease.fence)
    store.end_task(lease.task_id, lease.fence)
    (task,) = store.tasks("run")
    assert (task.state, task.attempts, task.reason) == ("done", 0, "")
    assert store.lease_task("run", "pi-02", FAR) is None
    with pytest.raises(StaleLeaseError, match="the task is done"):
        store.renew_lease(lease.task_id, lease.fence, FAR)
    with pytest.raises(StaleLeaseError):
        store.end_task(lease.task_id, lease.fence, "broken")


def test_a_failed_task_is_pending_again_and_the_next_lease_has_a_higher_fence(store: Store, lease: Lease) -> None:
    for _ in range(2):
        store.end_task(lease.task_id, lease.fence, "worker died")
    (task,) = store.tasks("run")
    assert (task.state, task.attempts, task.reason) == ("pending", 1, "worker died")
    again = store.lease_task("run", "pi-02", FAR)
    assert again == replace(lease, fence=2)
    with pytest.raises(StaleLeaseError, match=r"lease 1 of task .* has ended: lease 2 is pi-02's"):
        store.renew_lease(lease.task_id, 1, FAR)
    with pytest.raises(StaleLeaseError):
        store.end_task(lease.task_id, 1, "worker died")
    store.end_task(lease.task_id, 2, "worker died")
    assert store.tasks("run")[0].attempts == 2


def test_leases_run_out_unless_they_are_renewed(store: Store, spec: RunSpec) -> None:
    store.add_run("a", spec)
    for seed in range(3):
        store.add_task("a", "latency", seed, 0)
    leases = [store.lease_task("a", f"pi-0{index}", 100.0) for index in range(3)]
    assert store.expire_leases(99.0) == []
    first, second, third = (lease.task_id for lease in leases if lease)
    store.renew_lease(second, 1, 200.0)
    assert store.expire_leases(150.0) == [(first, "pi-00"), (third, "pi-02")]
    assert [task.state for task in store.tasks("a")] == ["pending", "leased", "pending"]
    assert [task.attempts for task in store.tasks("a")] == [0, 0, 0]
    with pytest.raises(StaleLeaseError, match="the task is pending"):
        store.renew_lease(first, 1, 200.0)
    assert store.expire_leases(150.0) == []


def test_a_board_may_ask_for_tasks_of_one_kind(store: Store, spec: RunSpec) -> None:
    store.add_run("a", spec)
    store.add_task("a", "latency", 0, 0)
    energy = store.add_task("a", "energy", 1, 0)
    lease = store.lease_task("a", "pi-01", FAR, "energy")
    assert lease is not None
    assert lease.task_id == energy
    assert store.lease_task("a", "pi-02", FAR, "energy") is None
    assert store.lease_task("a", "pi-02", FAR) is not None


def test_a_task_that_is_given_back_counts_no_attempt(store: Store, lease: Lease) -> None:
    store.release_task(lease.task_id, lease.fence)
    (task,) = store.tasks("run")
    assert (task.state, task.attempts) == ("pending", 0)
    with pytest.raises(StaleLeaseError):
        store.release_task(lease.task_id, lease.fence)
    assert store.lease_task("run", "pi-02", FAR) == replace(lease, fence=2)


def test_failures_can_be_forgotten(store: Store, lease: Lease) -> None:
    store.end_task(lease.task_id, lease.fence, "worker died")
    store.reset_attempts("run")
    (task,) = store.tasks("run")
    assert (task.state, task.attempts) == ("pending", 0)


def test_runs_that_have_not_ended(store: Store, spec: RunSpec) -> None:
    for name in "abcd":
        store.add_run(name, spec)
    for name, state in zip("abc", ("done", "failed", "energy"), strict=True):
        store.set_run(name, state)
    assert store.unfinished_runs() == ["c", "d"]


def test_a_task_that_is_not_there(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no task x"):
        store.renew_lease("x", 1, FAR)
    with pytest.raises(NotFoundError, match="no task x"):
        store.end_task("x", 1)


def test_threads_never_get_the_same_lease(store: Store, spec: RunSpec) -> None:
    store.add_run("a", spec)
    for seed in range(12):
        store.add_task("a", "latency", seed, 0)
    taken: list[Lease] = []

    def work(device: str) -> None:
        while (lease := store.lease_task("a", device, FAR)) is not None:
            taken.append(lease)

    threads = [threading.Thread(target=work, args=(f"pi-{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lease.seed for lease in taken) == list(range(12))


# ---- measurements ----


def test_measurements_are_stored_once_and_come_back_as_they_were(store: Store, lease: Lease) -> None:
    latency = measurement_of(lease.task_id, round_of(lease.run), flags=("hot", "throttled"))
    power = measurement_of(lease.task_id, trace_of(), sequence=1)
    offers = [latency, to_message(power)]
    assert store.add_measurements("pi-01", offers) == [Outcome(m.id, "stored") for m in (latency, power)]
    again = [to_message(latency).SerializeToString(), power]
    assert store.add_measurements("pi-01", again) == [Outcome(m.id, "duplicate") for m in (latency, power)]
    (found,) = store.measurements("run", "latency")
    assert (found.device, found.measurement) == ("pi-01", latency)
    assert found.received_wall_s > 1e9
    assert [each.measurement for each in store.measurements("run", "power")] == [power]
    assert store.add_measurements("pi-01", []) == []


def test_evidence_comes_back_by_task_and_sequence_however_it_arrived(store: Store, lease: Lease) -> None:
    store.add_task("run", "latency", 6, 10)
    other = store.lease_task("run", "pi-02", FAR)
    assert other is not None
    rounds = [round_of(lease.run, seed=index) for index in range(3)]
    store.add_measurements("pi-02", [measurement_of(other.task_id, rounds[0], sequence=0, name="o0")])
    for index in (2, 0, 1):
        store.add_measurements(
            "pi-01", [measurement_of(lease.task_id, rounds[index], sequence=index, name=f"l{index}")]
        )
    assert [each.measurement.id for each in store.measurements("run", "latency")] == ["l0", "l1", "l2", "o0"]
    assert [message.id for message in store.messages("run", "latency")] == ["l0", "l1", "l2", "o0"]
    with pytest.raises(BadInputError, match="measurement kind 'energy'"):
        list(store.measurements("run", "energy"))
    assert list(store.measurements("nowhere", "latency")) == []


def test_one_batch_may_hold_what_several_boards_sent(store: Store, lease: Lease) -> None:
    store.add_task("run", "latency", 6, 10)
    other = store.lease_task("run", "pi-02", FAR)
    assert other is not None
    mine, yours = (measurement_of(each.task_id, round_of(each.run)) for each in (lease, other))
    outcomes = store.add_batch([("pi-02", yours), ("pi-02", mine), ("pi-01", mine), ("pi-01", mine)])
    assert [outcome.status for outcome in outcomes] == ["stored", "refused", "stored", "duplicate"]
    assert {each.device for each in store.measurements("run", "latency")} == {"pi-01", "pi-02"}


def test_a_batch_larger_than_the_parameters_of_a_statement(store: Store, lease: Lease) -> None:
    message = to_message(measurement_of(lease.task_id, round_of(lease.run, paths=1)))
    offers = []
    for index in range(2000):
        message.id, message.sequence = f"m{index}", index
        offers.append(message.SerializeToString())
    assert {outcome.status for outcome in store.add_measurements("pi-01", offers)} == {"stored"}
    assert {outcome.status for outcome in store.add_measurements("pi-01", offers)} == {"duplicate"}
    assert sum(1 for _ in store.measurements("run", "latency")) == 2000


def refusal(store: Store, device: str, offer: object) -> tuple[str, str]:
    (outcome,) = store.add_measurements(device, [offer])  # type: ignore[list-item]
    assert outcome.status == "refused"
    return outcome.code, outcome.message


def test_what_is_refused_says_why_and_the_rest_of_the_batch_is_stored(store: Store, lease: Lease) -> None:
    good = [measurement_of(lease.task_id, round_of(lease.run), sequence=index) for index in range(2)]
    bad = to_message(measurement_of(lease.task_id, round_of(lease.run)))
    bad.latency.networks.network[0] = 99
    outcomes = store.add_measurements("pi-01", [good[0], bad, b"\xff\xff", measurement_of("x", trace_of()), good[1]])
    assert [(outcome.status, outcome.code) for outcome in outcomes] == [
        ("stored", ""),
        ("refused", "INVALID_ARGUMENT"),
        ("refused", "INVALID_ARGUMENT"),
        ("refused", "NOT_FOUND"),
        ("stored", ""),
    ]
    assert outcomes[1].message == "networks names network 99; the run has 6 of them"
    assert outcomes[2].message == "these bytes are not a measurement"
    assert outcomes[3].message == "there is no task 'x'"
    assert sum(1 for _ in store.measurements("run", "latency")) == 2


def test_a_lease_of_another_board_or_of_yesterday(store: Store, lease: Lease) -> None:
    mine = measurement_of(lease.task_id, round_of(lease.run))
    code, words = refusal(store, "pi-02", mine)
    assert code == "PERMISSION_DENIED"
    assert words == f"task {lease.task_id} is leased to pi-01, not to pi-02"
    store.expire_leases(2 * FAR)
    assert store.add_measurements("pi-01", [mine])[0].status == "stored"  # nobody else has it yet
    store.lease_task("run", "pi-02", FAR)
    late = measurement_of(lease.task_id, round_of(lease.run), sequence=1)
    code, words = refusal(store, "pi-01", late)
    assert code == "PERMISSION_DENIED"
    assert words == f"lease 1 of task {lease.task_id} has ended; the newest is lease 2"
    assert store.add_measurements("pi-01", [mine])[0].status == "duplicate"  # it was acknowledged, and still is


def test_a_measurement_after_the_end_of_its_task_is_still_evidence(store: Store, lease: Lease) -> None:
    store.end_task(lease.task_id, lease.fence)
    assert store.add_measurements("pi-01", [measurement_of(lease.task_id, trace_of())])[0].status == "stored"


def test_a_task_that_nobody_has_leased(store: Store, spec: RunSpec) -> None:
    store.add_run("run", spec)
    task_id = store.add_task("run", "latency", 0, 0)
    code, words = refusal(store, "", measurement_of(task_id, trace_of(), fence=1))
    assert (code, words[:7]) == ("PERMISSION_DENIED", "lease 1")


def test_another_measurement_under_a_stored_id_is_refused(store: Store, lease: Lease) -> None:
    first = measurement_of(lease.task_id, round_of(lease.run))
    other = replace(first, sequence=5)
    outcomes = store.add_measurements("pi-01", [first, other])
    assert [outcome.status for outcome in outcomes] == ["stored", "refused"]
    assert refusal(store, "pi-01", other)[0] == "ALREADY_EXISTS"


def test_two_stores_over_one_database_see_each_other(store: Store, database_url: str, lease: Lease) -> None:
    other = Store(database_url)
    measurement = measurement_of(lease.task_id, round_of(lease.run))
    assert other.add_measurements("pi-01", [measurement])[0].status == "stored"
    assert store.add_measurements("pi-01", [measurement])[0].status == "duplicate"
    other.close()


# ---- devices ----


def test_devices_are_remembered_by_name(store: Store) -> None:
    assert store.devices() == []
    pi = Device("pi-02", "rpi3b", state="idle", facts=HostFacts(model="Pi 3B"), meter=MeterInfo("um25c"))
    store.upsert_device(pi)
    store.upsert_device(Device("pi-01", "rpi4"))
    assert store.devices() == [Device("pi-01", "rpi4"), pi]
    store.upsert_device(replace(pi, state="gone", last_seen_s=5.0))
    assert store.devices()[1] == replace(pi, state="gone", last_seen_s=5.0)


# ---- LUT versions ----


def configured(**changes: object) -> Configuration:
    return replace(Configuration("rpi3b", "sample"), **changes)


def test_versions_count_up_for_each_device_type_and_space(store: Store, spec: RunSpec) -> None:
    store.add_run("run", spec)
    first = store.add_lut(lut_of(), ["run"])
    second = store.add_lut(lut_of(seed=1), ["run"])
    steady = store.add_lut(lut_of(seed=2, configuration=configured(context="steady")))
    elsewhere = store.add_lut(lut_of(seed=3, configuration=configured(device_type="rpi4")))
    other_space = store.add_lut(lut_of(space_of(name="other"), seed=4))
    assert [lut.version for lut in (first, second, steady, elsewhere, other_space)] == [1, 2, 3, 1, 1]
    assert first.created_wall_s > 1e9
    assert first == replace(lut_of(), version=1, created_wall_s=first.created_wall_s)


def test_the_same_content_is_the_same_version(store: Store) -> None:
    first = store.add_lut(lut_of())
    again = store.add_lut(replace(lut_of(), provenance={**lut_of().provenance, "git": "other"}))
    assert again == first
    assert len(store.luts()) == 1
    assert store.add_lut(lut_of(seed=1)).version == 2  # no number was lost


def test_a_lut_of_a_run_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no run x"):
        store.add_lut(lut_of(), ["x"])
    assert store.luts() == []
    assert store.add_lut(lut_of()).version == 1


def test_a_lut_is_found_by_reference_number_and_digest(store: Store, reader: Reader) -> None:
    luts = [store.add_lut(lut_of(seed=seed)) for seed in range(3)]
    for query in (LutQuery("rpi3b"), LutQuery("rpi3b", "sample"), LutQuery(version="latest"), LutQuery(threads=1)):
        assert reader.lut(query) == luts[2]
    assert reader.lut(LutQuery("rpi3b", version="2")) == luts[1]
    assert reader.lut(LutQuery(digest=luts[0].digest)) == reader.lut_by_digest(luts[0].digest) == luts[0]
    with pytest.raises(NotFoundError, match=f"digest {'0' * 16}"):
        reader.lut_by_digest("0" * 64)
    with pytest.raises(NotFoundError, match="has no tag 'newest'"):
        reader.lut(LutQuery("rpi3b", version="newest"))
    with pytest.raises(BadInputError, match=r"version '1\.5' must be a number"):
        reader.lut(LutQuery("rpi3b", version="1.5"))


def test_a_document_is_left_out_when_the_caller_knows_it(store: Store) -> None:
    lut = store.add_lut(lut_of())
    digest, document = store.lut_document(LutQuery("rpi3b"))
    assert digest == lut.digest
    assert len(document) > 1000
    assert store.lut_document(LutQuery("rpi3b"), known_digest="0" * 64) == (digest, document)
    assert store.lut_document(LutQuery("rpi3b"), known_digest=digest) == (digest, b"")


def test_a_reference_that_fits_several_configurations_asks_for_the_option(store: Store, reader: Reader) -> None:
    one = store.add_lut(lut_of(seed=0))
    two = store.add_lut(lut_of(seed=1, configuration=configured(threads=2)))
    with pytest.raises(AmbiguousError) as refusal:
        reader.lut(LutQuery("rpi3b"))
    assert str(refusal.value) == (
        "rpi3b fits 2 configurations; add --threads. "
        "There is: rpi3b/sample@2 (--threads 2), rpi3b/sample@1 (--threads 1)"
    )
    assert reader.lut(LutQuery("rpi3b", threads=1)) == one
    assert reader.lut(LutQuery("rpi3b", threads=2)) == two
    assert reader.lut(LutQuery("rpi3b", version="1")) == one  # a number is one LUT
    store.add_lut(lut_of(seed=2, configuration=configured(threads=2, context="steady", emulation="meter")))
    with pytest.raises(
        AmbiguousError, match=r"add --emulation and --context\. There is: rpi3b/sample@3 \(--emulation m"
    ):
        reader.lut(LutQuery("rpi3b", threads=2))


def test_a_reference_that_fits_several_spaces_or_types_says_so(store: Store, reader: Reader) -> None:
    store.add_lut(lut_of())
    store.add_lut(lut_of(space_of(name="other"), seed=1))
    with pytest.raises(AmbiguousError, match=r"add the space\. There is: rpi3b/other@1, rpi3b/sample@1"):
        reader.lut(LutQuery("rpi3b"))
    store.add_lut(lut_of(seed=2, configuration=configured(device_type="rpi4")))
    with pytest.raises(AmbiguousError, match="add the device type"):
        reader.lut(LutQuery(space="sample"))


def test_a_reference_that_fits_nothing_says_what_there_is(store: Store, reader: Reader) -> None:
    with pytest.raises(NotFoundError, match="there is no LUT rpi3b, nor any other yet; `coordinator profile`"):
        reader.lut(LutQuery("rpi3b"))
    store.add_lut(lut_of())
    store.add_lut(lut_of(seed=1, configuration=configured(threads=2)))
    with pytest.raises(NotFoundError) as refusal:
        reader.lut(LutQuery("rpi3a", "sampel"))
    assert str(refusal.value) == (
        "there is no LUT rpi3a/sampel; did you mean 'rpi3b' 'sample'? "
        "There is: rpi3b/sample@2 (cold, 2 threads), rpi3b/sample@1 (cold, 1 thread)"
    )
    for query in (LutQuery("rpi3b", version="9"), LutQuery("rpi3b", threads=4), LutQuery("rpi3b", context="steady")):
        with pytest.raises(NotFoundError, match="There is: rpi3b/sample@2"):
            reader.lut(query)


def test_summaries(store: Store, reader: Reader, spec: RunSpec) -> None:
    store.add_run("run", spec)
    store.add_lut(lut_of(), ["run"])
    store.add_lut(lut_of(seed=1, validation={}, provenance={"method": "isolated"}))
    store.add_lut(lut_of(seed=2, configuration=configured(device_type="a4", threads=2)))
    assert [(each.device_type, each.version) for each in reader.luts()] == [("a4", 1), ("rpi3b", 2), ("rpi3b", 1)]
    imported, first = reader.luts(LutQuery("rpi3b"))
    assert (first.run_id, first.method, first.latency_mape, first.energy_mape) == ("run", "paths", 0.007, None)
    assert (imported.run_id, imported.method, imported.latency_mape) == ("", "isolated", None)
    assert [each.version for each in reader.luts(LutQuery("rpi3b", version="latest"))] == [2]
    assert [each.version for each in reader.luts(LutQuery("rpi3b", version="1"))] == [1]
    assert reader.luts(LutQuery("rpi5")) == []
    assert reader.luts(LutQuery(digest=first.digest)) == [first]


def test_threads_that_build_at_once_get_numbers_of_their_own(store: Store) -> None:
    versions: list[int] = []
    threads = [
        threading.Thread(target=lambda seed=seed: versions.append(store.add_lut(lut_of(seed=seed % 6)).version))
        for seed in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == sorted([1, 2, 3, 4, 5, 6] * 2)


def test_a_stored_lut_predicts_the_same(store: Store, database_url: str) -> None:
    lut = lut_of()
    store.add_lut(lut)
    again = Store(database_url)
    choices = np.array([[0, 1, 2, 3], [7, 6, 8, 8]])
    np.testing.assert_array_equal(again.lut(LutQuery("rpi3b")).predict(choices), lut.predict(choices))
    again.close()


# ---- refused as impossible: every rule once, through the store ----

Edit = Callable[[common_pb2.Measurement], object]
IMPOSSIBLE: list[tuple[str, Edit, str]] = [
    (
        "latency",
        lambda m: m.latency.paths.choices.__setitem__(0, 9),
        "path timings: space sample, layer 0: choice 9 is",
    ),
    ("latency", lambda m: m.latency.paths.choices.__setitem__(0, 8), "layer 0: skip is not allowed"),
    ("latency", lambda m: m.latency.paths.choices.append(0), "17 choices for 4 paths of 4 layers"),
    ("latency", lambda m: m.latency.paths.block_ns.pop(), "27 times for 4 rows of 7 slots"),
    ("latency", lambda m: m.latency.paths.block_ns.__setitem__(3, 1 << 50), f"block_ns holds {1 << 50} ns"),
    ("latency", lambda m: m.latency.paths.total_ns.__setitem__(3, 0), "total_ns holds 0 ns"),
    ("latency", lambda m: setattr(m.latency.paths, "calls", 0), "calls must be at least 1"),
    ("latency", lambda m: setattr(m.latency.paths, "calls", 3), "does not hold whole paths"),
    ("latency", lambda m: setattr(m.latency.networks, "calls", 2), "6 times for 6 executions × 2 calls"),
    ("latency", lambda m: m.latency.networks.network.__setitem__(0, 6), "names network 6; the run has 6"),
    ("latency", lambda m: m.latency.operators.item.append(0), "0 times for 1 executions × 0 calls"),
    ("latency", lambda m: m.latency.order.__setitem__(0, m.latency.order[1]), "order does not name every execution"),
    ("latency", lambda m: m.latency.order.__setitem__(0, 10), "order does not name every execution"),
    ("latency", lambda m: m.latency.order.pop(), "order does not name every execution"),
    ("latency", lambda m: m.latency.probe_ns.pop(), "probe_ns does not frame"),
    ("latency", lambda m: m.latency.probe_ns.__setitem__(0, 0), "probe_ns holds 0 ns"),
    ("latency", lambda m: setattr(m.latency, "ended_ns", 0), "ends before it starts"),
    ("latency", lambda m: m.ClearField("latency"), "holds either latency or power"),
    ("latency", lambda m: m.power.SetInParent(), "holds either latency or power"),
    ("latency", lambda m: m.ClearField("before"), "the host's state before the measurement is not there"),
    ("latency", lambda m: setattr(m.before, "temp_c", float("nan")), "host state: temp_c is nan"),
    ("latency", lambda m: setattr(m, "id", ""), "id of at most 64"),
    ("latency", lambda m: setattr(m, "id", "x" * 65), "id of at most 64"),
    ("latency", lambda m: setattr(m, "id", "a\0b"), "NUL"),
    ("latency", lambda m: m.flags.append("a\0b"), "NUL"),
    ("power", lambda m: m.power.samples.voltage_v.__setitem__(3, float("nan")), "voltage_v holds a value that is not"),
    ("power", lambda m: m.power.samples.current_a.pop(), "current_a has not the length"),
    ("power", lambda m: m.power.samples.fresh.pop(), "fresh has not the length"),
    ("power", lambda m: m.power.samples.temp_c.append(1.0), "temp_c has not the length"),
    ("power", lambda m: m.power.samples.t_ns.__setitem__(3, 0), "time runs backwards"),
    ("power", lambda m: setattr(m.power.windows[0], "subject", "nap"), "is of 'nap'; it must be one of idle, item"),
    ("power", lambda m: setattr(m.power.windows[1], "ended_ns", 0), "a power window ends before it starts"),
    ("power", lambda m: setattr(m.power.windows[1], "index", 999), "a power window names item 999; the run has"),
    ("power", lambda m: m.power.ClearField("meter"), "does not say which meter"),
    ("power", lambda m: m.power.ClearField("samples"), "has no samples"),
]


@pytest.mark.parametrize(("kind", "edit", "words"), IMPOSSIBLE, ids=[words[:30] for _, _, words in IMPOSSIBLE])
def test_what_cannot_be_true_is_refused(store: Store, lease: Lease, kind: str, edit: Edit, words: str) -> None:
    part = round_of(lease.run) if kind == "latency" else trace_of()
    message = to_message(measurement_of(lease.task_id, part))
    edit(message)
    code, why = refusal(store, "pi-01", message)
    assert code == "INVALID_ARGUMENT"
    assert words in why
    assert list(store.measurements("run", kind)) == []
