"""The `nas` command as a user calls it: what it prints, its JSON, and what bad input gets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.embedded import serving
from lut_store.lut import Lut
from lut_store.store import Store
from nas.budgets import Budgets, Costs
from nas.cli.app import main
from nas.exact import minimise
from nas.theta import write_theta
from tests.hanna import FOLDER, hanna_lut, needs_tables
from tests.lut_store.samples import lut_of, space_of

SPACE = space_of(((1, 16, 1), (3, 24, 2)))
LUT = lut_of(SPACE)
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `nas` with these words; status, stdout, stderr."""
    monkeypatch.delenv("EDGELUT_COORDINATOR", raising=False)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def lut(tmp_path: Path) -> Path:
    LUT.save(tmp_path / "sample.lut")
    return tmp_path / "sample.lut"


def answer(result: tuple[int, str, str]) -> Any:
    status, out, err = result
    assert status == 0, err
    return json.loads(out)


def test_cost(call: Call, lut: Path, tmp_path: Path) -> None:
    theta = np.random.default_rng(0).normal(size=SPACE.shape)
    write_theta(tmp_path / "theta.txt", theta, SPACE)
    found = answer(call("cost", "--lut", lut, "--theta", tmp_path / "theta.txt", "--json"))
    predicted = LUT.predict([found["argmax"]["choices"]])[0]
    assert (found["argmax"]["latency_s"], found["argmax"]["energy_j"]) == pytest.approx(tuple(predicted))
    assert found["expected"]["latency_s"] > 0
    assert found["lut_digest"] == LUT.digest
    status, out, _ = call("cost", "--lut", lut, "--theta", tmp_path / "theta.txt")
    assert status == 0
    assert "most probable" in out


def test_preview(call: Call, lut: Path) -> None:
    words = ("preview", "--lut", lut, "--alpha", 0.5, "--beta", 1, "--gamma", 0.25, "--delta", 1)
    found = answer(call(*words, "--json"))
    assert found["v_latency"] == pytest.approx(0.5 * found["latency_s"])
    assert found["energy_dominance"] == pytest.approx(found["v_energy"] / found["v_latency"])
    assert found["latency_dominance"] == pytest.approx(1 / found["energy_dominance"])
    scaled = answer(call(*words, "--normalise", "--json"))
    assert (scaled["v_latency"], scaled["v_energy"]) == pytest.approx((0.5, 0.25))
    assert "dominance" in call(*words)[1]


def test_optimise(call: Call, lut: Path, tmp_path: Path) -> None:
    costs = Costs.from_lut(LUT)
    found = answer(call("optimise", "--lut", lut, "--minimise", "energy", "--json"))
    assert found["optimal"] is True
    assert found["energy_j"] == pytest.approx(minimise(costs.energy_j, costs).energy_j)
    cap = minimise(costs.latency_s, costs).latency_s * 1.05
    found = answer(call("optimise", "--lut", lut, "--minimise", "energy", "--max-latency-s", cap, "--json"))
    assert found["latency_s"] <= cap
    SPACE.check_choices(tuple(found["choices"]))
    weighted = ("optimise", "--lut", lut, "--minimise", "weighted", "--weights", "1,0", "--json")
    assert answer(call(*weighted))["latency_s"] == pytest.approx(cap / 1.05)
    write_theta(tmp_path / "scores.txt", LUT.latency_s, SPACE)
    scored = ("optimise", "--lut", lut, "--scores", tmp_path / "scores.txt", "--max-latency-s", cap)
    best = minimise(-np.nan_to_num(LUT.latency_s), costs, Budgets(max_latency_s=cap))
    assert answer(call(*scored, "--json"))["score"] == pytest.approx(-best.objective)
    assert "score" in call(*scored)[1]


def test_pareto_with_its_picture(call: Call, lut: Path, tmp_path: Path) -> None:
    found = answer(call("pareto", "--lut", lut, "--output", tmp_path / "front.png", "--json"))
    latencies = [point["latency_s"] for point in found["front"]]
    assert latencies == sorted(latencies)
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    status, out, _ = call("pareto", "--lut", lut, "--output", tmp_path / "front.svg")
    assert status == 0
    assert f"{len(latencies)} architectures" in out
    assert "<svg" in (tmp_path / "front.svg").read_text()


def test_a_lut_from_a_coordinator(call: Call, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'lut.db'}"
    with closing(Store(url)) as store:
        stored = store.add_lut(LUT)
    with serving(url) as address:
        words = ("--lut", "rpi3b/sample@latest", "--minimise", "latency", "--coordinator", address, "--json")
        assert answer(call("optimise", *words))["lut"] == stored.reference
        status, _, err = call("optimise", "--lut", "rpi4", "--minimise", "latency", "--coordinator", address)
    assert status == 2
    assert "rpi3b/sample@1" in err


def test_no_coordinator_is_a_sentence(call: Call) -> None:
    status, _, err = call("pareto", "--lut", "rpi3b", "--coordinator", "127.0.0.1:1")
    assert status == 2
    assert err.startswith("nas: no coordinator answers at 127.0.0.1:1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--minimise", "energy", "--max-latency-s", "1e-9"), "the least possible latency is"),
        (("--minimise", "energy", "--max-latency-s", "0"), "the latency budget is 0; it must be above zero"),
        (("--minimise", "energy", "--max-energy-j", "nan"), "the energy budget is nan"),
        (("--minimise", "speed"), "unknown goal 'speed'"),
        (("--minimise", "weighted"), "--weights is ''; write two numbers"),
        (("--minimise", "weighted", "--weights", "1,nan"), "a weight is nan"),
        (("--minimise", "weighted", "--weights", "0,0"), "one of the two must be above zero"),
        (("--minimise", "energy", "--weights", "1,1"), "--weights belongs to"),
        ((), "say either --minimise"),
        (("--scores", "nowhere.txt"), "nowhere.txt cannot be read"),
    ],
)
def test_bad_input_is_a_sentence(call: Call, lut: Path, words: tuple[str, ...], message: str) -> None:
    status, out, err = call("optimise", "--lut", lut, *words)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not out


def test_bad_luts_thetas_and_knobs(call: Call, lut: Path, tmp_path: Path) -> None:
    theta = tmp_path / "theta.txt"
    theta.write_text("0 0 0\n")
    status, _, err = call("cost", "--lut", lut, "--theta", theta)
    assert (status, err) == (2, f"nas: {theta} has 1 lines; space sample has 4 layers, one line each\n")
    lut_of(SPACE, energy=False).save(tmp_path / "latency.lut")
    status, _, err = call("pareto", "--lut", tmp_path / "latency.lut")
    assert status == 2
    assert "holds no energy" in err
    knobs = ("--alpha", "-1", "--beta", 1, "--gamma", 1, "--delta", 1)
    assert (
        call("preview", "--lut", lut, *knobs)[2] == "nas: --alpha is -1.0; it must be a finite number, zero or more\n"
    )
    assert call("pareto", "--lut", lut, "--output", tmp_path / "front.pdf")[0] == 2
    assert call("pareto", "--lut", lut, "--output", tmp_path / "no" / "front.png")[0] == 2


def test_what_is_not_included_or_emulated_is_said(call: Call, tmp_path: Path) -> None:
    emulated = replace(LUT, configuration=replace(LUT.configuration, emulation="device"))
    emulated.save(tmp_path / "emulated.lut")
    assert "emulated: device" in call("pareto", "--lut", tmp_path / "emulated.lut")[1]


def test_the_module_runs(lut: Path) -> None:
    command = [sys.executable, "-m", "nas", "optimise", "--lut", str(lut), "--minimise", "latency", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["optimal"] is True


@needs_tables
def test_the_figures_of_the_authors_tables(call: Call, tmp_path: Path) -> None:
    hanna_lut().save(tmp_path / "hanna.lut")
    assert not Lut.load(tmp_path / "hanna.lut").fixed_included
    found = answer(call("cost", "--lut", tmp_path / "hanna.lut", "--theta", FOLDER / "theta_model29.txt", "--json"))
    assert found["argmax"]["latency_s"] == pytest.approx(2.7080, abs=5e-5)
    assert found["argmax"]["energy_j"] == pytest.approx(2.8503, abs=5e-5)
    words = ("--minimise", "energy", "--max-latency-s", 2.54)
    found = answer(call("optimise", "--lut", tmp_path / "hanna.lut", *words, "--json"))
    assert (found["latency_s"], found["energy_j"]) == pytest.approx((2.536360, 2.017374), abs=5e-7)
    assert "stem and head are not included" in call("optimise", "--lut", tmp_path / "hanna.lut", *words)[1]
