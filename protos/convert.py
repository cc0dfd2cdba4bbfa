"""The one place where vocabulary (protos.types) and messages (the generated modules) become each other.

Field names are the same on both sides, which lets one pair of functions serve every type; `tests/protos/test_convert.py`
sends each type there and back and checks that no field is missing on either side.
"""

from __future__ import annotations

import dataclasses
import types as pytypes
import typing
from functools import cache
from typing import Any, TypeVar

from google.protobuf.message import Message

from protos import agent_pb2, common_pb2, lut_pb2, run_pb2, types

T = TypeVar("T")

_MODULES = (common_pb2, agent_pb2, run_pb2, lut_pb2)


@cache
def _message_class(cls: type) -> type[Message]:
    for module in _MODULES:
        found = getattr(module, cls.__name__, None)
        if found is not None:
            return typing.cast(type[Message], found)
    raise TypeError(f"{cls.__name__} has no message")


@dataclasses.dataclass(frozen=True)
class _Field:
    name: str
    item: type | None  # the dataclass inside, when there is one
    repeated: bool
    optional: bool


@cache
def _fields(cls: type) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(cls, vars(types))
    out = []
    for item in dataclasses.fields(cls):
        hint, repeated, optional = hints[item.name], False, False
        if typing.get_origin(hint) in (typing.Union, pytypes.UnionType):
            optional = True
            hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        if typing.get_origin(hint) is tuple:
            repeated = True
            hint = typing.get_args(hint)[0]
        out.append(_Field(item.name, hint if dataclasses.is_dataclass(hint) else None, repeated, optional))
    return tuple(out)


def to_message(value: Any) -> Any:
    """The message of a vocabulary value."""
    message = _message_class(type(value))()
    for item in _fields(type(value)):
        part = getattr(value, item.name)
        if part is None:
            continue
        if item.repeated:
            getattr(message, item.name).extend(map(to_message, part) if item.item else part)
        elif item.item:
            getattr(message, item.name).CopyFrom(to_message(part))
        else:
            setattr(message, item.name, part)
    return message


def from_message(cls: type[T], message: Message) -> T:
    """The vocabulary value of a message. Raises ValueError, with a sentence, when it cannot be true."""
    values: dict[str, Any] = {}
    for item in _fields(cls):
        part = getattr(message, item.name)
        if item.repeated:
            values[item.name] = tuple(from_message(item.item, p) for p in part) if item.item else tuple(part)
        elif (item.optional or item.item) and not message.HasField(item.name):
            if item.optional:
                values[item.name] = None
        else:
            values[item.name] = from_message(item.item, part) if item.item else part
    try:
        return cls(**values)
    except TypeError as error:  # a message that lacks a part which the vocabulary demands
        raise ValueError(f"incomplete {cls.__name__}: {error}") from error
