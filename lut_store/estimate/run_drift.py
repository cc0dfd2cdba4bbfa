"""Whether the board became slower or faster while it was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lut_store.estimate.executions import NETWORK, Array, flatten
from lut_store.estimate.latency import MEDIAN_SE
from protos.types import LatencyRound, RunSpec

LEAST = 12  # executions of networks of a board, below which nothing can be said
SPREAD = 1.4826  # standard deviation over the median absolute deviation, for normal noise


def latency_drift(spec: RunSpec, streams: Sequence[Sequence[LatencyRound]]) -> dict[str, float] | None:
    """How much longer the networks took in the last third of a stream than in the first, relative, and its standard
    error: ``{"latency": 0.004, "latency_se": 0.002}``; of the stream with the largest change.

    Each network is compared with its own median, so that it does not matter which ones ran when. The common mode of the
    machine is in it: a board that warms up is what is looked for. None when every stream is too short.
    """
    ex = flatten(spec, streams)
    found: list[dict[str, float]] = []
    for stream in range(len(streams)):
        own = (ex.kind == NETWORK) & (ex.stream == stream)
        if own.sum() >= LEAST:
            found.append(_change(ex.log_total[own], ex.index[own]))
    return max(found, key=lambda change: abs(change["latency"]), default=None)


def _change(log_s: Array, network: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[str, float]:
    """log_s (n,) of executions in the order of time, and which network each is."""
    deviation = log_s.copy()
    for index in np.unique(network):
        deviation[network == index] -= np.median(log_s[network == index])
    third = len(deviation) // 3
    first, last = deviation[:third], deviation[-third:]
    spread = SPREAD * float(np.median(np.abs(deviation - np.median(deviation))))
    change = float(np.expm1(np.median(last) - np.median(first)))
    return {"latency": change, "latency_se": MEDIAN_SE * spread * float(np.sqrt(2 / third))}
