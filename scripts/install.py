"""Installs edgelut and its dependencies into the virtual environment that runs this; called by scripts/setup.

Torch needs thought: a plain `pip install torch` on an x86 server brings gigabytes of CUDA packages. In this order:

1. a CPU build of the right version that is already there is kept;
2. TORCH_INDEX_URL, when set, is where it comes from;
3. pip is asked what it would take; a file that needs no CUDA packages is taken;
4. else uv, which knows where the CPU builds live, installs one.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A Pi's wheels newer than 2.9.1 need CUDA libraries or die with SIGILL on a Cortex-A53/A72 (docs/decisions/0002).
TORCH = "2.9.1" if platform.machine() == "aarch64" else "2.13.0"
CUDA = re.compile(r"^(nvidia|cuda|triton|pytorch-triton)\b")
# Older ones (Debian 12 has 23.0) download a whole wheel to read its requirements.
PIP = "pip>=24.1"


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def pip(*arguments: str) -> None:
    # setuptools warns about editable installations of top-level packages; here that is meant.
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "pip", "install", "--quiet", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    importlib.invalidate_caches()


def cuda_packages(requirements: list[str]) -> list[str]:
    """The names of the CUDA packages among `requirements` that apply to this machine."""
    from packaging.requirements import Requirement

    needed = []
    for text in requirements:
        requirement = Requirement(text)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and CUDA.match(requirement.name):
            needed.append(requirement.name)
    return needed


def installed_torch() -> str | None:
    """The version of a torch that is already here and fits: the pinned release, without CUDA packages."""
    try:
        found = metadata.distribution("torch")
    except metadata.PackageNotFoundError:
        return None
    if found.version.split("+")[0] != TORCH or cuda_packages(found.requires or []):
        return None
    return found.version


def what_pip_would_take() -> tuple[str, list[str]]:
    """The file name that pip would choose for torch and the CUDA packages that it needs."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
    report = subprocess.run(
        [*command, "--report", "-", f"torch=={TORCH}"], check=True, stdout=subprocess.PIPE, text=True
    )
    (choice,) = json.loads(report.stdout)["install"]
    name = choice["download_info"]["url"].rsplit("/", 1)[-1].replace("%2B", "+")
    return name, cuda_packages(choice["metadata"].get("requires_dist", []))


def install_torch() -> str:
    """Make sure that a CPU build of torch is here; the version that it has."""
    version = installed_torch()
    if version:
        say(f"torch {version} is already here and needs no CUDA packages: kept")
        return version
    index = os.environ.get("TORCH_INDEX_URL")
    if index:
        say(f"torch {TORCH} comes from TORCH_INDEX_URL")
        pip("--no-deps", "--index-url", index, f"torch=={TORCH}")
    else:
        name, cuda = what_pip_would_take()
        if not cuda:
            say(f"pip would take {name}, which needs no CUDA packages: taken")
            pip(f"torch=={TORCH}")
        else:
            say(f"pip would take {name}, which needs {len(cuda)} CUDA packages ({cuda[0]}, …): left")
            say("uv knows where the CPU builds live: torch comes through it (TORCH_INDEX_URL names another place)")
            pip("uv")
            uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
            subprocess.run([*uv, "--torch-backend=cpu", f"torch=={TORCH}"], check=True, cwd=ROOT)
            importlib.invalidate_caches()
    return metadata.version("torch")


def main() -> int:
    try:
        pip("--upgrade", PIP, "packaging")
        version = install_torch()
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraint:
            constraint.write(f"torch=={version}\n")
            constraint.flush()
            say("installing edgelut with all its parts and the development tools (minutes, the first time)")
            pip("--constraint", constraint.name, "--editable", ".[all,dev]")
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd[1:]))
        print(f"setup: this command failed with status {error.returncode}: {command}", file=sys.stderr)
        if "torch" in command:
            print("setup: set TORCH_INDEX_URL to a package index that has a CPU build of torch", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
