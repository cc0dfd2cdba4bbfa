"""Training a child network: SGD under a cosine, a checkpoint after every epoch.

What is random follows from the seed and the epoch, so a training that is resumed gives the numbers of one that was
never interrupted (on the same machine with the same number of threads).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.blocks import build_network
from nas.checkpoint import TRAINING_FORMAT, load_checkpoint, save_checkpoint
from nas.child import Child
from nas.data import Dataset, Images, Source, moved
from nas.hardware import pick_device
from nas.init import has_norm, initialise
from nas.search import DivergedError
from protos.errors import BadInputError, unknown
from protos.types import digest_of

AUGMENTATIONS = ("none", "shift", "shift-flip")
AUGMENT_OF = {"digits": "shift", "synthetic": "none"}  # a mirrored digit is no digit; photographs get both
MOST_SHIFT = 8  # of the image's size: 4 of 32 pixels, as is usual for CIFAR
TEST_BATCH = 500


@dataclass(frozen=True)
class TrainConfig:
    """HANNA trains its child for 120 epochs (arXiv 1906.07214) and says no more; the rest is as usual for CIFAR."""

    data: str = "digits"
    data_folder: str = ""
    samples: int = 0  # at most so many training images; 0: all
    noise: float = 0.0  # as in a search
    shift: int = 0
    augment: str = ""  # none, shift or shift-flip; "": what suits the data
    epochs: int = 120
    batch: int = 128
    lr: float = 0.1  # SGD, cosine over all epochs
    warmup_epochs: int = 0  # the rate rises in so many first epochs
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 1.0  # of the gradient of a network without batch norm; 0: not at all
    label_smoothing: float = 0.0
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        Source(self.data)
        if self.augment not in ("", *AUGMENTATIONS):
            raise unknown("augment", self.augment, AUGMENTATIONS)
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
                raise BadInputError(f"{item.name} is {value}; it must be a finite number, zero or more")
        for name in ("epochs", "batch"):
            if not getattr(self, name) > 0:
                raise BadInputError(f"{name} is {getattr(self, name)}; it must be above zero")
        for name in ("momentum", "label_smoothing"):
            if not getattr(self, name) < 1:
                raise BadInputError(f"{name} is {getattr(self, name)}; it must be below 1")
        if self.warmup_epochs >= self.epochs:
            raise BadInputError(f"warmup_epochs is {self.warmup_epochs}; it must be less than the {self.epochs} epochs")

    @property
    def digest(self) -> str:
        """SHA-256 of every setting."""
        return digest_of(asdict(self))

    @property
    def source(self) -> Source:
        return Source(self.data, self.data_folder, self.samples, self.noise, self.shift)

    @property
    def augmentation(self) -> str:
        return self.augment or AUGMENT_OF.get(self.data, "shift-flip")

    def lr_at(self, epoch: int) -> float:
        if epoch < self.warmup_epochs:
            return self.lr * (epoch + 1) / (self.warmup_epochs + 1)
        gone = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return 0.5 * self.lr * (1 + math.cos(math.pi * gone))


@dataclass(frozen=True)
class TrainEpoch:
    """Means over one epoch; the test set is only looked at, and nothing is chosen by it."""

    epoch: int
    lr: float
    train_ce: float
    train_accuracy: float
    test_ce: float
    test_accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """On `images` images. subnormal: the share of activations so small that some processors calculate slowly."""

    images: int
    ce: float
    accuracy: float
    accuracy_lo: float
    accuracy_hi: float
    subnormal: float


class Training:
    """One training of one child; run() goes on from where a checkpoint stands."""

    def __init__(self, config: TrainConfig, child: Child, data: Dataset) -> None:
        """Raises BadInputError for a device that is not there."""
        self.config, self.child, self.data = config, child, data
        self.device = pick_device(config.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = build_network(child.space, child.choices)
            initialise(network)
        self.network = network.to(self.device)
        self._clip_norm = 0.0 if has_norm(network) else config.clip_norm
        self._optimiser = torch.optim.SGD(
            self.network.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.done: list[TrainEpoch] = []

    def resume(self, path: Path) -> None:
        """Take up a checkpoint. Raises BadInputError when it is damaged, or of other settings or another network."""
        state = load_checkpoint(path, self.config.digest, self.child.digest, TRAINING_FORMAT)
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.done = [TrainEpoch(**epoch) for epoch in state["epochs"]]

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "epochs": [asdict(epoch) for epoch in self.done],
        }
        save_checkpoint(path, state, self.config.digest, self.child.digest, TRAINING_FORMAT)

    def run(self, after_epoch: Callable[[TrainEpoch], None]) -> None:
        """Train until `config.epochs` are done.

        Raises DivergedError naming the epoch, the step and the terms; BadInputError when a batch does not fit a GPU.
        """
        for number in range(len(self.done), self.config.epochs):
            try:
                epoch = self._epoch(number)
            except torch.OutOfMemoryError:
                raise BadInputError(
                    f"a batch of {self.config.batch} images does not fit the memory of {self.device}; "
                    f"try batch={max(self.config.batch // 2, 1)}"
                ) from None
            self.done.append(epoch)
            after_epoch(epoch)

    def _epoch(self, number: int) -> TrainEpoch:
        config, images = self.config, self.data.train
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
        for group in self._optimiser.param_groups:
            group["lr"] = config.lr_at(number)
        order = torch.randperm(len(images), generator=generator)
        sums = torch.zeros(2, dtype=torch.float64)  # cross entropy, right answers
        self.network.train()
        for step, start in enumerate(range(0, len(order), config.batch)):
            part = images.part(order[start : start + config.batch])
            x = augmented(part.x, config.augmentation, generator).to(self.device)
            sums += self._step(x, part.y.to(self.device), number, step)
        flush_subnormals(self.network)
        ce, right = (sums / len(images)).tolist()
        test = evaluate(self.network, self.data.test, self.device)
        return TrainEpoch(number, config.lr_at(number), ce, right, test.ce, test.accuracy)

    def _step(self, x: Tensor, y: Tensor, epoch: int, step: int) -> Tensor:
        """One step on one batch; (2,) sums over its images."""
        config = self.config
        logits = self.network(x)
        loss = nn.functional.cross_entropy(logits, y, label_smoothing=config.label_smoothing)
        value = float(loss.detach())
        if not math.isfinite(value):
            largest = float(logits.detach().abs().max())
            kept = f"the checkpoint of epoch {epoch - 1} is good" if epoch else "there is no checkpoint yet"
            raise DivergedError(
                f"the loss is {value} at epoch {epoch}, step {step}: cross entropy {value}, largest logit {largest:g}, "
                f"learning rate {config.lr_at(epoch):g}; {kept}; try a smaller lr, warmup_epochs or clip_norm"
            )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._clip_norm)
        self._optimiser.step()
        right = (logits.detach().argmax(1) == y).sum()
        return torch.tensor([value * len(y), float(right)], dtype=torch.float64)


def augmented(x: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """x (N, C, H, W), each image moved by up to an eighth of its size, and half of them mirrored."""
    if how == "none":
        return x
    x = moved(x, max(x.shape[-1] // MOST_SHIFT, 1), generator)
    if how == "shift-flip":
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x[mirrored] = x[mirrored].flip(-1)
    return x


@torch.no_grad()
def flush_subnormals(network: nn.Module) -> int:
    """Set weights below the least normal float to 0, and count them.

    Some processors calculate a hundred times slower with such numbers. Latency then would depend on the weights, which
    a LUT, and an agent that measures a network, do not know.
    """
    count = 0
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            small = _subnormal(tensor)
            count += int(small.sum())
            tensor[small] = 0.0
    return count


def _subnormal(x: Tensor) -> Tensor:
    return (x != 0) & (x.abs() < torch.finfo(x.dtype).tiny)


@torch.no_grad()
def evaluate(network: nn.Module, images: Images, device: torch.device, *, activations: bool = False) -> Evaluation:
    """Accuracy with its 95 % interval (Wilson). With `activations` their subnormal share is counted, else it is 0."""
    network.eval()
    seen = torch.zeros(2, dtype=torch.float64)  # subnormal, all

    def count(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen.add_(torch.tensor([float(_subnormal(output).sum()), float(output.numel())]))

    leaves = [module for module in network.modules() if not list(module.children())] if activations else []
    hooks = [module.register_forward_hook(count) for module in leaves]
    try:
        ce = right = 0.0
        for start in range(0, len(images), TEST_BATCH):
            y = images.y[start : start + TEST_BATCH].to(device)
            logits = network(images.x[start : start + TEST_BATCH].to(device))
            ce += float(nn.functional.cross_entropy(logits, y, reduction="sum"))
            right += float((logits.argmax(1) == y).sum())
    finally:
        for hook in hooks:
            hook.remove()
    n = len(images)
    lo, hi = wilson(right, n)
    return Evaluation(n, ce / n, right / n, lo, hi, float(seen[0] / seen[1].clamp_min(1)))


def wilson(right: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927)."""
    share, spread = right / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)
