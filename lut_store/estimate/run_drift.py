"""Whether the board became slower or faster while it was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lut_store.estimate.executions import Array
from lut_store.estimate.latency import MEDIAN_SE
from protos.types import LatencyRound

LEAST = 12  # executions of networks of a board, below which nothing can be said
SPREAD = 1.4826  # standard deviation over the median absolute deviation, for normal noise


def latency_drift(streams: Sequence[Sequence[LatencyRound]]) -> dict[str, float] | None:
    """How much longer the networks took in the last third of a stream than in the first, relative, and its standard
    error: ``{"latency": 0.004, "latency_se": 0.002}``; of the stream with the largest change.

    Each network is compared with its own median, so that it does not matter which ones ran when. The common mode of the
    machine is in it: a board that warms up is what is looked for. None when every stream is too short.
    """
    found: list[dict[str, float]] = []
    for rounds in streams:
        parts = [_networks(round_) for round_ in rounds if round_.networks is not None]
        log_s, network = (
            (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else (np.zeros(0),) * 2
        )
        if len(log_s) >= LEAST:
            found.append(_change(log_s, network))
    return max(found, key=lambda change: abs(change["latency"]), default=None)


def _networks(round_: LatencyRound) -> tuple[Array, Array]:
    """(n,) log seconds of the networks of a round in the order in which they ran, and (n,) which they are."""
    timings = round_.networks
    assert timings is not None
    paths = 0 if round_.paths is None else len(round_.paths.total_ns) // round_.paths.calls
    count = len(timings.network)
    ran = np.argsort(np.asarray(round_.order))[paths : paths + count]  # when each of them ran
    median_ns = np.median(np.asarray(timings.total_ns, np.float64).reshape(count, -1), axis=1)
    order = np.argsort(ran)
    return np.log(median_ns * 1e-9)[order], np.asarray(timings.network, np.float64)[order]


def _change(log_s: Array, network: Array) -> dict[str, float]:
    """log_s (n,) of executions in the order of time, and which network each is."""
    deviation = log_s.copy()
    for index in np.unique(network):
        deviation[network == index] -= np.median(log_s[network == index])
    third = len(deviation) // 3
    first, last = deviation[:third], deviation[-third:]
    spread = SPREAD * float(np.median(np.abs(deviation - np.median(deviation))))
    change = float(np.expm1(np.median(last) - np.median(first)))
    return {"latency": change, "latency_se": MEDIAN_SE * spread * float(np.sqrt(2 / third))}
