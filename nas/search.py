"""The search: weights and θ trained in turn on images that they never share, a checkpoint after every epoch.

The order of everything random follows from the seed and the epoch, so a search that is resumed after an epoch gives the
numbers of one that was never interrupted (on the same machine with the same number of threads).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lut_store.metric import Array
from nas.checkpoint import load_checkpoint, save_checkpoint
from nas.config import SearchConfig
from nas.cost import CostTable
from nas.data import Images
from nas.loss import Hanna, Loss, make_loss, normalised
from nas.supernet import Supernet, draw
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

    images: int = 0
    ce: float = 0.0
    loss: float = 0.0
    right: int = 0

    def add(self, logits: Tensor, labels: Tensor, ce: Tensor, loss: Tensor) -> None:
        self.images += len(labels)
        self.ce += float(ce.detach()) * len(labels)
        self.loss += float(loss.detach()) * len(labels)
        self.right += int((logits.detach().argmax(1) == labels).sum())


class Search:
    """One search over one LUT. `theta` (L, K) is its result; run() goes on from where a checkpoint stands."""

    def __init__(self, config: SearchConfig, costs: CostTable, images: Images, lut_digest: str) -> None:
        """Raises BadInputError for a loss that cannot be made."""
        self.config, self.costs, self.lut_digest = config, costs, lut_digest
        self.loss = _loss(config, costs)
        order = torch.randperm(len(images), generator=_generator(config.seed, -1))
        cut = int(len(images) * config.weight_share)
        self.weight_images, self.theta_images = images.part(order[:cut]), images.part(order[cut:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.supernet = Supernet(costs.space)
        self.theta = torch.full(costs.space.shape, config.theta_init, requires_grad=True)  # (L, K)
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
        """Train until `config.epochs` are done. Raises DivergedError naming the epoch, the step and the terms."""
        for number in range(len(self.done), self.config.epochs):
            epoch = self._epoch(number)
            self.done.append(epoch)
            after_epoch(epoch)

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
        sums, learner = _Sums(), self._theta if learn_theta else self._weights
        theta = self.theta if learn_theta else self.theta.detach()
        # What does not learn needs no gradient: half the work of the backward pass.
        self.supernet.requires_grad_(not learn_theta)
        order = torch.randperm(len(images), generator=generator)
        for step, start in enumerate(range(0, len(order), self.config.batch)):
            part = images.part(order[start : start + self.config.batch])
            drawn = draw(theta, self.costs.allowed, temperature, self.config.relaxation, generator)
            logits = self.supernet(part.x, drawn)
            ce = nn.functional.cross_entropy(logits, part.y)
            latency_s, energy_j = self.costs.expected(drawn.soft)
            loss = self.loss(ce, latency_s, energy_j) if learn_theta else ce
            if not math.isfinite(float(loss.detach())):
                raise DivergedError(
                    f"the loss is {float(loss.detach())} at epoch {number}, step {step} of "
                    f"{'θ' if learn_theta else 'the weights'}: cross entropy {float(ce.detach()):g}, latency "
                    f"{float(latency_s.detach()):g} s, energy {float(energy_j.detach()):g} J; "
                    f"{f'the checkpoint of epoch {number - 1} is good' if number else 'there is no checkpoint yet'}; "
                    "try a smaller weight_lr"
                )
            learner.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            learner.step()
            sums.add(logits, part.y, ce, loss)
        return sums

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
            theta_ce=theta.ce / theta.images if theta else None,
            theta_loss=theta.loss / theta.images if theta else None,
            theta_accuracy=theta.right / theta.images if theta else None,
            expected_latency_s=expected_latency_s,
            expected_energy_j=expected_energy_j,
            argmax_latency_s=latency_s,
            argmax_energy_j=energy_j,
            entropy=entropy,
        )


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
