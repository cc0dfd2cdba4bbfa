"""Sweeps: resumable, trials that fail alone, and the report of what they found."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas import run_folder, sweep
from nas.cli.app import main
from nas.config import SearchConfig, load_config
from nas.grid import Knobs, Setting, hanna30
from nas.report import Result, agreement, chosen, hypervolume, on_front, spearman
from tests.lut_store.samples import lut_of, random_choices, space_of

SPACE = space_of(((1, 16, 1), (1, 24, 2)), size=4)
LUT = lut_of(SPACE)
Call = Callable[..., tuple[int, str, str]]
GRID = "alpha,beta,gamma,delta\n0.1,1,1,1\n1,1,0.1,1\n"
WORDS = (
    "--set",
    "data=synthetic",
    "--set",
    "epochs=2",
    "--set",
    "warmup_epochs=1",
    "--set",
    "relaxation=single-path",
    "--set",
    "samples=50",
)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `nas` with these words; status, stdout, stderr."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the trials' processes

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def make(tmp_path: Path) -> tuple[object, ...]:
    """The words of a sweep of two trials."""
    LUT.save(tmp_path / "sample.lut")
    (tmp_path / "grid.csv").write_text(GRID)
    lut, grid, output = tmp_path / "sample.lut", tmp_path / "grid.csv", tmp_path / "sweep"
    return ("sweep", "--lut", lut, "--grid", grid, "--output", output, *WORDS)


@pytest.mark.slow
def test_a_sweep_whose_trial_fails_goes_on_and_is_reported(call: Call, tmp_path: Path) -> None:
    words = make(tmp_path)
    # A trial that cannot end: its checkpoint's place is taken by a folder.
    broken = tmp_path / "sweep" / "trials" / "02" / run_folder.CHECKPOINT
    broken.mkdir(parents=True)
    status, out, err = call(*words, "--jobs", 2)
    assert status == 1, err
    assert "trial 2 failed: exit status 2: nas:" in err
    assert "failed" in out
    trials = sweep.trials_of(tmp_path / "sweep")
    assert [trial.done for trial in trials] == [True, False]
    assert trials[1].failure

    assert call(*words)[0] == 2  # it holds a sweep already
    status, _, err = call(*words, "--set", "epochs=3", "--resume")
    assert (status, err.splitlines()[-1].endswith("go on with the same, or name another folder")) == (2, True)

    status, out, _ = call("report", tmp_path / "sweep", "--json")
    assert (status, json.loads(out)["missing"][0]["trial"]) == (0, 2)

    before = (trials[0].folder / run_folder.CHILD).stat().st_mtime_ns
    broken.rmdir()
    status, out, err = call(*words, "--resume", "--json")
    assert status == 0, err
    assert [entry["failure"] for entry in json.loads(out)["trials"]] == ["", ""]
    assert (trials[0].folder / run_folder.CHILD).stat().st_mtime_ns == before

    status, out, err = call("report", tmp_path / "sweep")
    assert status == 0, err
    check_report(tmp_path / "sweep" / "report")
    assert "MobileNetV2" in out


def check_report(folder: Path) -> None:
    for stem in ("fig6", "fig7", "fig8", "fig9", "fig10"):
        assert (folder / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / f"{stem}.svg").read_text()
    with (folder / "trials.csv").open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["1", "2"]
    with (folder / "table2.csv").open() as file:
        names = [row["network"] for row in csv.DictReader(file)]
    assert names[:2] == ["MobileNetV2", "CondenseNet-74"]
    assert names[2].startswith("HANNA (trial ")
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 5
    assert "Table 2" in page
    record = json.loads((folder / "report.json").read_text())
    assert record["summary"]["lut_digest"] == LUT.digest


@pytest.mark.slow
def test_a_trial_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    config = SearchConfig(data="synthetic", epochs=30, warmup_epochs=1, relaxation="single-path", samples=50)
    seen = [Setting(Knobs(1.0, 1.0, 1.0, 1.0), 1.0, 1.0)]
    (trial,) = sweep.begin(tmp_path / "sweep", LUT, config, seen, resume=False)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(trial.command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not (trial.folder / run_folder.CHECKPOINT).exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    if process.returncode == 0:  # it was faster than the signal
        return
    assert process.returncode == 130, err
    assert "go on with the same command and --resume" in err
    assert "--resume" in trial.command
    assert sweep.perform(trial) == ""
    assert trial.done
    assert not trial.failure
    with (trial.folder / run_folder.EPOCHS).open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(30))


def test_each_trial_has_its_settings(tmp_path: Path) -> None:
    settings = SearchConfig(normalise=True)
    seen = [Setting(knobs, 1.0, 2.0) for knobs in hanna30()]
    trials = sweep.begin(tmp_path / "sweep", LUT, settings, seen, resume=False)
    assert len(trials) == 30
    for trial, setting in zip(trials, seen, strict=True):
        config = load_config(trial.folder / sweep.TOML)
        assert config.knobs == vars(setting.knobs)
        assert config.normalise


def test_settings_survive_a_file(tmp_path: Path) -> None:
    config = SearchConfig(knobs={"alpha": 1e-7, "beta": 2.0}, data_folder='a "quoted" föhn\\', weight_lr=0.05, amp=True)
    (tmp_path / "search.toml").write_text(sweep.to_toml(config))
    assert load_config(tmp_path / "search.toml") == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--engine", "cloud"), "unknown engine 'cloud' (known: local, ray)"),
        (("--ray-address", "auto"), "--ray-address belongs to --engine ray"),
        (("--train-set", "epochs=3"), "--train-set belongs to --train"),
        (("--train", "--train-set", "epoch=3"), "unknown setting 'epoch'"),
        (("--set", "loss=hinge", "--set", "knobs.max_energy_j=1"), "a sweep sets the knobs of the loss hanna itself"),
        (("--set", "knobs.alpha=1"), "a sweep sets the knobs"),
        (("--grid", "hanna"), "unknown grid 'hanna'"),
        (("--resume",), "there is no sweep in"),
    ],
)
def test_bad_input(call: Call, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    status, _, err = call(*make(tmp_path), *words)
    assert (status, message in err, err.count("\n")) == (2, True, 1), err
    assert not (tmp_path / "sweep").exists()


def test_reports_of_nothing(call: Call, tmp_path: Path) -> None:
    status, _, err = call("report", tmp_path)
    assert (status, "sweep.json cannot be read" in err) == (2, True)
    (tmp_path / sweep.SWEEP).write_text("{}")
    status, _, err = call("report", tmp_path)
    assert (status, "is damaged" in err) == (2, True)
    (tmp_path / sweep.SWEEP).write_text('{"trials": [{"alpha": 1, "beta": 1, "gamma": 1, "delta": 1}]}')
    status, _, err = call("report", tmp_path)
    assert (status, "no search of the sweep" in err) == (2, True)
    LUT.save(tmp_path / "sample.lut")
    status, _, err = call("report", tmp_path, "--baseline", tmp_path / "sample.lut")
    assert (status, "is no baseline" in err) == (2, True)


# ---- what follows from results ---------------------------------------------------------------------------------------


def result(number: int, latency_s: float, energy_j: float, accuracy: float | None = None) -> Result:
    setting = Setting(Knobs(1.0, 1.0, 1.0, 1.0), 1.0, 2.0)
    choices = tuple(random_choices(SPACE, 1)[0].tolist())
    return Result(number, setting, choices, latency_s, energy_j, None, accuracy, None, None, ())


def test_the_chosen_trial_is_the_most_accurate_of_the_cheap_ones() -> None:
    results = [result(1, 1.0, 1.14, 0.8), result(2, 1.1, 1.0, 0.9), result(3, 1.2, 1.0, 0.99), result(4, 3.0, 3.0, 1.0)]
    assert chosen(results).number == 2
    # None is within 15 % of both: the one whose larger excess is least.
    assert chosen([result(1, 1.0, 2.0, 0.9), result(2, 1.5, 1.0, 0.1), result(3, 2.0, 1.1, 0.9)]).number == 2


def test_the_hypervolume_of_points_known_by_hand() -> None:
    points = np.array([[1.0, 3.0], [2.0, 1.0], [2.5, 2.5], [5.0, 0.5]])
    assert hypervolume(points, (4.0, 4.0)) == pytest.approx(3 * 1 + 2 * 2)
    assert on_front(points) == [0, 1, 3]
    assert hypervolume(np.array([[5.0, 5.0]]), (4.0, 4.0)) == 0.0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_hypervolume_is_the_count_of_dominated_squares(points: list[tuple[int, int]]) -> None:
    squares = sum(any(x <= i and y <= j for x, y in points) for i in range(8) for j in range(8))
    assert hypervolume(np.array(points, np.float64), (8.0, 8.0)) == squares


def test_agreement_of_predictions() -> None:
    measured = np.array([1.0, 2.0, 3.0, 4.0])
    found = agreement(measured * 1.01, measured)
    assert (found.n, found.rho) == (4, pytest.approx(1.0))
    assert (found.bias, found.mape, found.worst) == pytest.approx((0.01, 0.01, 0.01))
    assert np.isnan(agreement(measured[:2], measured[:2]).rho)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([3.0, 3.0, 4.0])) == pytest.approx(1.0)
