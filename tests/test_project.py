"""The project's own files: what the README promises, what set-up chooses, what an import loads."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def shell_lines(text: str) -> list[str]:
    """The commands in the ```sh blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]


def test_every_command_in_the_readme_parses() -> None:
    from agent.options import parse
    from coordinator.cli.app import app

    group: Any = typer.main.get_command(app)
    seen = set()
    for line in shell_lines(README):
        words = shlex.split(line, comments=True)
        program, arguments = Path(words[0]).name, words[1:]
        if program == "coordinator":
            seen.add(program)
            command, rest = group, arguments
            while hasattr(command, "commands"):
                command, rest = command.commands[rest[0]], rest[1:]
            command.make_context(command.name, rest)
        elif program == "edgelut-agent":
            seen.add(program)
            assert isinstance(parse(arguments), argparse.Namespace)
        elif program == "make":
            seen.add(program)
            done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    assert seen == {"coordinator", "edgelut-agent", "make"}


@pytest.mark.parametrize("document", sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("*.md")))
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{document} names {target}"


def test_make_lists_its_targets() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "demo", "test", "lint", "protos", "bench", "bench-long", "clean"):
        assert f"make {target} " in shown


def test_the_import_rules_find_what_they_forbid() -> None:
    check = script("check_imports")
    assert check.broken(check.Rule("x", frozenset({"torch"})), ["os", "torch", "torch.nn"]) == ["torch"]
    rule = check.Rule("x", only={"nas": frozenset({"nas.space"})})
    assert check.broken(rule, ["nas", "nas.space", "nas.space.more", "nas.cost"]) == ["nas.cost"]
    with pytest.raises(RuntimeError, match="import nothing_of_that_name fails"):
        check.loaded_by("nothing_of_that_name")


def test_the_agent_and_the_client_load_nothing_heavy() -> None:
    check = script("check_imports")
    for rule in check.RULES:
        if rule.module in ("agent.daemon", "coordinator.client"):
            assert check.broken(rule, check.loaded_by(rule.module)) == []


def test_setup_sees_cuda_packages_that_apply_to_this_machine() -> None:
    install = script("install")
    asked = [
        "filelock",
        'nvidia-cublas-cu12==12.8; platform_system == "Nowhere"',
        "cuda-bindings>=13; platform_system != 'Nowhere'",
        "triton==3.7; platform_system != 'Nowhere'",
        'nvidia-nothing; extra == "some"',
    ]
    assert install.cuda_packages(asked) == ["cuda-bindings", "triton"]
    assert install.cuda_packages([]) == []


def test_setup_and_packaging_agree_on_torch() -> None:
    install = script("install")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in ("agent", "nas"):
        asked = [line for line in project["optional-dependencies"][extra] if line.startswith("torch")]
        assert any("2.9.1" in line and "aarch64" in line for line in asked)
    assert install.TORCH in ("2.9.1", "2.13.0")


def test_the_version_stands_in_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {version}" in changelog or "## Unreleased" in changelog
    assert "Apache License" in (ROOT / "LICENSE").read_text()
