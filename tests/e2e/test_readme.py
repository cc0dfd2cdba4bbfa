"""The three terminals and the Python example of the README, as printed but for address, speed and folder."""

from __future__ import annotations

import re
import shlex
import sys

import pytest

from tests.e2e.processes import ROOT, SPEED, World

README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    """The text under a heading."""
    return README.split(f"## {title}")[1].split("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_three_terminals_and_the_python_example_work(world: World) -> None:
    serve, emulate, profile = blocks(section("Without hardware: three terminals"), "sh")
    assert serve.strip() == "coordinator serve"
    (example,) = blocks(section("In a search"), "python")
    agent = re.sub(r"--speed \d+", f"--speed {SPEED}", emulate).split()
    assert SPEED in agent
    with world.daemon() as address, world.started(*agent, ready="connected to the coordinator"):
        said = [world.run(*shlex.split(line)).stdout for line in profile.splitlines()]
        world.run(sys.executable, "-c", example.replace("127.0.0.1:7443", address))
    assert "rpi3b/fbnet-cifar10@1" in said[0]
    assert "EMULATED DEVICE" in said[1]
    assert (world.folder / "heatmap.png").exists()
    assert (world.folder / "rpi3b.lut").exists()
