"""The document as text: canonical for machines, readable for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lut_store.document import canonical_json, to_document

if TYPE_CHECKING:
    from lut_store.lut import Lut


def canonical(lut: Lut) -> str:
    return canonical_json(to_document(lut))


def readable(lut: Lut) -> str:
    """Indented, with one table row or operator on a line."""
    return _lines(to_document(lut), "") + "\n"


def _flat(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    return not any(isinstance(part, (dict, list)) for part in parts)


def _lines(value: Any, indent: str) -> str:
    if not isinstance(value, (dict, list)) or _flat(value):
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {_lines(part, inner)}" for key, part in value.items()]
        return "{\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _lines(part, inner) for part in value) + f"\n{indent}]"
