"""A fleet with certificates, as docs/fleet.md says it: real commands, two boards, one revoked while it works."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.e2e.processes import SPEED, World


def free_port() -> int:
    """A port with a free one after it, for enrolment."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def enrol_board(world: World, name: str) -> None:
    invited = world.json("coordinator", "enroll", name, "--device-type", "rpi3b", "--json")
    assert invited["command"].split()[:3] == ["edgelut-agent", "enroll", "--token"]
    said = world.run(*invited["command"].split()).stdout
    assert f"This board is {name} (rpi3b)" in said
    assert "this token is not valid" in world.run(*invited["command"].split(), status=2).stderr


def board(name: str) -> tuple[str, ...]:
    return ("edgelut-agent", "emulate", "--device-type", "rpi3b", "--speed", SPEED, "--name", name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_enrolled_boards_share_a_run_and_one_is_revoked(world: World) -> None:
    address = f"127.0.0.1:{free_port()}"
    world.environment["EDGELUT_COORDINATOR"] = address
    world.run("coordinator", "ca", "init", "--operator", "alice", "--address", address)
    assert "holds an authority already" in world.run("coordinator", "ca", "init", status=2).stderr
    with world.started("coordinator", "serve", "--listen", address, ready="listening on"):
        enrol_board(world, "pi-01")
        enrol_board(world, "pi-02")
        assert "a board needs --device-type" in world.run("coordinator", "enroll", "pi-03", status=2).stderr.lower()
        connected = "connected to the coordinator"
        with world.started(*board("pi-01"), ready=connected), world.started(*board("pi-02"), ready=connected):
            command = ("coordinator", "profile", "--device", "rpi3b", "--space", "tiny.toml", "--preset", "quick")
            run_id = json.loads(world.run(*command, "--detach", "--json").stdout)["run_id"]
            world.wait_for('"busy"', "coordinator", "devices", "--json")
            assert "certificates 1" in world.run("coordinator", "revoke", "pi-01", "--reason", "lost").stdout
            world.wait_for('"gone"', "coordinator", "devices", "--json")
            world.run("coordinator", "runs", "watch", run_id)
            assert world.json("coordinator", "runs", "list", "--json")[0]["state"] == "done"
        reader = world.json("coordinator", "enroll", "search", "--role", "reader", "--json")
        elsewhere = World(make(world.folder / "elsewhere"))
        elsewhere.environment["EDGELUT_COORDINATOR"] = address
        elsewhere.run(*reader["command"].split())
        assert elsewhere.json("coordinator", "lut", "list", "--json")[0]["reference"].startswith("rpi3b/tiny@1")
        denied = elsewhere.run("coordinator", "revoke", "pi-02", status=2).stderr
        assert "search is a reader, who may not call Revoke" in denied
        listed = {one["holder"]["name"]: one for one in world.json("coordinator", "certificates", "--json")}
        assert set(listed) == {"alice", "pi-01", "pi-02", "search"}
        assert listed["pi-01"]["reason"] == "lost"


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder
