"""Many searches over one LUT, each a folder and a process of its own, so that one that fails takes no other with it.

SWEEP/sweep.json  what the sweep rests on          SWEEP/lut.lut     the LUT
SWEEP/trials/NN/  a search's folder with search.toml (settings), log.txt (what it printed), failure.txt (if it failed);
                  with train.toml also the training of its child
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lut_store.formats import files
from lut_store.lut import Lut
from nas import run_folder, train_folder
from nas.config import SearchConfig
from nas.grid import Setting
from nas.train import TrainConfig
from protos.errors import BadInputError, StorageError

SWEEP, TRIALS, TOML, LOG, FAILURE = "sweep.json", "trials", "search.toml", "log.txt", "failure.txt"
TRAIN_TOML = "train.toml"
INTERRUPTED = 130
RAY_RETRIES = 3  # of a trial whose worker or node died


@dataclass(frozen=True)
class Trial:
    """One search of a sweep, and the training of its child where one is wanted."""

    number: int  # from 1
    folder: Path

    @property
    def searched(self) -> bool:
        return (self.folder / run_folder.CHILD).exists()

    @property
    def done(self) -> bool:
        trained = not (self.folder / TRAIN_TOML).exists() or (self.folder / train_folder.RESULT).exists()
        return self.searched and trained

    @property
    def failure(self) -> str:
        """Why it failed; "" when it did not."""
        path = self.folder / FAILURE
        return path.read_text().strip() if path.exists() else ""

    @property
    def command(self) -> list[str]:
        """What a shell would run for it next; it goes on where a checkpoint stands."""
        words = [sys.executable, "-m", "nas", "train" if self.searched else "search"]
        words += ["--lut", str(self.folder.parent.parent / run_folder.LUT), "--output", str(self.folder), "--json"]
        if self.searched:
            words += ["--config", str(self.folder / TRAIN_TOML), "--child", str(self.folder / run_folder.CHILD)]
            checkpoint = train_folder.CHECKPOINT
        else:
            words += ["--config", str(self.folder / TOML)]
            checkpoint = run_folder.CHECKPOINT
        return [*words, "--resume"] if (self.folder / checkpoint).exists() else words


def begin(
    folder: Path,
    lut: Lut,
    config: SearchConfig,
    settings: Sequence[Setting],
    train: TrainConfig | None = None,
    *,
    resume: bool,
) -> list[Trial]:
    """Write down the sweep, or check that the one in `folder` is this one; its trials. `train`: of every child.

    Raises BadInputError when the folder holds a sweep and `resume` is False, and when it holds another one.
    """
    record = {
        "lut": lut.reference,
        "lut_digest": lut.digest,
        "settings": asdict(config),
        "train": asdict(train) if train else None,
        "trials": [{**asdict(one.knobs), "v_latency": one.v_latency, "v_energy": one.v_energy} for one in settings],
    }
    path = folder / SWEEP
    if path.exists() != resume:
        raise BadInputError(
            f"{folder} holds a sweep already: go on with it by --resume, or name another folder"
            if path.exists()
            else f"there is no sweep in {folder}; leave out --resume to begin"
        )
    if resume:
        _check_same(record, read_record(folder), folder)
        return trials_of(folder)
    try:
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}") from error
    lut.save(folder / run_folder.LUT)
    for number, setting in enumerate(settings, start=1):
        own = trial_folder(folder, number)
        own.mkdir(exist_ok=True)
        knobs = replace(config, knobs=asdict(setting.knobs))
        files.write(own / TOML, to_toml(knobs).encode())
        if train is not None:
            files.write(own / TRAIN_TOML, to_toml(train).encode())
    run_folder.write_json(path, record | run_folder.origin_of_code())  # last: the sweep is whole
    return trials_of(folder)


def _check_same(wanted: dict[str, Any], found: dict[str, Any], folder: Path) -> None:
    differences = {
        "lut_digest": "on another LUT",
        "settings": "with other settings",
        "train": "with other trainings",
        "trials": "of another grid",
    }
    for name, what in differences.items():
        if json.loads(json.dumps(wanted[name])) != found.get(name):
            raise BadInputError(f"the sweep in {folder} is {what}; go on with the same, or name another folder")


def read_record(folder: Path) -> dict[str, Any]:
    """sweep.json. Raises BadInputError when it is missing or damaged."""
    try:
        record = json.loads(files.read(folder / SWEEP))
        if isinstance(record, dict) and isinstance(record.get("trials"), list):
            return record
    except ValueError:
        pass
    raise BadInputError(f"{folder / SWEEP} is damaged; it is not what `nas sweep` wrote")


def trial_folder(folder: Path, number: int) -> Path:
    return folder / TRIALS / f"{number:02d}"


def trials_of(folder: Path) -> list[Trial]:
    return [Trial(number, trial_folder(folder, number)) for number in range(1, len(read_record(folder)["trials"]) + 1)]


def to_toml(config: SearchConfig | TrainConfig) -> str:
    """The settings as `load_settings` reads them."""
    values = asdict(config)
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = [f"{name} = {_toml(value)}" for name, value in values.items() if name not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join([*lines, ""])


def _toml(value: object) -> str:
    # JSON's strings, numbers and booleans are TOML's.
    return json.dumps(value, ensure_ascii=False)


# ---- engines: a trial is a process wherever it runs ------------------------------------------------------------------


def perform(trial: Trial) -> str:
    """Run one trial to its end; "" or why it failed, which is written into its folder too."""
    (trial.folder / FAILURE).unlink(missing_ok=True)
    while not trial.done:
        command = trial.command
        with (trial.folder / LOG).open("a") as log:
            done = subprocess.run(command, stdout=log, stderr=log, env=os.environ, check=False)
        stuck = not trial.done and trial.command == command
        if done.returncode != 0 or stuck:
            return _failed(trial, done.returncode)
    return ""


def _failed(trial: Trial, status: int) -> str:
    """Why, from the log; an interruption is none of the trial's failures."""
    lines = (trial.folder / LOG).read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
    reason = f"exit status {status}: {lines[-1]}"
    if status not in (INTERRUPTED, -signal.SIGINT):
        (trial.folder / FAILURE).write_text(reason + "\n")
    return reason


def run_local(trials: Sequence[Trial], jobs: int) -> Iterator[tuple[Trial, str]]:
    """Each trial and why it failed ("": it did not), as they end; `jobs` at a time on this machine."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(perform, trial): trial for trial in trials}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            # Ctrl-C reached the running processes too: they save and end, and no other one starts.
            pool.shutdown(cancel_futures=True)


def connect_ray(address: str) -> Any:
    """Ray, connected to the cluster at `address`; "" starts it on this machine.

    Raises BadInputError without Ray, and when no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise BadInputError(
            f"Ray is not there ({error}): pip install 'edgelut[ray]', or take --engine local"
        ) from error
    try:
        ray.init(address or None, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    except Exception as error:  # of any kind: Ray has none of its own for a node that does not start
        where = f"at {address}" if address else "on this machine"
        raise BadInputError(f"Ray does not answer {where}: {' '.join(str(error).split())}") from error
    return ray


def run_ray(trials: Sequence[Trial], ray: Any) -> Iterator[tuple[Trial, str]]:
    """The same on a Ray cluster whose nodes see the sweep's folder.

    A trial whose worker or node dies goes on elsewhere from its checkpoint, RAY_RETRIES times; then it has failed.
    """
    try:
        remote = ray.remote(max_retries=RAY_RETRIES)(perform)
        waiting = {remote.remote(trial): trial for trial in trials}
        while waiting:
            ended, _ = ray.wait(list(waiting))
            for reference in ended:
                trial = waiting.pop(reference)
                try:
                    reason = ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = f"its worker was lost: {type(error).__name__}"
                    (trial.folder / FAILURE).write_text(reason + "\n")
                yield trial, reason
    finally:
        ray.shutdown()
