"""The search: repeatable, resumable, with images that weights and θ never share, and costs that it lowers."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nas import run_folder
from nas.checkpoint import load_checkpoint
from nas.cli.app import main
from nas.config import SearchConfig
from nas.cost import CostTable
from nas.data import Images
from nas.search import DivergedError, Search
from nas.theta import read_theta
from protos.errors import BadInputError
from tests.lut_store.samples import lut_of, space_of

SPACE = space_of(((1, 16, 1), (2, 24, 2)), size=4)
LUT = lut_of(SPACE)
COSTS = CostTable.from_lut(LUT)


def config_of(**changes: Any) -> SearchConfig:
    values: dict[str, Any] = {
        "epochs": 4,
        "warmup_epochs": 1,
        "batch": 16,
        "relaxation": "single-path",
        "theta_lr": 0.1,
        "seed": 1,
    }
    return SearchConfig(**(values | changes))


def images(count: int = 40) -> Images:
    x = torch.randn(count, *SPACE.input_shape[1:], generator=torch.Generator().manual_seed(0))
    return Images(x, torch.arange(count) % 10)


def search_of(**changes: Any) -> Search:
    return Search(config_of(**changes), COSTS, images(), LUT.digest)


def nothing(_: object) -> None:
    """After an epoch."""


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, second, other = search_of(), search_of(), search_of(seed=2)
    for search in (first, second, other):
        search.run(nothing)
    assert first.done == second.done
    assert torch.equal(first.theta, second.theta)
    assert first.done != other.done


def test_resuming_gives_the_numbers_of_no_interruption(tmp_path: Path) -> None:
    whole = search_of()
    whole.run(nothing)

    class StopError(Exception):
        pass

    def stop(_: object) -> None:
        if len(interrupted.done) == 2:
            interrupted.save(tmp_path / "checkpoint.pt")
            raise StopError

    interrupted = search_of()
    with pytest.raises(StopError):
        interrupted.run(stop)
    resumed = search_of()
    resumed.resume(tmp_path / "checkpoint.pt")
    resumed.run(nothing)
    assert resumed.done == whole.done
    assert torch.equal(resumed.theta, whole.theta)


def test_weights_and_theta_never_share_an_image() -> None:
    search = search_of()
    ours = {tuple(x.flatten()[:8].tolist()) for x in search.weight_images.x}
    theirs = {tuple(x.flatten()[:8].tolist()) for x in search.theta_images.x}
    assert (len(ours), len(theirs)) == (32, 8)
    assert not ours & theirs


def test_theta_rests_in_warm_up() -> None:
    search = search_of(epochs=2, warmup_epochs=2)
    before = {name: value.clone() for name, value in search.supernet.state_dict().items()}
    search.run(nothing)
    assert (search.theta == 1.0).all()
    assert any(not torch.equal(value, before[name]) for name, value in search.supernet.state_dict().items())
    assert search.done[0].theta_loss is None
    assert search.done[0].expected_energy_j == pytest.approx(COSTS.uniform()[1], rel=1e-6)


@pytest.mark.parametrize(("knob", "name"), [("gamma", "expected_energy_j"), ("alpha", "expected_latency_s")])
def test_a_heavy_cost_falls(knob: str, name: str) -> None:
    knobs = {"alpha": 0.0, "beta": 1.0, "gamma": 0.0, "delta": 1.0} | {knob: 50.0}
    search = search_of(epochs=12, knobs=knobs, normalise=True, theta_decay=0.0)
    search.run(nothing)
    assert getattr(search.done[-1], name) < 0.9 * getattr(search.done[0], name)
    SPACE.check_choices(search.choices)


@pytest.mark.parametrize("relaxation", ["mixture", "two-path"])
def test_other_relaxations_run(relaxation: str) -> None:
    search = search_of(relaxation=relaxation, epochs=2)
    search.run(nothing)
    assert (search.theta != 1.0).any()


def test_a_loss_that_is_nan_says_where() -> None:
    bad = images()
    bad.x[:] = float("inf")
    search = Search(config_of(), COSTS, bad, LUT.digest)
    with pytest.raises(DivergedError, match=r"the loss is nan at epoch 0, step 0 of the weights.*no checkpoint yet"):
        search.run(nothing)


def test_a_diverged_search_names_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    LUT.save(tmp_path / "sample.lut")
    words: list[object] = ["search", "--lut", tmp_path / "sample.lut", "--output", tmp_path / "run"]
    # The first epoch stays finite by a batch of all images; then the rate throws the weights out.
    settings = "epochs=8 warmup_epochs=8 relaxation=single-path samples=60 batch=60 weight_lr=1e4 clip_norm=0"
    for setting in settings.split():
        words += ["--set", setting]
    assert call(monkeypatch, *words) == 2
    err = capsys.readouterr().err
    number = len(load_epochs(tmp_path / "run")) - 1
    assert f"at epoch {number + 1}, step 0 of the weights: cross entropy" in err
    assert f"the checkpoint of epoch {number} is good" in err
    assert str(tmp_path / "run" / run_folder.CHECKPOINT) in err
    load_checkpoint(tmp_path / "run" / run_folder.CHECKPOINT, settings_digest(tmp_path / "run"), LUT.digest)


def load_epochs(folder: Path) -> list[dict[str, str]]:
    with (folder / run_folder.EPOCHS).open() as file:
        return list(csv.DictReader(file))


def settings_digest(folder: Path) -> str:
    return SearchConfig(**json.loads((folder / run_folder.SETTINGS).read_text())["settings"]).digest


def test_a_batch_that_does_not_fit_names_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    LUT.save(tmp_path / "sample.lut")
    words: list[object] = ["search", "--lut", tmp_path / "sample.lut", "--output", tmp_path / "run"]
    for setting in ("epochs=1", "warmup_epochs=1", "samples=60"):
        words += ["--set", setting]
    assert call(monkeypatch, *words, "--set", "batch=1000000000") == 2
    err = capsys.readouterr().err
    found = re.search(r"^nas: a step with 1000000000 images needs about .* a batch of (\d+) would fit", err)
    assert found, err
    assert not (tmp_path / "run").exists()
    assert call(monkeypatch, *words, "--set", "device=tpu") == 2
    assert "unknown device 'tpu'; this machine has auto, cpu" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["amp", "channels_last"])
def test_options_of_speed_repeat_themselves(setting: str) -> None:
    first, second = (search_of(epochs=2, **{setting: True}) for _ in range(2))
    for search in (first, second):
        search.run(nothing)
    assert first.done == second.done
    usual = search_of(epochs=2)
    usual.run(nothing)
    assert first.done[-1].weight_ce == pytest.approx(usual.done[-1].weight_ce, rel=0.05)


def test_losses_that_do_not_fit() -> None:
    with pytest.raises(BadInputError, match="normalise is for the loss hanna"):
        search_of(loss="hinge", knobs={"max_energy_j": 1.0}, normalise=True)
    with pytest.raises(BadInputError, match="needs ref_latency_s"):
        search_of(loss="proxyless")


def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    search_of().save(path)
    with pytest.raises(BadInputError, match="of a search with other settings"):
        search_of(seed=9).resume(path)
    with pytest.raises(BadInputError, match="of a search on another LUT"):
        Search(config_of(), COSTS, images(), "0" * 64).resume(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInputError, match="is no checkpoint, or is damaged"):
        search_of().resume(path)
    with pytest.raises(BadInputError, match="there is no checkpoint"):
        search_of().resume(tmp_path / "nowhere.pt")


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["nas", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_commands_from_search_to_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    LUT.save(tmp_path / "sample.lut")
    words = ["search", "--lut", tmp_path / "sample.lut", "--output", tmp_path / "run", "--json"]
    for setting in ("epochs=2", "warmup_epochs=1", "relaxation=single-path", "samples=60", "batch=32"):
        words += ["--set", setting]
    assert call(monkeypatch, *words) == 0
    found = json.loads(capsys.readouterr().out)
    SPACE.check_choices(tuple(found["child"]["choices"]))
    with (tmp_path / "run" / run_folder.EPOCHS).open() as file:
        assert len(list(csv.DictReader(file))) == 2
    settings = json.loads((tmp_path / "run" / run_folder.SETTINGS).read_text())
    assert settings["lut_digest"] == LUT.digest

    assert call(monkeypatch, *words) == 2
    assert "holds a search already" in capsys.readouterr().err
    assert call(monkeypatch, *words, "--resume") == 0
    assert json.loads(capsys.readouterr().out) == found

    theta = tmp_path / "run" / run_folder.THETA
    derive = ["derive", "--lut", tmp_path / "run" / run_folder.LUT, "--theta", theta, "--json"]
    assert call(monkeypatch, *derive) == 0
    assert json.loads(capsys.readouterr().out)["children"] == [found["child"]]
    assert call(monkeypatch, *derive, "--samples", 5, "--output", tmp_path / "children.json") == 0
    children = json.loads((tmp_path / "children.json").read_text())["children"]
    assert len(children) == 5
    for child in children:
        SPACE.check_choices(tuple(child["choices"]))
    capsys.readouterr()
    assert call(monkeypatch, *derive, "--output", tmp_path / "children.json") == 2
    assert "is there already" in capsys.readouterr().err
    assert read_theta(theta, SPACE).shape == SPACE.shape


def test_ctrl_c_keeps_every_whole_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    LUT.save(tmp_path / "sample.lut")
    words = ["search", "--lut", tmp_path / "sample.lut", "--json"]
    for setting in ("epochs=3", "warmup_epochs=1", "relaxation=single-path", "samples=60", "batch=32"):
        words += ["--set", setting]
    assert call(monkeypatch, *words, "--output", tmp_path / "whole") == 0
    whole = json.loads(capsys.readouterr().out)
    write = run_folder.after_epoch

    def interrupted(folder: Path, search: Search) -> None:
        write(folder, search)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "after_epoch", interrupted)
        assert call(patch, *words, "--output", tmp_path / "run") == 130
    assert "1 epochs are in" in capsys.readouterr().err
    assert call(monkeypatch, *words, "--output", tmp_path / "run", "--resume") == 0
    assert json.loads(capsys.readouterr().out)["child"] == whole["child"]
    for name in (run_folder.EPOCHS, run_folder.THETA):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
