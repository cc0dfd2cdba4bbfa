"""LUTs with a validation record, for the tests of tables and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from lut_store.lut import Lut
from protos.types import CellRef, Configuration, SearchSpace
from tests.lut_store.samples import lut_of, metric_of, random_choices, space_of


def _errors(predicted: Any, measured: Any) -> dict[str, Any]:
    relative = predicted / measured - 1
    return {
        "n": len(measured),
        "bias": float(relative.mean()),
        "mape": float(abs(relative).mean()),
        "max": float(abs(relative).max()),
        "spearman": 0.99,
    }


def validation_of(lut: Lut, networks: int = 12, anchors: int = 3, seed: int = 0) -> dict[str, Any]:
    """The record that coordinator.build would make if the networks differed from their predictions by about 1 %."""
    rng = np.random.default_rng(seed)
    choices = random_choices(lut.space, networks + anchors, seed=seed)
    predicted = lut.predict(choices)  # (N, 2)
    measured = predicted * rng.normal(1, 0.01, predicted.shape)
    record: dict[str, Any] = {"anchors": [{"choices": row.tolist()} for row in choices[networks:]]}
    for column, (name, key) in enumerate((("latency", "latency_s"), ("energy", "energy_j"))):
        if getattr(lut, name) is None:
            continue
        corrected, truth = predicted[:networks, column], measured[:networks, column]
        raw = corrected / 1.01
        record[name] = {
            "uncorrected": _errors(raw, truth),
            "corrected": _errors(corrected, truth),
            "noise_floor_mape": 0.004,
            "networks": [
                {
                    "choices": c.tolist(),
                    "measured": t,
                    "measured_se": t / 500,
                    "predicted_uncorrected": r,
                    "predicted": p,
                }
                for c, t, r, p in zip(choices, truth, raw, corrected, strict=False)
            ],
        }
        for anchor, value in zip(record["anchors"], measured[networks:, column], strict=True):
            anchor[key] = float(value)
    return record


def validated_lut(
    space: SearchSpace | None = None, *, energy: bool = True, emulation: str = "none", version: int = 3, **changes: Any
) -> Lut:
    """A LUT with validation and provenance."""
    space = space or space_of()
    configuration = Configuration("rpi3b", space.name, emulation=emulation)
    plain = lut_of(space, energy=energy, configuration=configuration)
    values: dict[str, Any] = {
        "configuration": configuration,
        "validation": validation_of(plain),
        "provenance": provenance(),
        "version": version,
        "created_wall_s": 1.76e9,
    }
    return lut_of(space, energy=energy, **(values | changes))


def provenance() -> dict[str, Any]:
    return {
        "evidence": {"measurements": 12, "sha256": "ab"},
        "method": {"latency": "paths"},
        "runs": ["20260301-101500-4f2a"],
        "preset": "quick",
        "seed": 7,
        "rounds": 40,
        "rounds_flagged": 2,
        "sweep_bytes": [67108864],
        "latency_device_s": 61.0,
        "energy_device_s": 300.0,
        "devices": [{"name": "pi-01", "facts": {"model": "Raspberry Pi 3 Model B Rev 1.2", "torch_version": "2.9.1"}}],
        "host": {
            "temp_c": [50.1, 58.9],
            "frequency_hz": [1.2e9, 1.2e9],
            "governor": ["performance"],
            "throttled_bits": 0,
        },
        "meter": {"kind": "um25c", "model": "UM25C", "emulated": False, "rate_hz": 2.0},
        "meter_losses": 1,
    }


def with_hole(lut: Lut) -> Lut:
    """The same LUT, one allowed cell of which has no number."""
    metric = metric_of(lut.space)
    value, corrected = metric.value.copy(), metric.corrected.copy()
    value[1, 2] = corrected[1, 2] = np.nan
    from dataclasses import replace

    holed = replace(metric, value=value, corrected=corrected)
    return replace(lut, latency=holed, energy=None, validation={}, flags={CellRef(1, 2): ("no latency",)})
