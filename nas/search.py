"""The search: weights and θ trained in turn on images that they never share, a checkpoint after every epoch.

The order of everything random follows from the seed and the epoch, so a search that is resumed after an epoch gives the
numbers of one that was never interrupted (on the same machine with the same number of threads and processes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lut_store.metric import Array
from nas.checkpoint import load_checkpoint, save_checkpoint
from nas.config import SearchConfig
from nas.cost import CostTable
from nas.data import Images
from nas.hardware import World, free_bytes, pick_device, step_memory, too_large
from nas.init import initialise
from nas.loss import Hanna, Loss, make_loss, normalised
from nas.supernet import Draw, Supernet, draw, widest
from nas.theta import argmax_choices
from protos.errors import BadInputError, EdgelutError


class DivergedError(EdgelutError):
    """A loss became NaN or infinite."""


@dataclass(frozen=True)
class Epoch:
    """Means over one epoch. θ's columns are of the images that train θ; None in warm-up, where θ does not learn."""

    epoch: int
    temperature: float
    weight_ce: float
    weight_accuracy: float
    theta_ce: float | None
    theta_loss: float | None
    theta_accuracy: float | None
    expected_latency_s: float
    expected_energy_j: float
    argmax_latency_s: float
    argmax_energy_j: float
    entropy: float  # mean over layers of θ's softmax, in nats


@dataclass
class _Sums:
    """What an epoch adds up; created anew for each."""

    images: float = 0.0
    ce: float = 0.0
    loss: float = 0.0
    right: float = 0.0

    def over(self, world: World) -> _Sums:
        return _Sums(*world.total([self.images, self.ce, self.loss, self.right]))


class Search:
    """One search over one LUT. `theta` (L, K) is its result; run() goes on from where a checkpoint stands."""

    def __init__(
        self, config: SearchConfig, costs: CostTable, images: Images, lut_digest: str, world: World | None = None
    ) -> None:
        """Raises BadInputError for a loss that cannot be made and a device that is not there."""
        self.config, self.costs, self.lut_digest = config, costs, lut_digest
        self.world = world or World()
        self.device = pick_device(config.device, self.world.local_rank)
        self.loss = _loss(config, costs)
        order = torch.randperm(len(images), generator=_generator(config.seed, -1))
        cut = int(len(images) * config.weight_share)
        self.weight_images, self.theta_images = images.part(order[:cut]), images.part(order[cut:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            supernet = Supernet(costs.space)
            initialise(supernet)
        self._layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.supernet = supernet.to(self.device).to(memory_format=self._layout)  # type: ignore[call-overload]
        self._shared: nn.Module = self.supernet
        if self.world.size > 1:  # a draw leaves most blocks out
            self._shared = DistributedDataParallel(self.supernet, find_unused_parameters=True)
        self.theta = torch.full(costs.space.shape, config.theta_init, requires_grad=True)  # (L, K), on the CPU
        self._weights = torch.optim.SGD(
            self.supernet.parameters(),
            config.weight_lr,
            momentum=config.weight_momentum,
            weight_decay=config.weight_decay,
        )
        self._theta = torch.optim.Adam([self.theta], config.theta_lr, weight_decay=config.theta_decay)
        self.done: list[Epoch] = []

    @property
    def logits(self) -> Array:
        """θ as a float64 array (L, K)."""
        return self.theta.detach().double().numpy()

    @property
    def probabilities(self) -> Array:
        """θ's softmax over the allowed candidates (L, K)."""
        return self.costs.probabilities(self.theta.detach().double()).numpy()

    @property
    def choices(self) -> tuple[int, ...]:
        """The most probable architecture."""
        return argmax_choices(self.logits, self.costs.space)

    def resume(self, path: Path) -> None:
        """Take up a checkpoint. Raises BadInputError when it is damaged, or of another configuration or LUT."""
        state = load_checkpoint(path, self.config.digest, self.lut_digest)
        self.supernet.load_state_dict(state["supernet"])
        self._weights.load_state_dict(state["weights"])
        self._theta.load_state_dict(state["theta_optimiser"])
        with torch.no_grad():
            self.theta.copy_(state["theta"])
        self.done = [Epoch(**epoch) for epoch in state["epochs"]]

    def save(self, path: Path) -> None:
        state = {
            "supernet": self.supernet.state_dict(),
            "weights": self._weights.state_dict(),
            "theta_optimiser": self._theta.state_dict(),
            "theta": self.theta.detach(),
            "epochs": [asdict(epoch) for epoch in self.done],
        }
        save_checkpoint(path, state, self.config.digest, self.lut_digest)

    def run(self, after_epoch: Callable[[Epoch], None]) -> None:
        """Train until `config.epochs` are done.

        Raises DivergedError naming the epoch, the step and the terms, and OutOfMemoryError naming a batch that fits.
        """
        with _repeatable():
            for number in range(len(self.done), self.config.epochs):
                epoch = self._epoch(number)
                self.done.append(epoch)
                after_epoch(epoch)

    def check_memory(self, *, failed: bool = False) -> None:
        """Raise OutOfMemoryError when a step does not fit into what is free (`failed`: when it was seen not to)."""
        local = -(-self.config.batch // self.world.size)
        self.supernet.requires_grad_(True).eval()  # a batch norm must not count these images
        drawn = widest(self.costs.space, self.config.relaxation).to(self.device)
        memory = step_memory(
            lambda count: self._forward(self.weight_images.x[:count], drawn), self.supernet.parameters()
        )
        free = free_bytes(self.device)
        if failed or memory.needed(local) > free:
            raise too_large(local, memory, free, self.device)

    def _epoch(self, number: int) -> Epoch:
        config, generator = self.config, _generator(self.config.seed, number)
        temperature = config.temperature_at(number)
        for group in self._weights.param_groups:
            group["lr"] = config.weight_lr_at(number)
        self.supernet.train()
        weights = self._pass(self.weight_images, temperature, generator, number, learn_theta=False)
        theta = None
        if number >= config.warmup_epochs:
            theta = self._pass(self.theta_images, temperature, generator, number, learn_theta=True)
        return self._report(number, temperature, weights, theta)

    def _pass(
        self, images: Images, temperature: float, generator: torch.Generator, number: int, *, learn_theta: bool
    ) -> _Sums:
        sums, theta = _Sums(), self.theta if learn_theta else self.theta.detach()
        # What does not learn needs no gradient: half the work of the backward pass.
        self.supernet.requires_grad_(not learn_theta)
        order = torch.randperm(len(images), generator=generator)
        for step, start in enumerate(range(0, len(order), self.config.batch)):
            index = order[start : start + self.config.batch]
            drawn = draw(theta, self.costs.allowed, temperature, self.config.relaxation, generator)
            try:
                self._step(images, index, drawn, sums, f"epoch {number}, step {step}", learn_theta=learn_theta)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                self.check_memory(failed=True)
        return sums.over(self.world)

    def _step(self, images: Images, index: Tensor, drawn: Draw, sums: _Sums, where: str, *, learn_theta: bool) -> None:
        part = images.part(self.world.share(index))
        labels = part.y.to(self.device)
        logits = self._forward(part.x, drawn.to(self.device), learn_weights=not learn_theta)
        # Its mean over processes is the mean over the images of the whole batch.
        ce = nn.functional.cross_entropy(logits, labels, reduction="sum") * (self.world.size / len(index))
        ce = ce.cpu()
        latency_s, energy_j = self.costs.expected(drawn.soft)
        loss = self.loss(ce, latency_s, energy_j) if learn_theta else ce
        if not math.isfinite(float(loss.detach())):
            kept = (
                f"the checkpoint of epoch {len(self.done) - 1} is good" if self.done else "there is no checkpoint yet"
            )
            raise DivergedError(
                f"the loss is {float(loss.detach())} at {where} of {'θ' if learn_theta else 'the weights'}: cross "
                f"entropy {float(ce.detach()):g}, latency {float(latency_s.detach()):g} s, energy "
                f"{float(energy_j.detach()):g} J; {kept}; try a smaller weight_lr"
            )
        learner = self._theta if learn_theta else self._weights
        learner.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if learn_theta:
            self.world.average(self.theta.grad)
        elif self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.clip_norm)
        learner.step()
        share = len(index) / self.world.size
        sums.images += share
        sums.ce += float(ce.detach()) * share
        sums.loss += float(loss.detach()) * share
        sums.right += int((logits.detach().argmax(1) == labels).sum())

    def _forward(self, x: Tensor, drawn: Draw, *, learn_weights: bool = False) -> Tensor:
        """(n, classes) in float32. Only weights' gradients are shared by the module itself."""
        model = self._shared if learn_weights else self.supernet
        x = x.to(self.device, memory_format=self._layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp):
            logits: Tensor = model(x, drawn)
        return logits.float()

    def _report(self, number: int, temperature: float, weights: _Sums, theta: _Sums | None) -> Epoch:
        with torch.no_grad():
            probabilities = self.costs.probabilities(self.theta)
            expected_latency_s, expected_energy_j = map(float, self.costs.expected(probabilities))
            entropy = float(torch.special.entr(probabilities).sum(-1).mean())
        latency_s, energy_j = self.costs.exact(self.choices)
        return Epoch(
            epoch=number,
            temperature=temperature,
            weight_ce=weights.ce / weights.images,
            weight_accuracy=weights.right / weights.images,
            theta_ce=theta.ce / theta.images if theta else None,
            theta_loss=theta.loss / theta.images if theta else None,
            theta_accuracy=theta.right / theta.images if theta else None,
            expected_latency_s=expected_latency_s,
            expected_energy_j=expected_energy_j,
            argmax_latency_s=latency_s,
            argmax_energy_j=energy_j,
            entropy=entropy,
        )


@contextmanager
def _repeatable() -> Iterator[None]:
    """cuDNN's deterministic kernels; those of the CPU are."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def _generator(seed: int, epoch: int) -> torch.Generator:
    """For the order and the noise of an epoch; -1 is the sharing out of the images."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch + 1)


def _loss(config: SearchConfig, costs: CostTable) -> Loss:
    loss = make_loss(config.loss, config.knobs)
    if not config.normalise:
        return loss
    if not isinstance(loss, Hanna):
        raise BadInputError(f"normalise is for the loss hanna; {config.loss} has units of its own")
    return normalised(loss, costs.uniform())
