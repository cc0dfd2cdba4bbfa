"""Every setting of a search in one place, with the paper's values; from a TOML file, then from KEY=VALUE words."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from lut_store.formats import files
from protos.errors import BadInputError, unknown
from protos.types import digest_of

RELAXATIONS = ("mixture", "two-path", "single-path")
DATASETS = ("digits", "synthetic", "cifar10", "cifar100", "folder")
KNOBS = "knobs"


@dataclass(frozen=True)
class SearchConfig:
    """Defaults are HANNA's (arXiv 1906.07214) unless said otherwise."""

    data: str = "digits"  # ours: it comes with scikit-learn, so that nothing is downloaded
    data_folder: str = ""  # of the CIFAR archives, or of one folder of images per class
    samples: int = 0  # at most so many training images; 0: all
    noise: float = 0.0  # standard deviation of noise on every image, in those of its channel: a harder task
    shift: int = 0  # every image is moved by up to so many pixels: a harder task
    relaxation: str = "mixture"
    loss: str = "hanna"
    knobs: Mapping[str, float] = field(default_factory=dict)  # of the loss, by its own names
    normalise: bool = False  # count costs in those of the uniform mixture; the paper has seconds and joules
    epochs: int = 90
    warmup_epochs: int = 10  # weights alone
    batch: int = 256
    weight_share: float = 0.8  # of the images train the weights, the rest trains θ: the two never share one
    weight_lr: float = 0.1  # SGD, cosine over all epochs
    weight_momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 1.0  # of the weights' gradient, 0: not at all; ours: without batch norm a search diverges
    theta_lr: float = 0.01  # Adam
    theta_decay: float = 5e-4
    theta_init: float = 1.0
    temperature: float = 5.0  # of the Gumbel softmax at epoch 0
    temperature_decay: float = 0.956  # factor per epoch
    device: str = "auto"  # cpu, cuda, cuda:1 …; auto: a GPU when there is one
    amp: bool = False  # the supernet's products in bfloat16, sums and weights in float32
    channels_last: bool = False  # memory order of images where the supernet convolves
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("data", self.data, DATASETS),
            ("relaxation", self.relaxation, RELAXATIONS),
        ):
            if value not in known:
                raise unknown(name, value, known)
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
                raise BadInputError(f"{item.name} is {value}; it must be a finite number, zero or more")
        for name in ("epochs", "batch", "temperature", "temperature_decay"):
            if not getattr(self, name) > 0:
                raise BadInputError(f"{name} is {getattr(self, name)}; it must be above zero")
        if not 0 < self.weight_share < 1:
            raise BadInputError(f"weight_share is {self.weight_share}; it must lie between 0 and 1")
        if self.warmup_epochs > self.epochs:
            raise BadInputError(f"warmup_epochs is {self.warmup_epochs}, more than the {self.epochs} epochs")

    @property
    def digest(self) -> str:
        """SHA-256 of every setting."""
        return digest_of(asdict(self))

    def temperature_at(self, epoch: int) -> float:
        return self.temperature * self.temperature_decay**epoch

    def weight_lr_at(self, epoch: int) -> float:
        return 0.5 * self.weight_lr * (1 + math.cos(math.pi * epoch / self.epochs))


C = TypeVar("C")  # a dataclass of settings, checked at birth


def load_config(path: Path | None, words: Iterable[str] = ()) -> SearchConfig:
    """The settings of a search: `load_settings`, with a [knobs] table for the loss and knobs as knobs.alpha=0.5."""
    return load_settings(SearchConfig, path, words)


def load_settings(cls: type[C], path: Path | None, words: Iterable[str] = ()) -> C:
    """The settings of a TOML file, then of KEY=VALUE words.

    Raises BadInputError for a file that is no TOML, an unknown key, and a value of the wrong type.
    """
    merged: dict[str, Any] = {}
    if path is not None:
        try:
            document = tomllib.loads(files.read(path).decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInputError(f"{path} is no TOML: {error}") from error
        merged = _checked(cls, document, str(path))
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise BadInputError(f"{word!r} is no setting; write KEY=VALUE, for example weight_lr=0.05")
        head, dot, knob = key.partition(".")
        if dot and head == KNOBS and cls is SearchConfig:
            merged[KNOBS] = {**merged.get(KNOBS, {}), knob: _parsed(text, float, key)}
        else:
            merged[key] = _parsed(text, _type_of(cls, key), key)
    return cls(**merged)  # at once: settings are checked against each other


def _checked(cls: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a file in the types that the settings have."""
    checked: dict[str, Any] = {}
    for key, value in values.items():
        wanted = _type_of(cls, key)
        if wanted is dict:
            checked[key] = _knobs(value, where)
        elif wanted is float and isinstance(value, int) and not isinstance(value, bool):
            checked[key] = float(value)
        elif type(value) is wanted:
            checked[key] = value
        else:
            raise BadInputError(f"{where}: {key} is {value!r}; it must be a {wanted.__name__}")
    return checked


def _knobs(value: Any, where: str) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise BadInputError(f"{where}: {KNOBS} must be a table of numbers, for example alpha = 0.5")
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise BadInputError(f"{where}: knob {name} is {number!r}; it must be a number")
    return {name: float(number) for name, number in value.items()}


def _type_of(cls: type[Any], key: str) -> type:
    names = {item.name: item for item in fields(cls)}
    if key not in names:
        raise unknown("setting", key, names)
    return dict if names[key].default is MISSING else get_type_hints(cls)[key]


def _parsed(text: str, wanted: type, key: str) -> Any:
    if wanted is dict:
        raise BadInputError(f"write a knob by its name, for example {key}.alpha=0.5")
    if wanted is bool:
        if text not in ("true", "false"):
            raise BadInputError(f"{key} is {text!r}; write true or false")
        return text == "true"
    try:
        return wanted(text)
    except ValueError:
        raise BadInputError(f"{key} is {text!r}; it must be a {wanted.__name__}") from None
