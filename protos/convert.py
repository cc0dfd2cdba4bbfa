"""The one place where vocabulary (protos.types) and messages (the generated modules) become each other.

Field names are the same on both sides, which lets one pair of functions serve every type;
`tests/protos/test_convert.py` sends each type there and back and checks that no field is missing on either side.
"""

from __future__ import annotations

import dataclasses
import types as pytypes
import typing
from typing import Any, TypeVar

from google.protobuf.message import Message

from protos import agent_pb2, common_pb2, lut_pb2, run_pb2, types

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Field:
    name: str
    item: type | None  # the dataclass inside, when there is one
    repeated: bool
    optional: bool


def _field(name: str, hint: Any) -> _Field:
    repeated = optional = False
    if typing.get_origin(hint) in (typing.Union, pytypes.UnionType):
        optional = True
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if typing.get_origin(hint) is tuple:
        repeated = True
        hint = typing.get_args(hint)[0]
    return _Field(name, hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None, repeated, optional)


def _fields(cls: Any) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(cls, vars(types))
    return tuple(_field(item.name, hints[item.name]) for item in dataclasses.fields(cls))


# Every type that travels: a class of the vocabulary that has a message of the same name.
MESSAGES: dict[type, type[Message]] = {
    cls: getattr(module, name)
    for module in (common_pb2, agent_pb2, run_pb2, lut_pb2)
    for name, cls in vars(types).items()
    if dataclasses.is_dataclass(cls) and isinstance(cls, type) and hasattr(module, name)
}
_FIELDS: dict[type, tuple[_Field, ...]] = {cls: _fields(cls) for cls in MESSAGES}


def to_message(value: Any) -> Any:
    """The message of a vocabulary value."""
    message: Any = MESSAGES[type(value)]()
    for item in _FIELDS[type(value)]:
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
    for item in _FIELDS[cls]:
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
