"""The baselines against the numbers of their papers, and as modules that compute what their papers say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 — everybody calls it F

from coordinator.plan import make_run
from nas.baseline_rows import baseline_rows
from nas.baselines import baseline, baselines, condensenet, mobilenet_v2
from nas.blocks import DenseLayer, build_block, build_network
from nas.opstats import macs, parameters
from nas.space import load_space
from protos.errors import BadInputError
from protos.types import BlockSpec, SearchSpace
from tests.lut_store.samples import lut_of

IMAGENET = mobilenet_v2("imagenet", 224, 1000, stem_stride=2, strides=(2, 2, 2, 1, 2, 1))


def specs_of(space: SearchSpace) -> list[BlockSpec]:
    return [*space.stem, *(c.spec for layer in space.layers for c in layer.cells if c.spec), *space.head]


def test_mobilenet_v2_has_the_published_size() -> None:
    specs = specs_of(IMAGENET)
    assert sum(map(parameters, specs)) == 3_504_872  # of the reference implementations; the paper says 3.4 million
    assert sum(map(macs, specs)) / 1e6 == pytest.approx(300, rel=0.01)
    own = specs_of(baseline("mobilenetv2-cifar10"))
    assert sum(map(parameters, own)) == 3_504_872 - 1281 * 990
    assert own[-1].input_height == 4


def test_condensenet_74_has_the_published_size() -> None:
    specs = specs_of(baseline("condensenet74-cifar10"))
    assert sum(map(parameters, specs)) == 405_466 + 16  # the authors' stem has no bias; they say 0.41 million
    convolutions = sum(map(macs, specs)) / 1e6
    assert convolutions == pytest.approx(49.2, abs=0.05)
    # Their program also counts one operation for each number that an activation reads, and those of the pools.
    elements = 0
    for spec in specs:
        size = spec.input_height * spec.input_width
        hidden = (spec.out_channels - spec.in_channels) * spec.expansion
        if spec.kind == "dense":
            elements += (spec.in_channels + hidden) * size
        elif spec.kind in ("norm", "pool", "pool_linear"):
            elements += spec.in_channels * size
    assert convolutions + elements / 1e6 == pytest.approx(51.9, abs=0.05)
    dense = [spec for spec in specs if spec.kind == "dense"]
    assert 2 * len(dense) + 2 == 74  # two convolutions each, the stem and the classifier
    assert dense[-1].out_channels == 688


@pytest.mark.parametrize(
    ("stages", "millions"), [((14, 14, 14), 0.52), ((16, 16, 16), 0.65), ((18, 18, 18), 0.79), ((20, 20, 20), 0.95)]
)
def test_so_have_its_larger_relatives(stages: tuple[int, ...], millions: float) -> None:
    total = sum(map(parameters, specs_of(condensenet("other", 10, stages, (8, 16, 32)))))
    assert total / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("name", baselines())
def test_a_baseline_is_a_space_of_one_network(name: str) -> None:
    space = load_space(name)
    assert space == baseline(name)
    network = build_network(space, (0,) * len(space.layers))
    assert sum(p.numel() for p in network.parameters()) == sum(map(parameters, specs_of(space)))
    with torch.inference_mode():
        assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    run = make_run(space, "rpi3b", preset="quick", seed=1)
    assert [n.role for n in run.networks] == ["validation"]
    assert sum(len(item.cells) for item in run.items) == len(specs_of(space))


def test_a_dense_layer_computes_what_the_paper_says() -> None:
    torch.manual_seed(0)
    spec = BlockSpec("dense", 16, 24, 3, expansion=4, groups=4, norm="batch", input_height=6, input_width=5, batch=2)
    module = build_block(spec)
    assert isinstance(module, DenseLayer)
    for norm in (module.norm1, module.norm2):
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(2, 16, 6, 5)
    before = x.clone()
    index = module.index.tolist()
    assert all(len(set(index[g * 4 : g * 4 + 4])) == 4 for g in range(4))
    with torch.inference_mode():
        y = module(x)
        groups = []
        for g in range(4):  # each group by itself
            own = F.relu(module.norm1(x[:, index]))[:, g * 4 : g * 4 + 4]  # type: ignore[misc]
            groups.append(F.conv2d(own, module.conv1.weight[g * 8 : g * 8 + 8]))
        wide = torch.stack(groups, 2).flatten(1, 2)  # shuffled: channel 0 of each group first
        new = F.conv2d(F.relu(module.norm2(wide)), module.conv2.weight, padding=1, groups=4)  # type: ignore[misc]
    assert torch.equal(x, before)
    assert torch.equal(y[:, :16], x)
    assert torch.allclose(y[:, 16:], new, atol=1e-5)


def test_pool_and_norm() -> None:
    pool = build_block(BlockSpec("pool", 4, 4, stride=2, input_height=5, input_width=6))
    x = torch.randn(1, 4, 5, 6)
    assert pool is not None
    y = pool(x)
    assert y.shape == (1, 4, 3, 3)
    assert torch.allclose(y[:, :, :2], F.avg_pool2d(x, 2))
    norm = build_block(BlockSpec("norm", 4, 4, norm="batch", input_height=5, input_width=6))
    assert norm is not None
    before = x.clone()
    assert float(norm(x).detach().min()) >= 0
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"kind": "dense", "in_channels": 8, "out_channels": 8}, "a dense layer adds channels"),
        ({"kind": "dense", "in_channels": 8, "out_channels": 16, "stride": 2}, "a dense layer adds channels"),
        ({"kind": "pool", "in_channels": 8, "out_channels": 4}, "a pool cannot change the channels"),
        ({"kind": "norm", "in_channels": 8, "out_channels": 8, "stride": 2, "norm": "batch"}, "or the resolution"),
        ({"kind": "norm", "in_channels": 8, "out_channels": 8}, "a norm needs a norm"),
    ],
)
def test_what_such_operators_cannot_be(spec: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        BlockSpec(**spec)  # type: ignore[arg-type]


def test_a_baselines_name_is_not_for_other_operators(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="mobilenetv2-cifar10"):
        load_space("mobilenet-cifar10")
    path = tmp_path / "own.toml"
    path.write_text(
        'name = "mobilenetv2-cifar10"\ninput = { channels = 3, height = 8, width = 8 }\n'
        "stages = [{ channels = 8 }]\n[candidates]\na = { kernel = 3 }\n"
    )
    with pytest.raises(BadInputError, match="is a built-in space"):
        load_space(path)


def test_rows_of_the_table() -> None:
    space = baseline("mobilenetv2-cifar10")
    measured = {"networks": [{"choices": [0] * len(space.layers), "measured": 0.5}]}
    lut = replace(lut_of(space, flags={}), validation={"latency": measured, "energy": {"networks": []}})
    first, second = baseline_rows({space.name: lut}, {"condensenet74-cifar10": 0.9})
    assert (first.accuracy, second.accuracy) == (None, 0.9)
    assert (first.title, second.title) == ("MobileNetV2", "CondenseNet-74")
    assert first.whole_latency_s == 0.5
    assert first.sum_latency_s == pytest.approx(float(lut.predict([[0] * len(space.layers)])[0, 0]))
    assert (first.whole_energy_j, second.whole_latency_s, second.sum_energy_j) == (None, None, None)
    assert second.macs == sum(map(macs, specs_of(baseline("condensenet74-cifar10"))))
