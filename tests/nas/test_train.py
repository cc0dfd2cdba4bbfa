"""Training a child: repeatable, resumable, stopped by a sentence, and what its folder and its exports hold."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from nas import train_folder
from nas.blocks import build_network
from nas.child import Child, child_of, from_document, only_child, read_choices
from nas.config import load_settings
from nas.data import Dataset, Images, load_dataset
from nas.export import export
from nas.git_state import git_state
from nas.search import DivergedError
from nas.train import TrainConfig, Training, augmented, evaluate, flush_subnormals, wilson
from protos.errors import BadInputError
from protos.types import SearchSpace
from tests.lut_store.samples import lut_of, space_of

SPACE = space_of(((1, 16, 1), (1, 24, 2)), size=4)  # takes 3 × 8 × 8
LUT = lut_of(SPACE)
CHILD = child_of(LUT, (2, 4))
CONFIG = TrainConfig(data="synthetic", samples=128, epochs=3, batch=32, lr=0.05, device="cpu")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(CONFIG.source, SPACE)


@pytest.fixture(scope="module")
def folder(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole training."""
    path = Path(tmp_path_factory.mktemp("training")) / "child"
    job = Training(CONFIG, CHILD, data)
    train_folder.begin(path, CONFIG, CHILD, data, LUT, resume=False)
    job.run(lambda _: train_folder.after_epoch(path, job))
    train_folder.finish(path, job, evaluate(job.network, data.test, job.device, activations=True))
    return path


def test_it_learns_and_the_same_seed_gives_the_same_numbers(data: Dataset) -> None:
    runs = []
    for seed in (0, 0, 1):
        job = Training(replace(CONFIG, seed=seed, epochs=6), CHILD, data)
        job.run(lambda _: None)
        runs.append(job)
    assert runs[0].done == runs[1].done
    assert runs[0].done != runs[2].done
    assert runs[0].done[-1].train_ce < runs[0].done[0].train_ce
    assert [epoch.lr for epoch in runs[0].done] == sorted((epoch.lr for epoch in runs[0].done), reverse=True)


def test_a_training_that_is_resumed_gives_the_numbers_of_one_that_was_not(
    data: Dataset, folder: Path, tmp_path: Path
) -> None:
    job = Training(CONFIG, CHILD, data)

    def stop(_epoch: object) -> None:
        job.save(tmp_path / "half.pt")
        if len(job.done) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(stop)
    again = Training(CONFIG, CHILD, data)
    again.resume(tmp_path / "half.pt")
    again.run(lambda _: None)
    whole = train_folder.read(folder)
    assert tuple(again.done) == whole.epochs
    for mine, other in zip(again.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_checkpoints_of_other_settings_and_networks_are_refused(data: Dataset, folder: Path) -> None:
    checkpoint = folder / train_folder.CHECKPOINT
    with pytest.raises(BadInputError, match="is of a training with other settings"):
        Training(replace(CONFIG, lr=0.01), CHILD, data).resume(checkpoint)
    with pytest.raises(BadInputError, match="is of a training of another network"):
        Training(CONFIG, child_of(LUT, (2, 5)), data).resume(checkpoint)
    with pytest.raises(BadInputError, match="there is no checkpoint"):
        Training(CONFIG, CHILD, data).resume(folder / "other.pt")


def test_a_loss_that_is_nan_stops_with_step_terms_and_checkpoint(data: Dataset) -> None:
    broken = Images(data.train.x.clone(), data.train.y)
    broken.x[100] = math.nan
    job = Training(CONFIG, CHILD, replace(data, train=broken))
    with pytest.raises(DivergedError, match=r"epoch 0, step \d: cross entropy nan.*there is no checkpoint yet"):
        job.run(lambda _: None)
    job = Training(CONFIG, CHILD, data)

    def breaks(_epoch: object) -> None:
        job.data = replace(data, train=broken)

    with pytest.raises(DivergedError, match=r"epoch 1, .*the checkpoint of epoch 0 is good; try a smaller lr"):
        job.run(breaks)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lr=-1"], "lr is -1.0; it must be a finite number"),
        (["lr=nan"], "lr is nan"),
        (["epochs=0"], "epochs is 0; it must be above zero"),
        (["augment=mirror"], "unknown augment 'mirror'"),
        (["data=cifar"], "unknown data 'cifar'"),
        (["momentum=1"], "momentum is 1.0; it must be below 1"),
        (["warmup_epochs=120"], "must be less than the 120 epochs"),
        (["learning_rate=1"], "unknown setting 'learning_rate'"),
        (["knobs.alpha=1"], "unknown setting"),
    ],
)
def test_settings_that_cannot_be(words: list[str], says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        load_settings(TrainConfig, None, words)


def test_the_rate_rises_then_follows_a_cosine() -> None:
    config = TrainConfig(epochs=10, warmup_epochs=2, lr=0.3)
    rates = [config.lr_at(epoch) for epoch in range(10)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] > 0


def test_augmented_images_are_the_same_for_the_same_generator() -> None:
    x = torch.randn(8, 3, 8, 8)
    one, two = (augmented(x, "shift-flip", torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, x)
    assert torch.equal(augmented(x, "none", torch.Generator()), x)
    assert TrainConfig(data="cifar10").augmentation == "shift-flip"
    assert TrainConfig(data="digits").augmentation == "shift"


def test_subnormal_weights_become_zero_and_activations_are_counted() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1e-40, 0.5]).reshape(2, 1, 1, 1))
        network[0].bias.copy_(torch.tensor([1e-39, 0.0]))
    images = Images(torch.ones(3, 1, 2, 2), torch.zeros(3, dtype=torch.long))
    head = nn.Sequential(network, nn.Flatten())
    assert evaluate(head, images, torch.device("cpu"), activations=True).subnormal == pytest.approx(0.5)
    assert flush_subnormals(network) == 2
    assert float(network[0].weight.detach()[0]) == 0.0
    assert evaluate(head, images, torch.device("cpu"), activations=True).subnormal == 0.0


def test_the_interval_of_an_accuracy() -> None:
    lo, hi = wilson(90, 100)
    assert (lo, hi) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0


# ---- folders and exports ---------------------------------------------------------------------------------------------


def test_the_folder_holds_what_repeats_it(folder: Path) -> None:
    settings = json.loads((folder / train_folder.SETTINGS).read_text())
    assert TrainConfig(**settings["settings"]) == CONFIG
    assert settings["lut_digest"] == LUT.digest
    assert settings["git"] == git_state()
    assert settings["images"]["train"] == 128
    found = train_folder.read(folder)
    assert found.child == CHILD
    assert len(found.epochs) == 3
    result = json.loads((folder / train_folder.RESULT).read_text())
    assert result["test"]["accuracy"] == found.epochs[-1].test_accuracy
    assert result["latency_s"] == pytest.approx(float(LUT.predict([[2, 4]])[0, 0]))
    assert (folder / train_folder.EPOCHS).read_text().count("\n") == 4


def test_a_folder_is_not_overwritten_and_a_damaged_one_is_named(data: Dataset, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="holds a training already"):
        train_folder.begin(folder, CONFIG, CHILD, data, LUT, resume=False)
    with pytest.raises(BadInputError, match="holds no training"):
        train_folder.read(tmp_path)
    for name, text, says in (
        (train_folder.SETTINGS, "{", "cannot be read, or is damaged"),
        (train_folder.SETTINGS, "{}", "is not of this version"),
        (train_folder.NETWORK, "[]", "holds no record"),
        (train_folder.NETWORK, '{"space": 3, "choices": []}', "must be an object"),
        (train_folder.CHECKPOINT, "no checkpoint", "is no checkpoint, or is damaged"),
    ):
        copy = tmp_path / f"{name}-{len(text)}"
        copy.mkdir()
        for file in folder.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        (copy / name).write_text(text)
        with pytest.raises(BadInputError, match=says):
            train_folder.read(copy)


def test_the_state_dict_is_read_by_torch_alone(folder: Path, tmp_path: Path) -> None:
    trained = train_folder.read(folder)
    export(trained, tmp_path / "child.pt")
    document = torch.load(tmp_path / "child.pt", weights_only=True)
    network = build_network(SPACE, document["choices"])
    network.load_state_dict(document["state_dict"])
    x = torch.randn(SPACE.input_shape)
    with torch.inference_mode():
        assert torch.equal(network(x), trained.network(x))


@pytest.mark.filterwarnings("ignore")  # of the exporter's own libraries
def test_the_onnx_model_computes_what_the_network_does(folder: Path, tmp_path: Path) -> None:
    trained = train_folder.read(folder)
    assert export(trained, tmp_path / "child.onnx")["checked"] == "onnx.checker, onnxruntime"
    session = onnxruntime.InferenceSession(tmp_path / "child.onnx", providers=["CPUExecutionProvider"])
    x = torch.randn(5, 3, 8, 8)
    (logits,) = session.run(None, {"images": x.numpy()})
    with torch.inference_mode():
        assert np.allclose(logits, trained.network(x).numpy(), atol=1e-4)
    assert "mean" in session.get_modelmeta().custom_metadata_map


def test_exports_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    trained = train_folder.read(folder)
    (tmp_path / "there.pt").write_text("mine")
    for name, says in (
        ("a.tflite", "must be .pt or .onnx"),
        ("there.pt", "is there already"),
        ("no/a.pt", "no folder"),
    ):
        with pytest.raises(BadInputError, match=says):
            export(trained, tmp_path / name)
    assert (tmp_path / "there.pt").read_text() == "mine"


# ---- files that name children ----------------------------------------------------------------------------------------


def test_files_that_name_children(tmp_path: Path) -> None:
    path = tmp_path / "child.json"
    own = {"choices": [2, 4], "space_digest": SPACE.digest}
    for document in (own, {"children": [{"choices": [1, 1]}, own]}, {"child": own}, {"front": [own, own]}):
        path.write_text(json.dumps(document))
        assert read_choices(path, SPACE, 1 if "children" in document else 0) == (2, 4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "names no child"),
        ("{}", 'has no "choices"'),
        ('{"choices": [2, 4.0]}', 'has no "choices"'),
        ('{"choices": [2]}', "1 choices for 2 layers"),
        ('{"choices": [2, 8]}', "skip is not allowed"),
        ('{"choices": [2, 4], "space": "other", "space_digest": "0"}', "is of another space"),
        ('{"children": []}', "names no child network"),
    ],
)
def test_files_that_name_none(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "child.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match=says):
        read_choices(path, SPACE)


def test_a_number_that_the_file_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "child.json").write_text('{"choices": [2, 4]}')
    with pytest.raises(BadInputError, match="names 1 child networks; there is no number 3"):
        read_choices(tmp_path / "child.json", SPACE, 3)


def test_a_child_is_read_back_from_its_record() -> None:
    assert from_document(json.loads(json.dumps(CHILD.document())), "a record") == CHILD
    assert len(CHILD.specs) == 5
    with pytest.raises(BadInputError, match="has many architectures: name one with --child"):
        only_child(SPACE)
    bare = SearchSpace("bare", SPACE.op_names, SPACE.layers[:1])
    assert Child(bare, (0,)).digest != Child(SPACE, (0, 0)).digest
