"""The operator tables of HW-NAS-Bench (arXiv 2103.10584), FBNet's space: JSON, milliseconds or millijoules.

Keys are those of its look-up tables (`HWNASBenchAPI.get_op_lookup_tables()`, search space "fbnet"):
``ConvBlock_H{}_W{}_Cin{}_Cout{}_exp{}_kernel{}_stride{}_group{}``, ``Skip_H{}_W{}_Cin{}_Cout{}_stride{}``,
``ConvNorm_H{}_W{}_Cin{}_Cout{}_kernel{}_stride{}_group{}``, ``AvgP_…`` and ``FC_Cin{}_Cout{}``, the input's H and W.
One file is one of those tables, an object from keys to numbers. The project ships them pickled, which edgelut never
reads, because a pickle runs whatever it holds: docs/lut-format.md has the lines that write them as JSON. Its skips have
costs of their own, and its tables hold skips where FBNet's rule allows none; the latter are kept and not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

from lut_store.formats.files import text_of
from lut_store.formats.operators import MAX_ENTRIES, SHOWN, Scheme, Table, number
from protos.errors import BadInputError
from protos.types import SKIP, BlockSpec

FORMAT = "hw-nas-bench"
PICKLE_FIRST = b"\x80"  # of every pickle since protocol 2, and of no UTF-8 text


def parts(spec: BlockSpec) -> tuple[tuple[str, ...], ...]:
    """Operator → keys (operators.Scheme)."""
    size = f"H{spec.input_height}_W{spec.input_width}"
    shape = f"{size}_Cin{spec.in_channels}_Cout{spec.out_channels}"
    if spec.kind == SKIP:
        return ((f"Skip_{shape}_stride{spec.stride}",),)
    rest = f"kernel{spec.kernel}_stride{spec.stride}_group{spec.groups}"
    if spec.kind == "mbconv":
        return ((f"ConvBlock_{shape}_exp{spec.expansion}_{rest}",),)
    if spec.kind == "conv":
        return ((f"ConvNorm_{shape}_{rest}",),)
    if spec.kind != "pool_linear":
        return ()
    pool = f"AvgP_{size}_Cin{spec.in_channels}_Cout{spec.in_channels}_kernel{spec.input_height}_stride1"
    return ((pool, f"FC_Cin{spec.in_channels}_Cout{spec.out_channels}"),)


class _Number(str):
    """The text of a number, which is not the same as a text."""

    __slots__ = ()


class _NotThisError(ValueError):
    """JSON that no table is."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _NotThisError(f"the operator {twice[:SHOWN]!r} stands twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _NotThisError(f"it holds {name}, which JSON does not have")


def read(data: bytes, source: str) -> Table:
    """Key → number."""
    if data.startswith(PICKLE_FIRST):
        raise BadInputError(f"{source} is a pickle, which is never opened: write the table as JSON where it is trusted")
    text = text_of(data, source)
    try:
        root = json.loads(
            text, object_pairs_hook=_object, parse_float=_Number, parse_int=_Number, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        raise BadInputError(
            f"{source}, line {error.lineno}: not JSON, or cut off: {error.msg}, column {error.colno}"
        ) from error
    except _NotThisError as error:
        raise BadInputError(f"{source}: {error}") from error
    except RecursionError as error:
        raise BadInputError(f"{source}: nested too deeply for a table") from error
    if not isinstance(root, dict):
        raise BadInputError(f"{source}: the file must be an object from operators to numbers")
    if len(root) > MAX_ENTRIES:
        raise BadInputError(f"{source}: {len(root)} operators; no table has more than {MAX_ENTRIES}")
    return {key: _cost(value, source, key) for key, value in root.items()}


def _cost(value: Any, source: str, key: str) -> Decimal:
    if isinstance(value, dict):
        raise BadInputError(
            f"{source}, {key[:SHOWN]}: a table inside the file; give one table of operators, such as that of one device"
        )
    if not isinstance(value, _Number):
        raise BadInputError(f"{source}, {key[:SHOWN]}: must be a number")
    return number(value, f"{source}, {key[:SHOWN]}")


def write(entries: Mapping[str, str]) -> str:
    """One operator on a line."""
    lines = ",\n".join(f"  {json.dumps(key)}: {value}" for key, value in entries.items())
    return "{\n" + lines + "\n}\n" if lines else "{}\n"


SCHEME = Scheme(FORMAT, parts, read, write, free_skip=False)
