"""The evidence of a run → a LUT version, or → a validation report: pure arithmetic between two calls of the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from lut_store.estimate.energy import PowerEstimate, estimate_power

from lut_store.estimate.correction import Correction, counts, fit_correction, kinds_of
from lut_store.estimate.executions import Array, slot_items
from lut_store.estimate.latency import Z95, LatencyEstimate, device_seconds, estimate_latency
from lut_store.estimate.validation import errors, noise_floor
from lut_store.lut import Lut
from lut_store.metric import Metric
from lut_store.store import Store, StoredMeasurement
from protos.errors import BadInputError, NotFoundError
from protos.types import (
    CONTEXTS,
    CellRef,
    Configuration,
    Device,
    LatencyRound,
    LutQuery,
    Measurement,
    MeterInfo,
    PowerTrace,
    RunSpec,
)

SHIFT_FINDING = 0.02  # of the anchors between two runs of one board
DISTURBED_FINDING = 0.3  # share of executions
LEAST_SAMPLES = 8  # fresh meter samples below which a cell's energy is flagged
SEED_DIGITS = 15  # of the evidence's digest: the bootstrap is seeded from what it resamples


@dataclass(frozen=True)
class Evidence:
    """What a run has measured, sorted out. Streams and segments hold clean measurements in the order of time."""

    streams: tuple[tuple[LatencyRound, ...], ...]  # one per device
    segments: tuple[tuple[PowerTrace, ...], ...]
    used: tuple[Measurement, ...]
    flagged: int
    devices: tuple[str, ...]
    digest: str

    @property
    def meter(self) -> MeterInfo | None:
        return next((trace.meter for segment in self.segments for trace in segment), None)


def gather(stored: Sequence[StoredMeasurement]) -> Evidence:
    """Sort a run's measurements. Flagged latency rounds are left out while there are clean ones at all."""
    rounds = [s for s in stored if s.measurement.latency is not None]
    clean = [s for s in rounds if not s.measurement.flags]
    chosen = clean or rounds
    streams: dict[str, list[Measurement]] = {}
    for item in chosen:
        streams.setdefault(item.device, []).append(item.measurement)
    traces: dict[str, list[PowerTrace]] = {}
    powers = [s for s in stored if s.measurement.power is not None]
    for item in powers:
        assert item.measurement.power is not None
        traces.setdefault(item.measurement.power.segment_id, []).append(item.measurement.power)
    used = tuple(s.measurement for s in (*chosen, *powers))
    ids = "\n".join(sorted(m.id for m in used))
    return Evidence(
        streams=tuple(tuple(_in_time(own)) for _, own in sorted(streams.items())),
        segments=tuple(tuple(sorted(own, key=lambda t: t.chunk)) for _, own in sorted(traces.items())),
        used=used,
        flagged=len(rounds) - len(clean),
        devices=tuple(sorted({s.device for s in (*chosen, *powers)})),
        digest=hashlib.sha256(ids.encode()).hexdigest(),
    )


def _in_time(measurements: Sequence[Measurement]) -> list[LatencyRound]:
    rounds = [m.latency for m in measurements if m.latency is not None]
    return sorted(rounds, key=lambda r: r.started_ns)


def build_lut(store: Store, run_id: str) -> Lut:
    """Build and store the LUT version of a profile run. Raises BadInputError when it has measured nothing."""
    spec = store.run(run_id).spec
    evidence = gather([*store.measurements(run_id, "latency"), *store.measurements(run_id, "power")])
    if not evidence.streams:
        raise BadInputError(f"run {run_id} has no latency measurement; there is nothing to build a LUT from")
    known = {device.name: device for device in store.devices()}
    lut = lut_of(spec, evidence, [known[name] for name in evidence.devices if name in known], run_id)
    said, previous = findings(lut), _previous(store, lut)
    validation: dict[str, Any] = {}
    if previous is not None and (shift := anchor_shift(lut, previous)) is not None:
        validation["anchor_shift"] = {"against": previous.reference, "shift": shift}
        if abs(shift) > SHIFT_FINDING:
            said.append(f"the anchor networks are {shift:+.1%} from {previous.reference}: compare the two with care")
    validation = dict(lut.validation) | validation | {"findings": said}
    return store.add_lut(replace(lut, validation=validation), [run_id])


def findings(lut: Lut) -> list[str]:
    """What a reader should hear before using the table, in sentences."""
    said = []
    if lut.provenance["rounds_flagged"]:
        said.append(
            f"{lut.provenance['rounds_flagged']} rounds were flagged (hot, throttled or disturbed) and left out"
        )
    if lut.provenance["disturbed_share"] > DISTURBED_FINDING:
        said.append(f"{lut.provenance['disturbed_share']:.0%} of the executions were disturbed and left out")
    words: dict[str, int] = {}
    for own in lut.flags.values():
        for word in own:
            words[word] = words.get(word, 0) + 1
    said += [f"{count} cells: {word}" for word, count in sorted(words.items())]
    return said


def _previous(store: Store, lut: Lut) -> Lut | None:
    """The newest version of the same configuration, measured on the same devices."""
    c = lut.configuration
    query = LutQuery(
        c.device_type, c.space, "latest", c.emulation, c.context, c.threads, c.batch, c.runtime, c.precision
    )
    try:
        newest = store.lut(query)
    except NotFoundError:
        return None
    names = [[d["name"] for d in table.provenance.get("devices", [])] for table in (lut, newest)]
    return newest if names[0] == names[1] else None


def anchor_shift(lut: Lut, previous: Lut) -> float | None:
    """How far the anchors, the same networks in every run, have moved since the previous version; None if they say
    nothing.
    """
    ratios = anchor_ratios(previous, {tuple(a["choices"]): a["latency_s"] for a in lut.validation["anchors"]})
    return float(np.median(ratios)) - 1 if ratios else None


def anchor_ratios(lut: Lut, now_s: Mapping[tuple[int, ...], float | None]) -> list[float]:
    """Latency now ÷ latency with the LUT of every anchor network that both know."""
    then = {tuple(a["choices"]): a["latency_s"] for a in lut.validation.get("anchors", [])}
    return [now / then[choices] for choices, now in now_s.items() if now and then.get(choices)]


def lut_of(spec: RunSpec, evidence: Evidence, devices: Sequence[Device], run_id: str) -> Lut:
    """The LUT that this evidence gives, not yet stored."""
    latency = estimate_latency(spec, evidence.streams, seed=int(evidence.digest[:SEED_DIGITS], 16))
    power = estimate_power(spec, evidence.segments) if evidence.segments else None
    tables = _Tables(spec, latency, power)
    return Lut(
        configuration=_configuration(spec, evidence, devices),
        space=spec.space,
        latency=tables.latency_metric(),
        energy=tables.energy_metric(),
        flags=tables.flags(),
        validation=tables.validation(),
        provenance=_provenance(spec, evidence, devices, run_id, latency, power),
    )


class _Tables:
    """Latency and energy per item with their corrections, and what the networks say of them."""

    def __init__(self, spec: RunSpec, latency: LatencyEstimate, power: PowerEstimate | None) -> None:
        self.spec, self.latency, self.power = spec, latency, power
        cells, fixed = slot_items(spec)
        self.count = counts(spec, [n.choices for n in spec.networks], cells, fixed)  # (M, I)
        self.role = np.array([n.role for n in spec.networks])
        fit = self.role == "fit"
        kind = kinds_of(spec)
        rel_se = latency.network_se_s / latency.network_s
        self.latency_correction = fit_correction(
            latency.item_s, self.count[fit], kind, latency.network_s[fit], rel_se[fit]
        )
        if power is None:
            return
        self.item_j = latency.item_s * power.item_power_w
        self.item_se_j = np.hypot(latency.item_se_s * power.item_power_w, latency.item_s * power.item_se_w)
        self.network_j = latency.network_s * power.network_power_w
        self.network_se_j = np.hypot(
            latency.network_se_s * power.network_power_w, latency.network_s * power.network_se_w
        )
        # The latency's correction is the energy's too; what is left is how the power of a network differs from its
        # blocks'.
        corrected_j = self.latency_correction.corrected * power.item_power_w
        self.energy_correction = fit_correction(
            corrected_j, self.count[fit], kind, self.network_j[fit], (self.network_se_j / self.network_j)[fit]
        )

    def latency_metric(self) -> Metric:
        return _metric(
            self.spec, self.latency.item_s, self.latency.item_se_s, self.latency.item_n, self.latency_correction
        )

    def energy_metric(self) -> Metric | None:
        if self.power is None:
            return None
        return _metric(self.spec, self.item_j, self.item_se_j, self.power.item_samples, self.energy_correction)

    def flags(self) -> dict[CellRef, tuple[str, ...]]:
        """Words about single cells: what a reader must know before trusting the number."""
        words: dict[CellRef, tuple[str, ...]] = {}
        target = self.spec.plan.target_rel_halfwidth
        halfwidth = Z95 * self.latency.item_se_s / self.latency.item_s
        for index, item in enumerate(self.spec.items):
            own = []
            if not np.isfinite(self.latency.item_s[index]):
                own.append("no latency")
            elif not halfwidth[index] <= target:
                own.append("wider than asked")
            if self.power is not None and not np.isfinite(self.power.item_power_w[index]):
                own.append("no energy")
            elif self.power is not None and self.power.item_samples[index] < LEAST_SAMPLES:
                own.append("few meter samples")
            if own:
                words.update(dict.fromkeys(item.cells, tuple(own)))
        return words

    def validation(self) -> dict[str, Any]:
        """Predicted against measured networks that were not fitted to, uncorrected first; the noise floor beside."""
        held_out = self.role == "validation"
        record: dict[str, Any] = {
            "latency": self._errors(
                held_out,
                self.latency.item_s,
                self.latency_correction,
                self.latency.network_s,
                self.latency.network_se_s,
            )
        }
        repeat, floor = noise_floor(self.latency.network_half_s[:, held_out])
        record["latency"] |= {"repeat_mape": repeat, "noise_floor_mape": floor}
        if self.spec.plan.method == "paths":
            record["latency"] |= self._hot_loops(held_out)
        if self.power is not None:
            record["energy"] = self._errors(
                held_out, self.item_j, self.energy_correction, self.network_j, self.network_se_j
            )
            relative = (self.network_se_j / self.network_j)[held_out]
            # A folded normal: the mean absolute error that the measurement of the networks alone would make.
            known = relative[np.isfinite(relative)]
            floor = float(np.sqrt(2 / np.pi) * np.sqrt(np.mean(known**2))) if len(known) else None
            record["energy"] |= {"repeat_mape": None, "noise_floor_mape": floor}
        other = errors(self.latency.other_context_s[held_out], self.latency.network_s[held_out])
        if other.n:
            ratio = np.nanmedian((self.latency.other_context_s / self.latency.network_s)[held_out])
            record["contexts"] = {
                "other": next(c for c in CONTEXTS if c != self.spec.plan.context),
                "ratio": float(ratio),
                "spearman": other.spearman,
                "n": other.n,
            }
        record["anchors"] = [
            {
                "choices": list(network.choices),
                "latency_s": _known(self.latency.network_s[index]),
                "energy_j": None if self.power is None else _known(self.network_j[index]),
            }
            for index, network in enumerate(self.spec.networks)
            if network.role == "anchor"
        ]
        return record

    def _hot_loops(self, held_out: np.ndarray[Any, Any]) -> dict[str, Any]:
        """What a table of hot loops, the one that other tools publish, would have predicted for the same networks."""
        hot_s, truth = self.latency.hot_item_s, self.latency.network_s
        if not np.isfinite(hot_s).all():
            return {}
        total, fit = self.count @ hot_s, self.role == "fit"
        known = fit & np.isfinite(truth)
        factor = float(np.median(truth[known] / total[known])) if known.any() else float("nan")
        return {
            "isolated": errors(total[held_out], truth[held_out]).document(),
            "isolated_with_factor": errors(factor * total[held_out], truth[held_out]).document(),
        }

    def _errors(
        self, chosen: np.ndarray[Any, Any], cost: Array, correction: Correction, truth: Array, truth_se: Array
    ) -> dict[str, Any]:
        uncorrected, corrected = self.count @ cost, self.count @ correction.corrected
        return {
            "uncorrected": errors(uncorrected[chosen], truth[chosen]).document(),
            "corrected": errors(corrected[chosen], truth[chosen]).document(),
            "networks": [
                {
                    "choices": list(self.spec.networks[index].choices),
                    "measured": _known(truth[index]),
                    "measured_se": _known(truth_se[index]),
                    "predicted_uncorrected": _known(uncorrected[index]),
                    "predicted": _known(corrected[index]),
                }
                for index in np.flatnonzero(chosen)
            ],
        }


def _metric(spec: RunSpec, value: Array, se: Array, n: Any, correction: Correction) -> Metric:
    unknown = ~np.isfinite(value)
    return Metric.from_items(
        spec.space,
        spec.items,
        value,
        np.where(unknown, np.nan, se),
        n,
        np.where(unknown, np.nan, correction.corrected),
        correction=correction.parameters(),
        factor_rel_se=correction.factor_rel_se,
        residual_rel_sd=correction.residual_rel_sd,
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _configuration(spec: RunSpec, evidence: Evidence, devices: Sequence[Device]) -> Configuration:
    emulation = "none"
    if any(device.emulation == "device" for device in devices):
        emulation = "device"
    elif evidence.meter is not None and evidence.meter.emulated:
        emulation = "meter"
    return Configuration(
        device_type=devices[0].device_type if devices else spec.device,
        space=spec.space.name,
        emulation=emulation,
        context=spec.plan.context,
        threads=spec.plan.threads,
        batch=spec.space.input_shape[0],
    )


def _provenance(
    spec: RunSpec,
    evidence: Evidence,
    devices: Sequence[Device],
    run_id: str,
    latency: LatencyEstimate,
    power: PowerEstimate | None,
) -> dict[str, Any]:
    rounds = [r for stream in evidence.streams for r in stream]
    return {
        "evidence": {"measurements": len(evidence.used), "sha256": evidence.digest},
        "method": {
            "latency": spec.plan.method,
            "latency_statistic": "median per operator, common mode of the machine taken out",
            "energy": None if power is None else "one least-squares fit of the trace, (P_load - P_idle) x t",
            "dedupe": spec.dedupe,
        },
        "runs": [run_id],
        "preset": spec.preset,
        "plan": asdict(spec.plan),
        "seed": spec.seed,
        "sweep_bytes": sorted({r.sweep_bytes for r in rounds}),
        "rounds": len(rounds),
        "rounds_flagged": evidence.flagged,
        "disturbed_share": latency.disturbed_share,
        "spread": _known(latency.spread),
        "latency_device_s": device_seconds(evidence.streams),
        "energy_device_s": _energy_device_s(evidence),
        "devices": [asdict(device) | {"host": None} for device in devices],
        "host": _host_range(evidence),
        "meter": None if evidence.meter is None else asdict(evidence.meter),
        "meter_losses": sum(len(t.losses) for segment in evidence.segments for t in segment),
        "power": None if power is None else power.document(),
    }


def _energy_device_s(evidence: Evidence) -> float:
    spans = [
        max(w.ended_ns for t in segment for w in t.windows) - min(w.started_ns for t in segment for w in t.windows)
        for segment in evidence.segments
        if any(t.windows for t in segment)
    ]
    return sum(spans) * 1e-9


def _host_range(evidence: Evidence) -> dict[str, Any]:
    """The least and greatest of what the board said of itself; None where it could not be read."""
    states = [state for m in evidence.used for state in (m.before, m.after)]
    record: dict[str, Any] = {}
    for name in ("temp_c", "frequency_hz", "load_1m", "other_cpu_share"):
        values = [v for s in states if (v := getattr(s, name)) is not None]
        record[name] = [min(values), max(values)] if values else None
    record["governor"] = sorted({s.governor for s in states if s.governor is not None})
    bits = [s.throttled_bits for s in states if s.throttled_bits is not None]
    record["throttled_bits"] = int(np.bitwise_or.reduce(bits)) if bits else None
    return record


def validation_report(store: Store, run_id: str) -> dict[str, Any]:
    """Compare the LUT that a validate run names with the networks that it measured, without and with the anchors'
    rescaling.

    The anchors were measured with the LUT and again now: the median of their ratios says how far the board has moved.
    """
    spec = store.run(run_id).spec
    lut = store.lut_by_digest(spec.lut_digest)
    evidence = gather([*store.measurements(run_id, "latency"), *store.measurements(run_id, "power")])
    if not evidence.streams:
        raise BadInputError(f"run {run_id} has no latency measurement; there is nothing to compare")
    latency = estimate_latency(spec, evidence.streams, seed=int(evidence.digest[:SEED_DIGITS], 16))
    role = np.array([n.role for n in spec.networks])
    held_out = role == "validation"
    choices = np.array([n.choices for n in spec.networks])
    predicted = lut.predict(choices)[:, 0]  # (M,)
    ratios = anchor_ratios(
        lut, {n.choices: _known(latency.network_s[i]) for i, n in enumerate(spec.networks) if n.role == "anchor"}
    )
    factor = float(np.median(ratios)) if ratios else None
    repeat, floor = noise_floor(latency.network_half_s[:, held_out])
    report: dict[str, Any] = {
        "lut": lut.reference,
        "digest": lut.digest,
        "run": run_id,
        "anchors": len(ratios),
        "anchor_factor": factor,
        "latency": {
            "plain": errors(predicted[held_out], latency.network_s[held_out]).document(),
            "repeat_mape": repeat,
            "noise_floor_mape": floor,
        },
    }
    if factor is not None:
        report["latency"]["rescaled"] = errors(factor * predicted[held_out], latency.network_s[held_out]).document()
    return report
