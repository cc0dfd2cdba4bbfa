"""A child network: one architecture of a space, where it comes from, and the files that name it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lut_store.document import space_document
from lut_store.formats import files
from lut_store.formats.decode import space_from_document
from lut_store.lut import Lut
from protos.errors import BadInputError
from protos.types import SKIP, BlockSpec, SearchSpace, digest_of

LISTS = ("children", "front")  # what `nas derive` and `nas pareto` write


@dataclass(frozen=True)
class Child:
    """The architecture `choices` of `space`; costs are what the LUT predicts, None without one."""

    space: SearchSpace
    choices: tuple[int, ...]
    latency_s: float | None = None
    energy_j: float | None = None
    lut: str = ""
    lut_digest: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the operators and the choices: of the network, whatever a LUT says of it."""
        return digest_of([self.space.digest, list(self.choices)])

    @property
    def specs(self) -> tuple[BlockSpec, ...]:
        """Its operators from the image to the classes, without skips."""
        chosen = (self.space.spec(layer, op) for layer, op in enumerate(self.choices))
        return (*self.space.stem, *(s for s in chosen if s is not None and s.kind != SKIP), *self.space.head)

    def document(self) -> dict[str, Any]:
        return {
            "space": space_document(self.space),
            "choices": list(self.choices),
            "ops": [self.space.op_names[op] for op in self.choices],
            "latency_s": self.latency_s,
            "energy_j": self.energy_j,
            "lut": self.lut,
            "lut_digest": self.lut_digest,
        }


def child_of(lut: Lut, choices: Sequence[int]) -> Child:
    """The architecture with what `lut` predicts for it; a metric that was not measured is None."""
    chosen = _checked(lut.space, choices, "the network")
    latency_s, energy_j = (float(v) if math.isfinite(v) else None for v in lut.predict([list(chosen)])[0])
    return Child(lut.space, chosen, latency_s, energy_j, lut.reference, lut.digest)


def only_child(space: SearchSpace) -> tuple[int, ...]:
    """The choices of a space with one architecture, such as a baseline. Raises BadInputError when there are more."""
    allowed = [space.allowed(layer) for layer in range(len(space.layers))]
    if any(len(ops) > 1 for ops in allowed):
        raise BadInputError(
            f"space {space.name} has many architectures: name one with --child FILE, which `nas search`, `nas derive` "
            "and `nas optimise --json` write"
        )
    return tuple(ops[0] for ops in allowed)


def read_choices(path: Path, space: SearchSpace, number: int = 0) -> tuple[int, ...]:
    """The choices of the child network `number` (counted from 0) of a JSON file.

    Such files are what `nas search` and `nas derive` write, and what `nas optimise --json` and `nas pareto --json`
    print. Raises BadInputError for a file that is none, one of another space, and a number that it does not have.
    """
    try:
        document = json.loads(files.read(path))
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{path} is no JSON: {error}") from error
    records: Any = [document]
    if isinstance(document, Mapping):
        records = next((document[name] for name in LISTS if name in document), [document.get("child", document)])
    if not isinstance(records, list) or not records:
        raise BadInputError(f"{path} names no child network")
    if not 0 <= number < len(records):
        raise BadInputError(f"{path} names {len(records)} child networks; there is no number {number} (from 0)")
    record = records[number]
    choices = record.get("choices") if isinstance(record, Mapping) else None
    if not isinstance(choices, list) or not all(type(op) is int for op in choices):
        raise BadInputError(f'{path} names no child network: it has no "choices", a list of whole numbers')
    own = record.get("space_digest", space.digest)
    if own != space.digest:
        raise BadInputError(f"{path} is of another space ({record.get('space')}) than {space.name}")
    return _checked(space, choices, str(path))


def from_document(document: Any, source: str) -> Child:
    """What `Child.document` gave. Raises BadInputError naming `source`."""
    if not isinstance(document, Mapping) or not {"space", "choices"} <= set(document):
        raise BadInputError(f"{source} is no record of a network")
    space = space_from_document(document["space"], source)
    if not isinstance(document["choices"], list):
        raise BadInputError(f"{source}: choices must be a list of whole numbers")
    return Child(
        space,
        _checked(space, document["choices"], source),
        document.get("latency_s"),
        document.get("energy_j"),
        str(document.get("lut", "")),
        str(document.get("lut_digest", "")),
    )


def _checked(space: SearchSpace, choices: Sequence[Any], source: str) -> tuple[int, ...]:
    try:
        chosen = tuple(int(op) for op in choices)
        space.check_choices(chosen)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{source}: {error}") from error
    return chosen
