"""`nas train`, `evaluate`, `export`, `measure` and `baselines` as a user calls them, bad input above all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.embedded import serving
from lut_store.lut import Lut
from nas import train_folder
from nas.baselines import baseline
from nas.cli.app import main
from nas.train import DivergedError, Training
from tests.lut_store.samples import lut_of, space_of

SPACE = space_of(((1, 16, 1), (1, 24, 2)), size=4)
SETTINGS = tuple(
    word for s in ("data=synthetic", "samples=64", "epochs=2", "lr=0.01", "device=cpu") for word in ("--set", s)
)
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run `nas` with these words in a folder of its own; status, stdout, stderr."""
    monkeypatch.delenv("EDGELUT_COORDINATOR", raising=False)
    monkeypatch.chdir(tmp_path)
    lut_of(SPACE).save(tmp_path / "pi.lut")
    (tmp_path / "child.json").write_text('{"choices": [2, 4]}')

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_train_evaluate_export(call: Call, tmp_path: Path) -> None:
    words = ("train", "--lut", "pi.lut", "--child", "child.json", "--output", "run", *SETTINGS)
    status, out, err = call(*words, "--json")
    assert status == 0, err
    record = json.loads(out)
    assert record["choices"] == [2, 4]
    assert Lut.load(tmp_path / "run" / "lut.lut").digest == record["lut_digest"]
    found = json.loads(call("evaluate", "--run", "run", "--json")[1])
    assert (found["accuracy"], found["images"]) == (record["test"]["accuracy"], 400)
    assert "accuracy" in call("evaluate", "--run", "run")[1]
    status, out, err = call("export", "--run", "run", "--output", "child.pt")
    assert status == 0, err
    assert "child.pt" in out
    status, _, err = call(*words)
    assert (status, "holds a training already" in err) == (2, True)
    status, out, _ = call(*words, "--resume")
    assert status == 0
    assert "nas export --run run" in out


def test_interrupted_then_resumed(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ("train", "--lut", "pi.lut", "--child", "child.json", "--output", "run", *SETTINGS)
    whole = Training._epoch

    def interrupted(self: Training, number: int) -> object:
        if number == 1:
            raise KeyboardInterrupt
        return whole(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_epoch", interrupted)
        status, _, err = call(*words)
    assert status == 130
    assert "1 epochs are in run; go on with the same command and --resume" in err
    assert "after 1 of 2 epochs" in call("evaluate", "--run", "run")[1]
    assert call(*words, "--resume")[0] == 0
    assert len(train_folder.read(tmp_path / "run").epochs) == 2


def test_a_loss_that_diverges_is_a_sentence(call: Call) -> None:
    words = ("train", "--lut", "pi.lut", "--child", "child.json", "--output", "run", *SETTINGS)
    status, _, err = call(*words, "--set", "lr=1e30")
    assert issubclass(DivergedError, Exception)
    assert status == 2
    assert "the loss is " in err
    assert "step " in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--lut", "pi.lut"), "has many architectures: name one with --child"),
        ((), "say either --lut"),
        (("--lut", "pi.lut", "--space", "fbnet-cifar10"), "say either --lut"),
        (("--lut", "pi.lut", "--child", "nowhere.json"), "nowhere.json cannot be read"),
        (("--lut", "pi.lut", "--child", "child.json", "--number", "1"), "there is no number 1"),
        (("--lut", "pi.lut", "--child", "child.json", "--set", "data=cifar10"), "holds no cifar-10-binary"),
        (("--lut", "pi.lut", "--child", "child.json", "--set", "data=folder"), "holds"),
        (("--lut", "pi.lut", "--child", "child.json", "--set", "device=tpu"), "unknown device 'tpu'"),
        (("--lut", "pi.lut", "--child", "child.json", "--set", "batch=0"), "batch is 0"),
        (("--space", "mobilenet"), "unknown space 'mobilenet'"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence(call: Call, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    status, out, err = call("train", "--output", "run", *SETTINGS[2:], *words)
    assert status == 2
    assert says in err
    assert err.count("\n") == 1
    assert not out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("evaluate", "--run", "."), "holds no training"),
        (("export", "--run", ".", "--output", "a.pt"), "holds no training"),
        (("measure", "--device", "local", "--lut", "pi.lut"), "has no agent that goes on"),
        (("measure", "--device", "rpi3b"), "say what to measure"),
        (("measure", "--device", "rpi3b", "--run", "nowhere"), "nowhere holds no training or search"),
        (("measure", "--device", "rpi3b", "--lut", "pi.lut", "--run", "nowhere"), "nowhere holds no training"),
        (("measure", "--device", "d", "--run", "a", "--child", "child.json"), "leave out --child"),
        (("measure", "--device", "rpi3b", "--lut", "pi.lut"), "has many architectures"),
        (("measure", "--device", "d", "--lut", "pi.lut", "--child", "child.json", "--output", "pi.lut"), "is there"),
        (("measure", "--device", "d", "--lut", "pi.lut", "--child", "child.json", "--preset", "x"), "unknown preset"),
        (
            ("measure", "--device", "d", "--lut", "pi.lut", "--child", "child.json", "--coordinator", "127.0.0.1:1"),
            "no coordinator answers at 127.0.0.1:1",
        ),
        (("baselines", "--lut", "pi.lut"), "pi.lut is of space sample, which is no baseline"),
    ],
)
def test_other_bad_input_is_a_sentence(call: Call, words: tuple[str, ...], says: str) -> None:
    status, out, err = call(*words)
    assert status == 2
    assert says in err
    assert err.count("\n") == 1
    assert not out


def test_a_lut_that_the_coordinator_does_not_hold_is_not_compared_with(call: Call, tmp_path: Path) -> None:
    with serving(f"sqlite:///{tmp_path / 'lut.db'}") as address:
        words = ("--lut", "pi.lut", "--child", "child.json", "--coordinator", address)
        status, _, err = call("measure", "--device", "rpi3b", *words)
    assert status == 2
    assert "does not hold this very rpi3b/sample" in err
    assert "coordinator lut import" in err


def test_baselines(call: Call, tmp_path: Path) -> None:
    lut_of(baseline("mobilenetv2-cifar10"), flags={}).save(tmp_path / "mobile.lut")
    rows = json.loads(call("baselines", "--lut", "mobile.lut", "--json")[1])["rows"]
    assert [row["title"] for row in rows] == ["MobileNetV2", "CondenseNet-74"]
    assert rows[0]["sum_latency_s"] > 0
    assert rows[1]["lut"] == ""
    assert "nowhere holds no training" in call("baselines", "--run", "nowhere")[2]
    shown = call("baselines")[1]
    assert "2,236,682" in shown
    assert "92.4%, 7.1 s, 18.24 J" in shown
