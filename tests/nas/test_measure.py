"""What is asked of an agent for a child, and what comes back: without processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.emulator.device_space import SpaceModel
from agent.emulator.device_truth import true_network, true_operators
from agent.emulator.device_types import RPI3B
from agent.rounds import compose
from nas.baselines import baseline, baselines
from nas.measure import OTHERS, compared, measurement_run
from protos.errors import BadInputError
from tests.lut_store.samples import lut_of, space_of

LUT = lut_of(space_of(((1, 16, 1), (3, 24, 2))))
ANCHORS = [{"choices": [n, n, n, n], "latency_s": 0.1, "energy_j": None} for n in (1, 2, 3)]
WITH_ANCHORS = replace(LUT, validation=dict(LUT.validation) | {"anchors": ANCHORS})


def test_a_run_is_the_child_the_anchors_and_others_in_the_luts_context() -> None:
    steady = replace(WITH_ANCHORS, configuration=replace(LUT.configuration, context="steady", threads=2))
    run = measurement_run(steady, "pi-01", [(0, 1, 2, 8), (3, 3, 3, 3)], seed=4)
    assert [n.role for n in run.networks[:2]] == ["validation", "validation"]
    assert [n.choices for n in run.networks if n.role == "anchor"] == [(1, 1, 1, 1), (2, 2, 2, 2)]
    assert len(run.networks) == 2 + OTHERS
    assert len({n.choices for n in run.networks}) == len(run.networks)
    assert (run.plan.context, run.plan.threads, run.plan.timed_calls) == ("steady", 2, 8)
    assert (run.purpose, run.lut_digest, run.items) == ("validate", steady.digest, ())
    content = compose(run, seed=1, round_index=0)
    assert sorted(content.executions) == [("network", n) for n in range(len(run.networks))]
    assert measurement_run(LUT, "x", [(0, 0, 0, 0)], meter="none").plan.energy_budget_s == 0
    assert measurement_run(LUT, "x", [(0, 0, 0, 0)]).plan.timed_calls == 1


def test_a_space_of_one_network_is_measured_alone() -> None:
    space = baseline("condensenet74-cifar10")
    run = measurement_run(lut_of(space, flags={}), "x", [(0,) * len(space.layers)])
    assert len(run.networks) == 1


def test_what_cannot_be_asked() -> None:
    with pytest.raises(BadInputError, match="unknown preset 'fast'"):
        measurement_run(LUT, "x", [(0, 0, 0, 0)], preset="fast")
    with pytest.raises(BadInputError, match="layer 0: skip is not allowed"):
        measurement_run(LUT, "x", [(8, 0, 0, 0)])
    other = replace(LUT, configuration=replace(LUT.configuration, runtime="onnx"))
    with pytest.raises(BadInputError, match="agents measure torch-eager"):
        measurement_run(other, "x", [(0, 0, 0, 0)])


def test_the_report_beside_the_luts_intervals() -> None:
    choices = [0, 1, 2, 8]
    predicted = LUT.predict([choices])[0]
    numbers = {
        "choices": choices,
        "latency_s": 0.5,
        "latency_se_s": 0.01,
        "predicted_latency_s": float(predicted[0]),
        "energy_j": None,
        "energy_se_j": None,
        "predicted_energy_j": float(predicted[1]),
    }
    report = {"networks": [{"role": "anchor", **numbers}, {"role": "validation", **numbers}]}
    (found,) = compared(LUT, report)
    assert found.choices == tuple(choices)
    assert found.latency.error == pytest.approx(float(predicted[0]) / 0.5 - 1)
    assert found.energy.error is None
    interval = LUT.predict_interval([choices])[0]
    assert (found.latency.lo, found.latency.hi) == pytest.approx(tuple(interval[0]))
    assert found.energy.document()["predicted"] == pytest.approx(float(predicted[1]))


@pytest.mark.parametrize("name", baselines())
def test_an_emulated_pi_runs_a_baseline(name: str) -> None:
    space = baseline(name)
    model = SpaceModel(RPI3B, space, threads=1)
    whole = true_network(model, (0,) * len(space.layers), "cold")
    operators = true_operators(model, "cold", paths=4)
    total_s = operators.latency_s.sum() + operators.fixed_latency_s.sum()
    assert 0.1 < whole.latency_s < 2
    assert total_s == pytest.approx(whole.latency_s, rel=0.01)
    assert np.isfinite(operators.energy_j).all()
