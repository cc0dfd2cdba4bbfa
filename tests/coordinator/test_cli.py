"""The command line without devices: help, errors, empty lists. In this process, which spares a start of Python each."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from coordinator.cli.app import app, main
from coordinator.cli.local import device_name, is_local, names
from coordinator.cli.outcome import validation_notes
from coordinator.cli.profile import new_run_id, notes
from coordinator.plan import make_run
from nas.space import load_space
from protos.types import Device, HostFacts, MeterInfo
from tests.e2e.processes import World

SPACE = load_space("fbnet-cifar10")


@dataclass(frozen=True)
class Done:
    status: int
    stdout: str
    stderr: str


class Here:
    """Runs commands in this process with the data, cache and folder of a world of their own."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.space = world.folder, world.space
        self._patch, self._capture = patch, capture
        patch.delenv("EDGELUT_COORDINATOR", raising=False)
        for key in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "COLUMNS"):
            patch.setenv(key, world.environment[key])
        patch.chdir(world.folder)

    def run(self, *command: str, status: int = 0) -> Done:
        self._patch.setattr("sys.argv", list(command))
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        said = self._capture.readouterr()
        assert code == status, said
        return Done(status, said.out, said.err)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(World(tmp_path), monkeypatch, capsys)


def commands() -> list[tuple[str, ...]]:
    """Every command with its group."""
    group = typer.main.get_command(app)
    found: list[tuple[str, ...]] = [()]
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        found.append((name,))
        found += [(name, inner) for inner in sorted(getattr(command, "commands", {}))]
    return found


def test_every_command_has_help_with_examples(here: Here) -> None:
    groups = {command[:1] for command in commands() if len(command) > 1}
    for command in commands():
        shown = here.run("coordinator", *command, "--help").stdout
        assert "Usage: coordinator" in shown
        if command and command not in groups:
            assert f"coordinator {' '.join(command)}" in shown.split("Examples")[1]


def test_the_version_is_printed(here: Here) -> None:
    assert re.fullmatch(r"edgelut \d+\.\d+\.\d+\n", here.run("coordinator", "--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("profile", "--device", "local", "--preset", "quik"), "did you mean 'quick'"),
        (("profile", "--device", "local", "--space", "fbnet-cifar"), "did you mean 'fbnet-cifar10'"),
        (("profile", "--device", "local", "--method", "path"), "did you mean 'paths'"),
        (("profile", "--device", "local", "--context", "hot"), "known: cold, steady"),
        (("profile", "--device", "local", "--threads", "4096"), "threads is 4096"),
        (("profile", "--device", "local", "--meter", "um25:/dev/null"), "did you mean 'um25c'"),
        (("profile", "--device", "local", "--meter", "um25c:/dev/nowhere"), "/dev/nowhere"),
        (("profile", "--device", "rpi3b"), "start `coordinator serve`"),
        (("profile", "--device", "local", "--detach"), "--detach needs a coordinator"),
        (("devices", "--coordinator", "127.0.0.1:1"), "no coordinator answers at 127.0.0.1:1"),
        (("lut", "show", "rpi3b"), "`coordinator profile` makes one"),
        (("lut", "show", "nothing.lut"), "nothing.lut"),
        (("lut", "list", "--context", "hot"), "known: cold, steady"),
        (("runs", "watch", "nothing"), "there is no run nothing"),
        (("serve", "--listen", "0.0.0.0:7443"), "there is no TLS"),
        (("serve", "--listen", "nonsense"), "HOST:PORT"),
        (("serve", "--db", "nonsense"), "nonsense"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(here: Here, arguments: tuple[str, ...], sentence: str) -> None:
    done = here.run("coordinator", *arguments, status=2)
    assert done.stdout == ""
    assert sentence in done.stderr
    assert done.stderr.splitlines()[-1].startswith("coordinator: ")


def test_a_space_file_with_a_mistake_is_named_with_line_and_field(here: Here) -> None:
    here.space.write_text(here.space.read_text().replace("repeats = 2, stride = 2", 'repeats = "2"'))
    said = here.run("coordinator", "profile", "--device", "local", "--space", "tiny.toml", status=2).stderr
    assert "tiny.toml" in said
    assert "repeats" in said
    assert "line 7" in said or ":7" in said


def test_lists_are_empty_and_say_what_to_do_next(here: Here) -> None:
    assert "edgelut-agent" in here.run("coordinator", "devices").stdout
    assert "coordinator profile" in here.run("coordinator", "runs").stdout
    assert "coordinator profile" in here.run("coordinator", "lut", "list").stdout
    for command in (("devices",), ("runs", "list"), ("lut", "list")):
        assert json.loads(here.run("coordinator", *command, "--json").stdout) == []
    assert list(here.folder.glob("data/edgelut/*.db")), "the embedded database is under XDG_DATA_HOME"


def test_commands_find_a_daemon_and_a_second_one_on_its_port_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.daemon() as address:
        assert world.json("coordinator", "devices", "--json") == []
        said = world.run("coordinator", "profile", "--device", "rpi3b", status=2).stderr
        assert "no agent of 'rpi3b' is connected" in said
        assert "edgelut-agent" in said
        assert "the port is taken" in world.run("coordinator", "serve", "--listen", address, status=2).stderr


def test_this_machine_is_one_device_whatever_its_name() -> None:
    assert device_name("my host.lan") == "my-host.lan"
    assert device_name("ÄÖ") == "local"
    assert len(device_name("x" * 100)) == 64
    assert names("pi") == ("local", "pi-local")
    assert is_local("local")
    assert is_local(names(socket.gethostname())[1])
    assert not is_local("rpi3b")


def test_notes_say_what_is_emulated_and_what_is_not_measured() -> None:
    real = Device("pi-01", "rpi3b", meter=MeterInfo("um25c"))
    spec = make_run(SPACE, "rpi3b")
    (only,) = notes(spec, [real])
    assert only == f"99 operators for 179 cells of fbnet-cifar10, and {len(spec.networks)} networks."
    assert any("EMULATED DEVICE (emu)" in n for n in notes(spec, [Device("emu", "rpi3b", "device")]))
    assert any("No meter on pi-02" in n for n in notes(spec, [Device("pi-02", "rpi3b")]))
    local = make_run(SPACE, "local", meter="emulated")
    assert any("EMULATED METER" in n for n in notes(local, [Device("me", "local")]))
    assert any("latency only" in n for n in notes(make_run(SPACE, "local", meter="none"), [Device("me", "local")]))


def test_a_space_that_does_not_fit_is_refused_before_the_run() -> None:
    from coordinator.cli.profile import announce
    from protos.errors import BadInputError

    small = Device("pi-zero", "rpi0", facts=HostFacts(memory_bytes=200 << 20))
    with pytest.raises(BadInputError, match="does not fit the memory of pi-zero"):
        announce(make_run(SPACE, "rpi0"), [small])


def test_run_ids_are_readable_and_differ() -> None:
    first, second = new_run_id(), new_run_id()
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", first)
    assert first != second


def test_a_shift_of_the_anchors_above_two_percent_is_a_finding() -> None:
    assert validation_notes({"anchor_factor": None, "anchors": 0})[0].startswith("No anchor network")
    assert "FINDING" not in validation_notes({"anchor_factor": 1.019, "anchors": 5})[0]
    assert validation_notes({"anchor_factor": 0.97, "anchors": 5})[0].startswith(
        "FINDING: 5 anchor networks take −3.00 %"
    )
