"""Search spaces: the built-in ones, and those that users write as TOML or YAML (the keys: docs/space-files.md).

A file names candidates once and stages of equal layers; `load_space` makes every layer and every BlockSpec of it.
Without torch and numpy, because the command line and other tools read spaces where neither is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nas.baselines import baseline, baselines
from nas.spaces.source import SUFFIXES, Node, read
from protos.errors import BadInputError, unknown
from protos.types import ACTIVATIONS, NORMS, SKIP, BlockSpec, Cell, Layer, SearchSpace

FOLDER = Path(__file__).with_name("spaces")
MAX_LAYERS = 1000
MAX_SIZE = 1 << 16  # of channels, pixels and repeats, so that a slip of the keyboard is caught here
MAX_KERNEL = 63
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# Where a candidate of kind "skip" may be chosen. It never may where a layer changes channels or resolution.
SKIP_RULES = (
    "after-first",  # not on the first layer of a stage, even where the shapes match: FBNet's rule, and the default
    "same-shape",  # on every layer that keeps its shape
    "never",
)
CANDIDATE_KINDS = ("mbconv", "conv", SKIP)
FIXED_KINDS = ("conv", "mbconv", "pool_linear")
_KEYS_OF_KIND = {
    "mbconv": ("kernel", "expansion", "groups", "activation", "norm"),
    "conv": ("kernel", "groups", "activation", "norm"),
    "pool_linear": (),
    SKIP: (),
}


def builtin_spaces() -> tuple[str, ...]:
    """The names of the spaces that come with edgelut."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_space(name_or_path: str | Path) -> SearchSpace:
    """The built-in space or baseline of that name, or the space of a TOML or YAML file.

    Raises BadInputError: with file, line and field for what is wrong in a file, with what there is for an unknown name.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in (*builtin_spaces(), *baselines()):
        return _builtin(name)
    if not (path.suffix.lower() in SUFFIXES or len(path.parts) > 1 or path.exists()):
        known = (*builtin_spaces(), *baselines())
        raise BadInputError(f"{unknown('space', name, known)} (or name a file: {', '.join(SUFFIXES)})")
    root = read(path)
    space = _space(root)
    if space.name in (*builtin_spaces(), *baselines()) and space.digest != _builtin(space.name).digest:
        root.entries()["name"].fail(f"{space.name!r} is a built-in space with other operators; choose another name")
    return space


@cache
def _builtin(name: str) -> SearchSpace:
    return baseline(name) if name in baselines() else _space(read(FOLDER / f"{name}.toml"))


# ---- from the tree of a file to a space -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """What flows from one operator to the next."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class _Defaults:
    """What holds for every operator that does not say otherwise."""

    batch: int
    activation: str
    norm: str


@dataclass(frozen=True)
class _Operator:
    """A BlockSpec without the numbers that depend on where it stands."""

    batch: int
    kind: str
    kernel: int
    expansion: int
    groups: int
    activation: str
    norm: str

    def at(self, where: Node, label: str, shape: _Shape, channels: int, stride: int) -> BlockSpec:
        """The operator for this input; `where` and `label` are for the message when that cannot be."""
        try:
            return BlockSpec(
                kind=self.kind,
                in_channels=shape.channels,
                out_channels=channels,
                kernel=self.kernel,
                stride=stride,
                expansion=self.expansion,
                groups=self.groups,
                activation=self.activation,
                norm=self.norm,
                input_height=shape.height,
                input_width=shape.width,
                batch=self.batch,
            )
        except ValueError as error:
            where.fail(f"{label}: {error}")


@dataclass(frozen=True)
class _Stage:
    node: Node
    channels: int
    repeats: int
    stride: int
    skip: str
    candidates: tuple[str, ...]


def _space(root: Node) -> SearchSpace:
    keys = root.table(
        ("name", "input", "candidates", "stages"), ("batch", "activation", "norm", "skip", "stem", "head")
    )
    name = keys["name"].text()
    if not _NAME.fullmatch(name):
        keys["name"].fail(f"is {name!r}; a name has letters, digits, '.', '_' and '-', at most 64 of them")
    defaults = _Defaults(
        batch=keys["batch"].whole(1, MAX_SIZE) if "batch" in keys else 1,
        activation=_chosen(keys, "activation", ACTIVATIONS, "relu"),
        norm=_chosen(keys, "norm", NORMS, "none"),
    )
    size = keys["input"].table(("channels", "height", "width"), ())
    shape = _Shape(*(size[key].whole(1, MAX_SIZE) for key in ("channels", "height", "width")))
    candidates = _candidates(keys["candidates"], defaults)
    skip = _chosen(keys, "skip", SKIP_RULES, SKIP_RULES[0])
    stages = [_stage(node, skip, candidates) for node in _listed(keys["stages"])]
    if sum(stage.repeats for stage in stages) > MAX_LAYERS:
        keys["stages"].fail(f"has more than {MAX_LAYERS} layers in all")
    stem, shape = _fixed(keys.get("stem"), defaults, shape)
    layers, shape = _layers(stages, candidates, shape)
    head, _ = _fixed(keys.get("head"), defaults, shape)
    try:
        return SearchSpace(name, tuple(candidates), tuple(layers), tuple(stem), tuple(head))
    except ValueError as error:
        root.fail(str(error))


def _listed(node: Node) -> list[Node]:
    items = node.items()
    if not items:
        node.fail("is empty; it needs at least one entry")
    return items


def _candidates(node: Node, defaults: _Defaults) -> dict[str, _Operator]:
    candidates = {}
    for name, entry in node.entries().items():
        if not _NAME.fullmatch(name):
            entry.fail(f"{name!r} is no candidate name: letters, digits, '.', '_' and '-', at most 64 of them")
        candidates[name] = _operator(entry, defaults, CANDIDATE_KINDS)
    if all(operator.kind == SKIP for operator in candidates.values()):
        node.fail("there must be a candidate that is not a skip")
    return candidates


def _operator(node: Node, defaults: _Defaults, kinds: tuple[str, ...], *, fixed: bool = False) -> _Operator:
    """An entry of candidates, or (fixed) of stem or head, which also says its channels and its stride."""
    entries = node.entries()
    kind = entries["kind"].one_of("kind", kinds) if "kind" in entries else kinds[0]
    own = _KEYS_OF_KIND[kind]
    strided = ("stride",) if fixed and own else ()
    keys = node.table(("channels",) if fixed else (), ("kind", *strided, *own))
    kernel = keys["kernel"].whole(1, MAX_KERNEL) if "kernel" in keys else 1
    if kernel % 2 == 0:
        keys["kernel"].fail(f"is {kernel}; it must be odd, so that padding keeps the size")
    return _Operator(
        batch=defaults.batch,
        kind=kind,
        kernel=kernel,
        expansion=keys["expansion"].whole(1, MAX_SIZE) if "expansion" in keys else 1,
        groups=keys["groups"].whole(1, MAX_SIZE) if "groups" in keys else 1,
        # What has no convolution has nothing to activate or to normalise.
        activation=_chosen(keys, "activation", ACTIVATIONS, defaults.activation) if own else "none",
        norm=_chosen(keys, "norm", NORMS, defaults.norm) if own else "none",
    )


def _chosen(keys: dict[str, Node], key: str, allowed: tuple[str, ...], default: str) -> str:
    return keys[key].one_of(key, allowed) if key in keys else default


def _stage(node: Node, skip: str, candidates: dict[str, _Operator]) -> _Stage:
    keys = node.table(("channels",), ("repeats", "stride", "skip", "candidates"))
    names = tuple(candidates)
    chosen = (
        tuple(item.one_of("candidate", names) for item in _listed(keys["candidates"]))
        if "candidates" in keys
        else names
    )
    return _Stage(
        node=node,
        channels=keys["channels"].whole(1, MAX_SIZE),
        repeats=keys["repeats"].whole(1, MAX_LAYERS) if "repeats" in keys else 1,
        stride=keys["stride"].whole(1, MAX_SIZE) if "stride" in keys else 1,
        skip=_chosen(keys, "skip", SKIP_RULES, skip),
        candidates=chosen,
    )


def _layers(stages: list[_Stage], candidates: dict[str, _Operator], shape: _Shape) -> tuple[list[Layer], _Shape]:
    layers = []
    for stage in stages:
        for index in range(stage.repeats):
            stride = stage.stride if index == 0 else 1
            cells = tuple(Cell(spec) for spec in _cells(stage, index, stride, candidates, shape))
            specs = [cell.spec for cell in cells if cell.spec is not None]
            if not specs:
                stage.node.fail(f"no candidate is allowed on layer {index + 1} of this stage")
            layers.append(Layer(cells))
            shape = _after(specs[0])
    return layers, shape


def _cells(
    stage: _Stage, index: int, stride: int, candidates: dict[str, _Operator], shape: _Shape
) -> Iterator[BlockSpec | None]:
    """The candidates of the stage's layer number `index`, None for those that are not allowed there."""
    same_shape = stride == 1 and shape.channels == stage.channels
    skippable = same_shape and (stage.skip == "same-shape" or (stage.skip == "after-first" and index > 0))
    for name, operator in candidates.items():
        if name in stage.candidates and (operator.kind != SKIP or skippable):
            yield operator.at(stage.node, f"candidate {name}", shape, stage.channels, stride)
        else:
            yield None


def _fixed(node: Node | None, defaults: _Defaults, shape: _Shape) -> tuple[list[BlockSpec], _Shape]:
    """The operators of stem or head, each with the shape that the one before gives."""
    specs = []
    for item in node.items() if node else []:
        operator = _operator(item, defaults, FIXED_KINDS, fixed=True)
        keys = item.entries()
        stride = keys["stride"].whole(1, MAX_SIZE) if "stride" in keys else 1
        specs.append(operator.at(item, operator.kind, shape, keys["channels"].whole(1, MAX_SIZE), stride))
        shape = _after(specs[-1])
    return specs, shape


def _after(spec: BlockSpec) -> _Shape:
    return _Shape(spec.out_channels, spec.output_height, spec.output_width)
