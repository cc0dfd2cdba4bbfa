"""This machine as a device: an agent that is started for one run and ended after it."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from coordinator.cli.connect import Link
from protos.errors import ConflictError, UnavailableError
from protos.types import Device

DEVICE_TYPE = "local"
APPEAR_S = 60.0  # the agent imports gRPC and opens its meter; a loaded Pi is slow
TOKEN_S = 300.0  # it is used at once
POLL_S = 0.2
END_S = 10.0
LOG_LINES = 6
SENTENCE = "edgelut-agent: "  # begins what the agent says of a domain error
CONNECTED = ("idle", "busy", "broken")


def device_name(hostname: str) -> str:
    """A host's name as a device's: letters, digits, dots, dashes and underscores, at most 64."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", hostname).strip("-._")[:64]
    return name or DEVICE_TYPE


def names(hostname: str) -> tuple[str, str]:
    """This machine as a run's device: with a coordinator of its own, and with one that other machines may share."""
    return DEVICE_TYPE, f"{device_name(hostname)[:50]}-{DEVICE_TYPE}"


def is_local(device: str) -> bool:
    """Whether a run on `device` is one on this machine with an agent that is started for it."""
    return device in names(socket.gethostname())


def spec_device(link: Link) -> str:
    """What a run on this machine names as its device: another machine of type `local` must not take a share of it."""
    return names(socket.gethostname())[0 if link.embedded else 1]


@contextmanager
def local_agent(link: Link, meter: str, state_dir: Path | None = None) -> Iterator[Device]:
    """Run an agent on this machine until the block ends; gives the device as the coordinator sees it.

    meter: as `edgelut-agent run --meter` takes it, or "none"; state_dir: of the agent, when not the usual one. Raises
    UnavailableError when the agent does not come up,
    with what it said, and ConflictError when there is one already.
    """
    hostname = socket.gethostname()
    name = device_name(hostname) if link.embedded else names(hostname)[1]
    if any(device.name == name and device.state in CONNECTED for device in link.client.devices()):
        raise ConflictError(
            f"this machine is being profiled already: its device {name} is connected; wait for that run"
        )
    command = [sys.executable, "-m", "agent", "run", "--coordinator", link.address]
    command += ["--device-type", DEVICE_TYPE, "--name", name, "--once", "--meter", meter]
    if state_dir is not None:
        command += ["--state-dir", str(state_dir)]
    certificate = _certificate(link, name)
    if certificate is not None:
        command += ["--identity", str(certificate)]
    with tempfile.TemporaryDirectory(prefix="edgelut-") as folder, (Path(folder) / "agent.log").open("w+") as log:
        # A session of its own: Ctrl-C is for the command, which then ends the agent in order.
        agent = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield _appeared(link, name, agent, log)
        finally:
            _end(agent)


def _certificate(link: Link, name: str) -> Path | None:
    """The folder of the agent's certificate, which this user, an operator, gets for it; None without TLS."""
    from coordinator.client import own_identity
    from lut_store.records import Invitation
    from protos.enrolment import enrol
    from protos.identity import load
    from protos.tokens import Token

    own = own_identity(link.address)
    if own is None:
        return None
    folder = own.with_name(f"{own.name}-{name}")
    identity = load(folder)
    if identity is None or time.time() > identity.renew_wall_s:
        token, _ = link.client.issue_token(Invitation(name, "agent", DEVICE_TYPE), TOKEN_S)
        enrol(Token.read(token), folder)
    return folder


def _appeared(link: Link, name: str, agent: subprocess.Popen[bytes], log: IO[str]) -> Device:
    deadline_s = time.monotonic() + APPEAR_S
    while time.monotonic() < deadline_s:
        if agent.poll() is not None:
            raise UnavailableError(f"the agent on this machine cannot start: {_said(log)}")
        found = next((d for d in link.client.devices() if d.name == name and d.state in CONNECTED), None)
        if found is not None and found.state == "broken":
            raise UnavailableError(f"the agent on this machine cannot measure: {found.reason}")
        if found is not None:
            return found
        time.sleep(POLL_S)
    raise UnavailableError(f"the agent on this machine did not connect within {APPEAR_S:.0f} s: {_said(log)}")


def _said(log: IO[str]) -> str:
    """The agent's last sentence for people, else the end of its log."""
    log.seek(0)
    lines = [line.strip() for line in log.readlines() if line.strip()]
    sentences = [line.removeprefix(SENTENCE) for line in lines if line.startswith(SENTENCE)]
    return sentences[-1] if sentences else " / ".join(lines[-LOG_LINES:]) or "it said nothing"


def _end(agent: subprocess.Popen[bytes]) -> None:
    """Ask the agent to end, insist when it does not."""
    if agent.poll() is None:
        agent.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            agent.wait(END_S)
    if agent.poll() is None:
        agent.kill()
        agent.wait()
