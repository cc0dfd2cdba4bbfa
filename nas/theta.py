"""θ, the raw logits of a search space's candidates, and HANNA's text form of it.

The text has one line per layer with one number per candidate, separated by blanks, and 0.0 where a candidate is not
allowed. That padding never wins: everything here looks at the allowed candidates alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lut_store.formats import files, hanna
from lut_store.metric import Array, BoolArray
from protos.types import SearchSpace


def allowed_cells(space: SearchSpace) -> BoolArray:
    """(L, K): True where a candidate may be chosen."""
    return np.array([[cell.spec is not None for cell in layer.cells] for layer in space.layers])


def read_theta(path: Path, space: SearchSpace) -> Array:
    """(L, K) logits, 0.0 where a candidate is not allowed, whatever the file holds there.

    Raises BadInputError with file, line and column for a wrong shape, a word, NaN or infinity.
    """
    grid = hanna.parse_grid(hanna.read_text(path), str(path), space, signed=True)
    return np.where(allowed_cells(space), grid, 0.0)


def write_theta(path: Path, theta: Array, space: SearchSpace) -> None:
    """`theta` (L, K) as text; the file is whole or not there. Raises StorageError."""
    text = hanna.format_grid(np.where(allowed_cells(space), np.asarray(theta, np.float64), 0.0))
    files.write(path, text.encode())


def uniform_theta(space: SearchSpace) -> Array:
    """(L, K) zeros: every allowed candidate is equally probable."""
    return np.zeros(space.shape)


def argmax_choices(theta: Array, space: SearchSpace) -> tuple[int, ...]:
    """The most probable allowed candidate of every layer; of equal ones the first."""
    return tuple(np.where(allowed_cells(space), theta, -np.inf).argmax(axis=1).tolist())


def sampled_choices(theta: Array, space: SearchSpace, count: int, seed: int) -> list[tuple[int, ...]]:
    """`count` architectures drawn from the softmax of θ over the allowed candidates, layer by layer."""
    logits = np.where(allowed_cells(space), theta, -np.inf)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    columns = [rng.choice(len(row), count, p=row) for row in weights]
    return [tuple(row) for row in np.stack(columns, axis=1).tolist()]
