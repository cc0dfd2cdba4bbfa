"""Where a search runs: the device, the processes that share the work, and how many images fit into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from protos.errors import BadInputError, EdgelutError

RESERVE = 0.9  # of what is free: allocators round up, and other processes live too
TRANSIENT = 0.3  # of what a forward pass keeps, for gradients on their way (benchmarks/supernet.py)
GIB = 1 << 30


class OutOfMemoryError(EdgelutError):
    """A step does not fit into the memory of its device."""


@dataclass(frozen=True)
class World:
    """The processes of one search, as `torchrun` starts them; one process alone is a world too.

    All draw the same architectures and hold the same θ; each takes its own part of every batch, and gradients are the
    mean over all images of the batch. So N processes give the numbers of one, but for the order of the sums.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def share(self, index: Tensor) -> Tensor:
        """This process's part of a batch (n,); empty when there are fewer images than processes."""
        return index[self.rank :: self.size]

    def average(self, tensor: Tensor | None) -> None:
        """Make `tensor` the mean over all processes."""
        if self.size > 1 and tensor is not None:
            dist.all_reduce(tensor)
            tensor /= self.size

    def total(self, values: list[float]) -> list[float]:
        """Sums over all processes."""
        if self.size == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()


@contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun's variables describe. Raises BadInputError when they are no numbers."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "WORLD_SIZE" not in os.environ:
        yield World()
        return
    try:
        rank, size, local = (int(os.environ[name]) for name in names)
    except (KeyError, ValueError):
        raise BadInputError(f"{', '.join(names)} must be numbers; start several processes with torchrun") from None
    if size == 1:
        yield World()
        return
    # θ and its gradient live on the CPU, weights where the images are.
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(rank, size, local)
    finally:
        dist.destroy_process_group()


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of that name; `auto` is this process's GPU, or the CPU. Raises BadInputError with what there is."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", local_rank % gpus) if gpus else torch.device("cpu")
    known = ("auto", "cpu", *(["cuda"] if gpus else []), *(f"cuda:{number}" for number in range(gpus)))
    if name not in known:
        raise BadInputError(f"unknown device {name!r}; this machine has {', '.join(known)}")
    return torch.device("cuda", local_rank % gpus) if name == "cuda" else torch.device(name)


# ---- memory ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepMemory:
    """What a training step needs: bytes that do not depend on the batch, and bytes per image."""

    fixed_bytes: float
    image_bytes: float

    def needed(self, batch: int) -> float:
        return self.fixed_bytes + self.image_bytes * batch

    def fitting_batch(self, free_bytes: float) -> int:
        """The largest batch that stays within RESERVE of `free_bytes`; 0 when none does."""
        room = RESERVE * free_bytes - self.fixed_bytes
        return max(int(room / self.image_bytes), 0) if self.image_bytes > 0 else 0


def too_large(batch: int, memory: StepMemory, free_bytes: float, device: torch.device) -> OutOfMemoryError:
    """The sentence for a batch that does not fit, with one that does. It was seen to fail, so it is never advised."""
    fits = min(memory.fitting_batch(free_bytes), batch - 1)
    advice = (
        f"a batch of {fits} would fit (--set batch={fits})"
        if fits
        else "not even one image would fit: take relaxation=single-path, or a device with more memory"
    )
    return OutOfMemoryError(
        f"a step with {batch} images needs about {memory.needed(batch) / GIB:.3g} GiB, and {device} has "
        f"{free_bytes / GIB:.3g} GiB free; {advice}"
    )


def free_bytes(device: torch.device) -> float:
    """What this process may still allocate; infinite where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by our own allocator
        return float(free + unused)
    limits = [_available(), _of_group()]
    return min((limit for limit in limits if limit is not None), default=float("inf"))


def _available() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def _of_group() -> float | None:
    """What the control group (a container, a service) leaves; None without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return None if limit == "max" else float(limit) - float(used)


class _Saved:
    """Bytes that a forward pass keeps for the backward pass, each storage once."""

    def __init__(self) -> None:
        self._seen: dict[int, torch.UntypedStorage] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._seen[storage.data_ptr()] = storage  # held, so that no other storage takes its place
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._seen.values())


def step_memory(forward: Callable[[int], Tensor], parameters: Iterable[Tensor]) -> StepMemory:
    """What a training step needs beyond what is allocated already; `forward(images)` runs the network on so many.

    Gradients and momentum take the parameters' size once each; what a forward pass saves is counted on one image and on
    two. The backward pass needs TRANSIENT of it again.
    """
    sizes = []
    for images in (1, 2):
        saved = _Saved()
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            forward(images)
        sizes.append(saved.bytes)
    per_image = sizes[1] - sizes[0]
    states = 2 * sum(parameter.nbytes for parameter in parameters)
    return StepMemory(states + sizes[0] - per_image, (1 + TRANSIENT) * per_image)
