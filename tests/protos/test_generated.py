"""The generated modules are those of the .proto files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROTOS = sorted(path.relative_to(ROOT) for path in (ROOT / "protos").glob("*.proto"))


def test_the_generated_modules_are_fresh(tmp_path: Path) -> None:
    """When this fails: `make protos`, and commit what changed."""
    kinds = ("python", "grpc_python", "mypy", "mypy_grpc")
    outputs = [f"--{kind}_out={tmp_path}" for kind in kinds]
    # The mypy plugins are programs that protoc looks for; they stand beside this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *map(str, PROTOS)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, check=True)
    fresh = {file.name: file.read_text(encoding="utf-8") for file in (tmp_path / "protos").iterdir()}
    committed = {
        file.name: file.read_text(encoding="utf-8") for file in (ROOT / "protos").glob("*_pb2*") if file.is_file()
    }
    assert set(fresh) == set(committed)
    assert len(fresh) == 4 * len(PROTOS)
    stale = [name for name in fresh if fresh[name] != committed[name]]
    assert not stale, f"run `make protos`: {', '.join(stale)}"
