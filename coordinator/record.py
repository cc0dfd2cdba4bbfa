"""What a LUT says about its own truth and origin, read from its JSON-able records (docs/architecture.md) into types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coordinator.units import NOT_KNOWN
from lut_store.completed import reused_sentence
from lut_store.lut import METRICS, Lut, MissingCellError
from lut_store.metric import Metric


@dataclass(frozen=True)
class Errors:
    """Relative errors of predictions of whole networks; None where it could not be said."""

    n: int
    bias: float | None = None
    mape: float | None = None
    max: float | None = None
    spearman: float | None = None


@dataclass(frozen=True)
class NetworkPoint:
    """One measured network and its prediction, in seconds or joules; lo and hi are the 95 % interval."""

    measured: float
    measured_se: float | None
    uncorrected: float | None
    corrected: float
    lo: float | None
    hi: float | None


@dataclass(frozen=True)
class MetricRecord:
    """How well the sums of one metric predict networks that no correction was fitted to."""

    uncorrected: Errors
    corrected: Errors
    noise_floor: float | None
    fit_networks: int
    networks: tuple[NetworkPoint, ...]
    anchors: tuple[NetworkPoint, ...]
    isolated: Errors | None = None  # what a table of hot loops would have predicted, and with one factor fitted to it
    isolated_with_factor: Errors | None = None

    @property
    def is_corrected(self) -> bool:
        return self.uncorrected != self.corrected


def errors_of(document: Mapping[str, Any] | None) -> Errors:
    """Errors from their record; a missing one is empty."""
    document = document or {}
    return Errors(int(document.get("n") or 0), *(document.get(key) for key in ("bias", "mape", "max", "spearman")))


def metric_record(lut: Lut, metric: str) -> MetricRecord | None:
    """What `lut.validation` says of "latency" or "energy"; None when no network was measured."""
    document = lut.validation.get(metric)
    numbers: Metric | None = getattr(lut, metric)
    if not isinstance(document, Mapping) or numbers is None:
        return None
    anchor_key = {"latency": "latency_s", "energy": "energy_j"}[metric]
    anchors = [{**anchor, "measured": anchor.get(anchor_key)} for anchor in lut.validation.get("anchors") or ()]
    return MetricRecord(
        errors_of(document.get("uncorrected")),
        errors_of(document.get("corrected")),
        document.get("noise_floor_mape"),
        int(numbers.correction.get("networks") or 0),
        _points(lut, metric, document.get("networks") or ()),
        _points(lut, metric, anchors),
        errors_of(document["isolated"]) if document.get("isolated") else None,
        errors_of(document["isolated_with_factor"]) if document.get("isolated_with_factor") else None,
    )


def alone(lut: Lut, metric: str) -> Lut:
    """The LUT with "latency" or "energy" only, so that a hole in the other one is no obstacle to a prediction."""
    return replace(lut, energy=None) if metric == "latency" else replace(lut, latency=None)


def _points(lut: Lut, metric: str, networks: Sequence[Mapping[str, Any]]) -> tuple[NetworkPoint, ...]:
    """The networks that have both a measured and a predicted number, with the LUT's own intervals.

    A network that needs a cell without a number is left out: it has no prediction.
    """
    single, column = alone(lut, metric), METRICS.index(metric)
    points = []
    for network in networks:
        measured, choices = network.get("measured"), np.array([network["choices"]])
        try:
            predicted = float(single.predict(choices)[0, column])
        except MissingCellError:
            continue
        if measured is None:
            continue
        bounds = single.predict_interval(choices)[0, column]  # (2,)
        lo, hi = (float(bound) if math.isfinite(bound) else None for bound in bounds)
        raw = network.get("predicted_uncorrected")
        points.append(NetworkPoint(float(measured), network.get("measured_se"), raw, predicted, lo, hi))
    return tuple(points)


def emulation_notice(lut: Lut) -> str:
    """One plain sentence when anything in the LUT is not from real hardware; empty when all is."""
    if lut.configuration.emulation == "device":
        return "EMULATED DEVICE: every number comes from a model of a board, none from hardware."
    if lut.configuration.emulation == "meter":
        return "EMULATED METER: latency is measured, energy is not; its current follows the worker's CPU time."
    return ""


def inclusion_notice(lut: Lut) -> str:
    """One plain sentence when the table holds no stem and head; empty when it does."""
    if lut.fixed_included or not (lut.space.stem or lut.space.head):
        return ""
    return "NOT INCLUDED: stem and head. The table holds its cells alone, so that every prediction lacks both."


def filled_notices(lut: Lut) -> list[str]:
    """Sentences about numbers that were not measured in the runs of this version: guesses, and numbers of others."""
    said = []
    estimates = lut.provenance.get("estimates")
    for name in METRICS:
        record = estimates.get(name) if isinstance(estimates, Mapping) else None
        if record and record["cells"]:
            said.append(f"ESTIMATED: {name} of {_estimates_words(record)}")
        if record and record["left_missing"]:
            said.append(f"Still missing: {name} of {', '.join(record['left_missing'])}")
    reused = reused_sentence(lut)
    return [*said, f"REUSED: {reused}"] if reused else said


def _estimates_words(record: Mapping[str, Any]) -> str:
    kinds = [
        f"{kind} by {cv['method']}, cross-validated error {cv['mape']:.1%} (worst {cv['max']:.1%}) "
        f"with {cv['left_out']} left out in {cv['folds']} parts"
        for kind, cv in record["kinds"].items()
    ]
    cells = f"{record['cells']} cells ({record['operators']} operators), from {record['measured_operators']} measured"
    return "; ".join([cells, *kinds])


def configuration_line(lut: Lut) -> str:
    """``cold context, 1 thread, batch 1, torch-eager float32``."""
    c = lut.configuration
    threads = f"{c.threads} thread{'s' if c.threads != 1 else ''}"
    return f"{c.context} context, {threads}, batch {c.batch}, {c.runtime} {c.precision}"


def settings_text(settings: object) -> str:
    """ "median latency; plateau energy as power × time; corrected"; empty for what is no record of settings."""
    if not isinstance(settings, Mapping):
        return ""
    forms = {"power": "power × time", "hanna": "5.1 V × current × time"}
    form = forms.get(str(settings.get("energy_form")), NOT_KNOWN)
    corrected = "corrected" if settings.get("correction") else "not corrected"
    return f"{settings.get('latency')} latency; {settings.get('energy')} energy as {form}; {corrected}"


def named_versions(versions: object) -> list[dict[str, str]]:
    """Versions that the provenance names, as {"reference", "digest"}; what is no such record is left out."""
    known = [v for v in versions if isinstance(v, Mapping)] if isinstance(versions, list) else []
    return [{key: str(v[key]) for key in ("reference", "digest")} for v in known if {"reference", "digest"} <= v.keys()]
