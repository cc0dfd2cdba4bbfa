"""A LUT as one JSON document (docs/lut-format.md), and the digest that names its content."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lut_store.metric import Metric
from protos.types import BlockSpec, CellRef, SearchSpace, digest_of

if TYPE_CHECKING:  # lut_store.lut needs the digest from here
    from lut_store.lut import Lut

FORMAT = "edgelut-lut"
FORMAT_VERSION = 1

# What of the provenance is content: the same evidence and the same method are the same LUT, whoever builds it and when.
DIGESTED_PROVENANCE = ("evidence", "method")
# The rest of the validation compares with other versions, which are not this one's content.
DIGESTED_VALIDATION = ("latency", "energy")


def _numbers(values: Any) -> Any:
    """Nested lists of `values` with None for NaN, since JSON has no NaN."""
    if isinstance(values, list):
        return [_numbers(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values


def _metric(metric: Metric | None) -> dict[str, Any] | None:
    if metric is None:
        return None
    arrays = ("value", "se", "n", "corrected", "fixed_value", "fixed_se", "fixed_n", "fixed_corrected")
    return {
        **{name: _numbers(getattr(metric, name).tolist()) for name in arrays},
        "correction": metric.correction,
        "factor_rel_se": _numbers(metric.factor_rel_se),
        "residual_rel_sd": _numbers(metric.residual_rel_sd),
    }


def space_document(space: SearchSpace) -> dict[str, Any]:
    """The space with every operator written once and named by its position."""
    place: dict[BlockSpec, int] = {}
    for spec in (*space.stem, *(c.spec for layer in space.layers for c in layer.cells), *space.head):
        if spec is not None:
            place.setdefault(spec, len(place))
    return {
        "name": space.name,
        "op_names": list(space.op_names),
        "operators": [asdict(spec) for spec in place],
        "stem": [place[spec] for spec in space.stem],
        "layers": [[None if c.spec is None else place[c.spec] for c in layer.cells] for layer in space.layers],
        "head": [place[spec] for spec in space.head],
    }


def _flags(flags: Mapping[CellRef, tuple[str, ...]]) -> list[dict[str, Any]]:
    return [
        {"layer": cell.layer, "op": cell.op, "flags": list(words)}
        for cell, words in sorted(flags.items(), key=lambda item: (item[0].layer, item[0].op))
    ]


def content(lut: Lut) -> dict[str, Any]:
    """What the digest covers: numbers, evidence and method; no version number, wall time or git state."""
    return {
        "configuration": asdict(lut.configuration),
        "space": space_document(lut.space),
        "fixed_included": lut.fixed_included,
        "latency": _metric(lut.latency),
        "energy": _metric(lut.energy),
        "flags": _flags(lut.flags),
        "validation": {key: lut.validation[key] for key in DIGESTED_VALIDATION if key in lut.validation},
        "provenance": {key: lut.provenance[key] for key in DIGESTED_PROVENANCE if key in lut.provenance},
    }


def digest(lut: Lut) -> str:
    """SHA-256 (hex) of the canonical JSON of `content`."""
    return digest_of(content(lut))


def to_document(lut: Lut) -> dict[str, Any]:
    """The whole LUT."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "digest": lut.digest,
        "version": lut.version,
        "created_wall_s": lut.created_wall_s,
        **content(lut),
        "validation": lut.validation,
        "provenance": lut.provenance,
    }


def canonical_json(document: object) -> str:
    """Sorted keys, no blanks, floats with the fewest digits that read back as the same float."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
