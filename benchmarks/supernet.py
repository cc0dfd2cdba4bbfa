"""Step time and peak memory of the supernet against a plain nine-path mixture, and time to equal search quality.

Plain is the mixture as the papers write it: every candidate's output, weighted and added. Same machine, same images,
the variants in turn in one process; on a CPU seconds are CPU seconds. Memory is the growth of the peak of a process of
its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.runs import keep
from nas.config import RELAXATIONS
from nas.space import load_space
from nas.supernet import Draw, Supernet, draw
from nas.theta import allowed_cells

SPACE, BATCH = "fbnet-cifar10", 64
REPEATS, REPEATS_FULL = 3, 15
MIB = 1 << 20


def plain_forward(net: Supernet, x: Tensor, drawn: Draw) -> Tensor:
    x = net.stem(x)
    for cells, ops, weights in zip(net.cells, drawn.ops, drawn.weights, strict=True):
        outputs = [cells[str(op)](x) if str(op) in cells else x for op in ops]  # type: ignore[index, operator]
        mixed = weights[0] * outputs[0]
        for weight, output in zip(weights[1:], outputs[1:], strict=True):
            mixed = mixed + weight * output
        x = mixed
    logits: Tensor = net.head(x)
    return logits


class Steps:
    """A supernet with its optimisers, and one step of each kind."""

    def __init__(self, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        space = load_space(SPACE)
        self.net = Supernet(space).to(device).train()
        self.allowed = torch.from_numpy(allowed_cells(space))
        self.theta = torch.ones(space.shape, requires_grad=True)
        self.weights = torch.optim.SGD(self.net.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
        self.thetas = torch.optim.Adam([self.theta], 0.01)
        self.x = torch.randn(batch, *space.input_shape[1:], device=device)
        self.y = (torch.arange(batch) % 10).to(device)
        self.device = device
        self.generator = torch.Generator().manual_seed(1)
        # CPU time of all threads: on a shared machine the wall clock measures the others.
        self.clock = time.perf_counter if device.type == "cuda" else time.process_time

    def step(self, relaxation: str, *, learn_theta: bool, plain: bool = False) -> float:
        """Seconds of one forward, backward and update."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        begun = self.clock()
        self.net.requires_grad_(not learn_theta)
        theta = self.theta if learn_theta else self.theta.detach()
        drawn = draw(theta, self.allowed, 3.0, relaxation, self.generator).to(self.device)
        logits = plain_forward(self.net, self.x, drawn) if plain else self.net(self.x, drawn)
        learner = self.thetas if learn_theta else self.weights
        learner.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(logits, self.y).backward()  # type: ignore[no-untyped-call]
        learner.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return self.clock() - begun


def variants(steps: Steps, *, learn_theta: bool) -> dict[str, Callable[[], float]]:
    found = {"plain": partial(steps.step, "mixture", learn_theta=learn_theta, plain=True)}
    return found | {name: partial(steps.step, name, learn_theta=learn_theta) for name in RELAXATIONS}


def times(batch: int, repeats: int, device: torch.device) -> dict[str, dict[str, list[float]]]:
    """Seconds of every step, of weights and of θ; the variants take turns, the first turn is not counted."""
    steps, found = Steps(batch, device), {}
    for learner in ("weights", "θ"):
        chosen = variants(steps, learn_theta=learner == "θ")
        rounds = [{name: step() for name, step in chosen.items()} for _ in range(repeats + 1)][1:]
        found[learner] = {name: [one[name] for one in rounds] for name in chosen}
    return found


def peak_bytes(name: str, batch: int) -> int:
    """What steps of one variant add to the peak of a process that holds the supernet and its gradients already."""
    command = [sys.executable, "-m", "benchmarks.supernet", "--memory", name, "--batch", str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout))


def _memory(name: str, batch: int) -> int:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small = Steps(1, device)
    small.step("mixture", learn_theta=False)  # gradients and momentum are there
    steps = Steps(batch, device)
    steps.net, steps.weights = small.net, small.weights
    chosen = variants(steps, learn_theta=False)[name]
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        chosen()
        return torch.cuda.max_memory_allocated() - before
    before = _peak()
    chosen()
    return _peak() - before


def _peak() -> int:
    """Peak memory of this process so far, in bytes. (getrusage would count the process that started it too.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main(full: bool = False) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    repeats = REPEATS_FULL if full else REPEATS
    record: dict[str, object] = {"threads": torch.get_num_threads(), "batch": BATCH, "device": str(device)}
    print(f"{SPACE}, batch {BATCH}, {device}, {torch.get_num_threads()} threads, medians of {repeats} turns")
    found = times(BATCH, repeats, device)
    # An epoch has four steps of the weights for each of θ: 80 % and 20 % of the images.
    found["an epoch, per step"] = {
        name: [(4 * w + t) / 5 for w, t in zip(found["weights"][name], found["θ"][name], strict=True)]
        for name in found["weights"]
    }
    for learner, own in found.items():
        plain = np.array(own["plain"])
        for name, seconds in own.items():
            ratios = plain / np.array(seconds)
            low, high = np.quantile(ratios, [0.1, 0.9])
            print(
                f"{learner}: {name:12} {np.median(seconds):7.3f} s, {np.median(ratios):6.2f} times as fast as "
                f"plain (10th to 90th percentile {low:.2f} to {high:.2f})"
            )
    memory = {name: peak_bytes(name, BATCH) for name in found["weights"]}
    for name, size in memory.items():
        print(f"peak memory of a step: {name:12} {size / MIB:7.0f} MiB, {size / memory['plain']:.2f} of plain")
    keep("supernet", record | {"seconds": found, "peak_bytes": memory})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", choices=["plain", *RELAXATIONS], required=True)
    parser.add_argument("--batch", type=int, required=True)
    options = parser.parse_args()
    print(json.dumps(_memory(options.memory, options.batch)))
