"""What the store accepts always converts: its quick rules are never looser than those of protos.types."""

from __future__ import annotations

import time

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from lut_store.evidence import EvidenceCheck
from lut_store.quick import MERGED, QuickCheck
from protos import common_pb2, raw_pb2
from protos.convert import from_message, to_message
from protos.types import Measurement, NetworkTimings, OperatorTimings
from tests.lut_store.samples import measurement_of, round_of, run_of, trace_of

SPEC = run_of()
RULES = EvidenceCheck(SPEC)


def problem_of(message: common_pb2.Measurement) -> str:
    return problems_of([message.SerializeToString()])[0]


def problems_of(bodies: list[bytes]) -> list[str]:
    return RULES.problems([raw_pb2.Measurement.FromString(body) for body in bodies], bodies)


ROUND = to_message(measurement_of("t", round_of(SPEC, paths=2), name="round")).SerializeToString()
TRACE = to_message(measurement_of("t", trace_of(samples=4), name="trace")).SerializeToString()


def converts(message: common_pb2.Measurement) -> bool:
    try:
        from_message(Measurement, message)
    except ValueError:
        return False
    return True


def test_true_measurements_pass() -> None:
    for part in (round_of(SPEC), round_of(SPEC, paths=0), round_of(SPEC, paths=60), trace_of(), trace_of(samples=0)):
        assert problem_of(to_message(measurement_of("t", part))) == ""


def test_operators_and_the_other_context_are_checked_too() -> None:
    message = to_message(measurement_of("t", round_of(SPEC)))
    message.latency.other_context.CopyFrom(to_message(NetworkTimings(1, (0, 5), (10, 20))))
    assert problem_of(message) == ""
    message.latency.other_context.network[1] = 6
    assert problem_of(message) == "other_context names network 6; the run has 6 of them"
    message.latency.ClearField("other_context")
    executions = len(message.latency.order)
    message.latency.operators.CopyFrom(to_message(OperatorTimings(2, (0, 1), (1, 2, 3, 4))))
    message.latency.order.extend([executions, executions + 1])
    message.latency.probe_ns.extend([5, 5])
    assert problem_of(message) == ""
    message.latency.operators.item[0] = len(SPEC.items)
    assert "operators names item" in problem_of(message)


def test_the_ends_of_a_time() -> None:
    for paths in (2, 150):
        for column, zero in (("total_ns", False), ("block_ns", True)):
            message = to_message(measurement_of("t", round_of(SPEC, paths=paths)))
            times = getattr(message.latency.paths, column)
            times[-1] = 0
            assert (problem_of(message) == "") == zero
            times[-1] = 1 << 50
            assert problem_of(message) == f"{column} holds {1 << 50} ns; a time must be positive and below 13 days"
            times[-1] = (1 << 50) - 1
            assert problem_of(message) == ""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(range(6)), max_size=2 * MERGED + 3))
def test_many_together_are_judged_as_each_alone(picks: list[int]) -> None:
    kinds = [
        to_message(measurement_of("t", round_of(SPEC, paths=index, seed=index), name=str(index))) for index in range(5)
    ]
    kinds.append(to_message(measurement_of("t", trace_of(samples=2))))
    kinds[3].latency.order[0] = kinds[3].latency.order[1]
    kinds[4].latency.networks.network[2] = 6
    messages = [kinds[pick] for pick in picks]
    together = problems_of([message.SerializeToString() for message in messages])
    assert together == [problem_of(message) for message in messages]
    assert [bool(problem) for problem in together] == [pick in (3, 4) for pick in picks]


numbers = st.integers(0, 2**32 - 1) | st.integers(0, 20)
floats = st.floats() | st.just(1.0)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([ROUND, TRACE]), st.data())
def test_any_change_of_a_field_is_refused_or_converts(original: bytes, data: st.DataObject) -> None:
    message = common_pb2.Measurement.FromString(original)
    node = message
    while True:  # walk down to a field and change it
        name = data.draw(st.sampled_from([field.name for field in node.DESCRIPTOR.fields]))
        field = node.DESCRIPTOR.fields_by_name[name]
        if field.message_type is not None and not field.is_repeated:
            if data.draw(st.booleans()):
                node.ClearField(name)
                break
            node = getattr(node, name)
            node.SetInParent()
            continue
        value = getattr(node, name)
        if field.message_type is not None and len(value) and data.draw(st.booleans()):
            node = value[data.draw(st.integers(0, len(value) - 1))]
            continue
        change(node, name, field, data)
        break
    if problem_of(message) == "":
        assert converts(message)


def change(node: object, name: str, field: object, data: st.DataObject) -> None:
    value = getattr(node, name)
    drawn = {
        "double": floats,
        "bool": st.booleans(),
        "string": st.sampled_from(["", "idle", "item", "network", "x" * 70]),
    }.get(str(type_name(field)), numbers)
    if not field.is_repeated:  # type: ignore[attr-defined]
        setattr(node, name, data.draw(drawn))
    elif field.message_type is not None:  # type: ignore[attr-defined]
        value.add()
    elif len(value) and data.draw(st.booleans()):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(drawn)
    elif len(value) and data.draw(st.booleans()):
        value.pop()
    else:
        value.append(data.draw(drawn))


def type_name(field: object) -> str:
    kinds = {1: "double", 8: "bool", 9: "string"}
    return kinds.get(field.type, "number")  # type: ignore[attr-defined]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([ROUND, TRACE]), st.data())
def test_damaged_bytes_are_refused_or_convert(original: bytes, data: st.DataObject) -> None:
    body = bytearray(original)
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        message = common_pb2.Measurement.FromString(bytes(body))
    except DecodeError:
        return
    if problem_of(message) == "":
        assert converts(message)


def test_a_hostile_list_is_judged_in_reasonable_time() -> None:
    message = to_message(measurement_of("t", round_of(SPEC)))
    message.latency.paths.choices.extend([0] * 400_000)
    message.latency.order.extend([0] * 400_000)
    started = time.monotonic()
    assert problem_of(message)
    assert time.monotonic() - started < 30


# ---- the quick look at the bytes ----

QUICK = QuickCheck(SPEC)
ROUNDS = [
    to_message(measurement_of("t", round_of(SPEC, paths=paths, seed=paths), name=f"r{paths}")).SerializeToString()
    for paths in (0, 1, 5, 127, 200)
]


def quick(bodies: list[bytes]) -> set[int]:
    return QUICK.passing([raw_pb2.Measurement.FromString(body) for body in bodies], bodies)


def decoded_problem(body: bytes) -> str:
    """The judgement without the quick look."""
    return RULES._problem(raw_pb2.Measurement.FromString(body), body)


def test_true_rounds_pass_quickly_and_traces_are_left_to_the_other() -> None:
    assert quick([*ROUNDS, TRACE, *ROUNDS]) == {0, 1, 2, 3, 4, 6, 7, 8, 9, 10}
    assert quick([]) == set()


def test_a_column_in_two_pieces_gets_no_quick_yes() -> None:
    """Whoever decodes it sees both; the quick look would see the second alone."""
    more = common_pb2.Measurement()
    more.latency.paths.block_ns.extend([5] * 7)
    doubled = ROUNDS[2] + more.SerializeToString()
    assert quick([doubled]) == set()
    assert "times for" in problems_of([doubled])[0]
    again = common_pb2.Measurement.FromString(ROUNDS[2])
    repeated = common_pb2.Measurement()
    repeated.latency.paths.block_ns.extend(again.latency.paths.block_ns)
    assert quick([ROUNDS[2] + repeated.SerializeToString()]) == set()


def test_orders_that_fit_together_but_not_alone() -> None:
    short, long = (common_pb2.Measurement.FromString(ROUNDS[1]) for _ in range(2))
    moved = short.latency.order.pop()
    long.latency.order.append(moved)
    assert quick([short.SerializeToString(), long.SerializeToString()]) == set()


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(ROUNDS[:4]), st.data())
def test_a_quick_yes_is_a_yes(original: bytes, data: st.DataObject) -> None:
    body = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        what = data.draw(st.sampled_from(["set", "set", "flip", "insert", "delete", "repeat"]))
        if what == "set":
            body[at] = data.draw(st.sampled_from([0, 1, 8, 9, 127, 128, 255]))
        elif what == "flip":
            body[at] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "insert":
            body[at:at] = data.draw(st.binary(max_size=9))
        elif what == "delete":
            del body[at : at + data.draw(st.integers(1, 9))]
        else:
            body += body[at : at + data.draw(st.integers(1, 300))]
    changed = bytes(body)
    try:
        raw_pb2.Measurement.FromString(changed)
    except DecodeError:
        return
    if quick([changed]):
        assert decoded_problem(changed) == ""
        assert converts(common_pb2.Measurement.FromString(changed))
