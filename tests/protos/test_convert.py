"""Vocabulary and messages become each other without loss, and each knows every field of the other."""

from __future__ import annotations

import dataclasses
import types as pytypes
import typing
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protos import agent_pb2, common_pb2, lut_pb2, run_pb2, types
from protos.convert import MESSAGES, from_message, to_message
from tests.protos.strategies import STRATEGIES

MODULES = (common_pb2, agent_pb2, run_pb2, lut_pb2)
# What is said around the vocabulary, and has no value of its own: the streams' envelopes, requests and replies.
ENVELOPES = {
    *("AgentMessage", "Hello", "HeldTask", "AgentStatus", "TaskEnded"),
    *("CoordinatorMessage", "Welcome", "Acknowledge", "Refuse", "Revoke"),
}
TYPES = sorted(MESSAGES, key=lambda cls: cls.__name__)


def name_of(cls: type) -> str:
    return cls.__name__


@pytest.mark.parametrize("cls", TYPES, ids=name_of)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_there_and_back_over_bytes(cls: type, data: st.DataObject) -> None:
    value = data.draw(STRATEGIES[cls])
    wire = to_message(value).SerializeToString()
    assert from_message(cls, MESSAGES[cls].FromString(wire)) == value


def test_every_message_has_its_type_and_the_other_way_round() -> None:
    messages = {name for module in MODULES for name in module.DESCRIPTOR.message_types_by_name}
    spoken = {name for name in messages if not name.endswith(("Request", "Reply"))} - ENVELOPES
    assert spoken == {cls.__name__ for cls in MESSAGES}
    frozen = {name for name, cls in vars(types).items() if isinstance(cls, type) and dataclasses.is_dataclass(cls)}
    assert frozen - {"Configuration"} == spoken  # a configuration belongs to a LUT, which travels as a document
    assert set(STRATEGIES) == set(MESSAGES)


KINDS: dict[Any, set[int]] = {
    str: {FieldDescriptor.TYPE_STRING},
    bool: {FieldDescriptor.TYPE_BOOL},
    float: {FieldDescriptor.TYPE_DOUBLE},
    int: {FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_SINT32},
}


@pytest.mark.parametrize("cls", TYPES, ids=name_of)
def test_no_field_is_missing_on_either_side_and_all_mean_the_same(cls: type) -> None:
    descriptors = {field.name: field for field in MESSAGES[cls].DESCRIPTOR.fields}
    hints = typing.get_type_hints(cls, vars(types))
    assert {field.name for field in dataclasses.fields(cls)} == set(descriptors)
    for name, field in descriptors.items():
        hint, optional = hints[name], False
        if isinstance(hint, pytypes.UnionType):
            optional = True
            (hint,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        repeated = typing.get_origin(hint) is tuple
        if repeated:
            hint = typing.get_args(hint)[0]
        assert field.is_repeated == repeated, name
        if dataclasses.is_dataclass(hint):
            assert field.message_type.name == hint.__name__, name
        else:
            assert field.type in KINDS[hint], name
            assert field.has_presence == optional, name


ONE_SAMPLE = {"t_ns": [1], "voltage_v": [5.0], "current_a": [0.1], "power_w": [0.5], "fresh": [True]}


@pytest.mark.parametrize(
    ("cls", "change", "says"),
    [
        (types.MeterSamples, {**ONE_SAMPLE, "voltage_v": [float("nan")]}, "voltage_v holds a value that is not finite"),
        (types.MeterSamples, {**ONE_SAMPLE, "fresh": []}, "fresh has not the length of t_ns"),
        (types.MeterSamples, {name: 2 * column for name, column in ONE_SAMPLE.items()} | {"t_ns": [2, 1]}, "backwards"),
        (types.NetworkTimings, {"calls": 1, "network": [0], "total_ns": [0]}, "total_ns holds 0 ns"),
        (types.NetworkTimings, {"calls": 2, "network": [0], "total_ns": [5]}, "1 times for 1 networks × 2 calls"),
        (types.PathTimings, {"calls": 1, "choices": [0], "block_ns": [1 << 60], "total_ns": [5]}, "below 13 days"),
        (types.BlockSpec, {"kind": "lstm", "in_channels": 1}, "kind is 'lstm'; it must be one of mbconv"),
        (types.PowerWindow, {"subject": "idle", "started_ns": 2, "ended_ns": 1}, "ends before it starts"),
        (types.HostState, {"monotonic_ns": 1, "temp_c": float("inf")}, "temp_c is inf"),
        (types.Measurement, {"id": "x"}, "incomplete Measurement"),
        (types.Lease, {"task_id": "x"}, "incomplete Lease"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_a_message_with_an_impossible_value_is_refused_with_a_sentence(
    cls: type, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        from_message(cls, MESSAGES[cls](**change))


def test_absent_is_none_and_never_zero() -> None:
    state = from_message(types.HostState, common_pb2.HostState(monotonic_ns=1))
    assert (state.temp_c, state.throttled_bits) == (None, None)
    state = from_message(types.HostState, common_pb2.HostState(monotonic_ns=1, temp_c=0.0, throttled_bits=0))
    assert (state.temp_c, state.throttled_bits) == (0.0, 0)
    assert "temp_c" not in MessageToDict(to_message(types.HostState(1)), preserving_proto_field_name=True)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[type, bytes]:
    """A type and the bytes of a value of it, some of them changed, lost or doubled."""
    cls = draw(st.sampled_from(TYPES))
    wire = to_message(draw(STRATEGIES[cls])).SerializeToString()
    for _ in range(draw(st.integers(1, 3))):
        start, length = draw(st.integers(0, len(wire))), draw(st.integers(0, 4))
        wire = wire[:start] + draw(st.binary(max_size=4)) + wire[start + length :]
    return cls, wire


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(damaged())
def test_damaged_bytes_give_a_value_or_a_sentence(case: tuple[type, bytes]) -> None:
    cls, wire = case
    try:
        message = MESSAGES[cls].FromString(wire)
    except DecodeError:
        return
    try:
        value = from_message(cls, message)
    except ValueError as error:
        assert str(error)  # noqa: PT017 — a value is as good
    else:
        assert type(value) is cls
