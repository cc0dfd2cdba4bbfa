"""The agent as a service, installed by the script into a booted Debian: `make soak` (some minutes; needs root and a
mirror of Debian).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, World
from tests.e2e.test_tls import free_port

NEEDED = ("mmdebstrap", "systemd-nspawn", "unshare")
PACKAGES = "systemd,systemd-sysv,udev,dbus,python3,python3-venv,ca-certificates"
WHEELS = ("torch", "numpy>=1.26", "cryptography", "psutil", "pyserial", "rich", "grpcio", "protobuf", "setuptools>=77")
BUILD_S, BOOT_S = 1200.0, 2400.0

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(4000),
    pytest.mark.skipif(os.geteuid() != 0, reason="booting a system needs root"),
    *(pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed") for name in NEEDED),
]

SCRIPT = """#!/bin/bash
exec > /repo/out.log 2>&1
mark() {{ echo "MARK $*"; }}
state() {{ systemctl show -P "$1" edgelut-agent; }}
/repo/deploy/install-agent.sh --offline /repo/wheels --token {token} --meter none; mark installed $?
until [ -e /repo/profiled ]; do sleep 1; done
touch /var/lib/edgelut-agent/spool/waits.kept
/repo/deploy/install-agent.sh --offline /repo/wheels; mark upgraded $? $(state ActiveState)
[ -e /var/lib/edgelut-agent/spool/waits.kept ]; mark kept $?
kill -STOP $(state MainPID)
until [ "$(state NRestarts)" = 1 ] && [ "$(state ActiveState)" = active ]; do sleep 1; done; mark restarted
systemctl stop edgelut-agent; mark stopped $(state Result)
/repo/deploy/install-agent.sh --uninstall; mark removed $?
ls -d /opt/edgelut /etc/edgelut /etc/systemd/system/edgelut-agent.service; id edgelut && mark user stays
[ -e /var/lib/edgelut-agent/identity/key.pem ]; mark data $?
mark end
systemctl poweroff
"""
UNIT = """[Unit]
After=multi-user.target
[Service]
ExecStart=/repo/test.sh
[Install]
WantedBy=multi-user.target
"""
BOOT = """umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
exec systemd-nspawn -D {root} -b --register=no --keep-unit --console=pipe < /dev/null
"""


def build(folder: Path) -> Path:
    """The root of a Debian with this repository's installer and wheels. Skips where no mirror can be reached."""
    root, pip = folder / "root", str(ROOT / ".venv" / "bin" / "pip")
    command = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S)
    if made.returncode:
        pytest.skip(f"no Debian could be made: {made.stderr.strip()[-200:]}")
    wheels = root / "repo" / "wheels"
    wheels.mkdir(parents=True)
    subprocess.run([pip, "download", "-q", "-d", str(wheels), *WHEELS], check=True, timeout=BUILD_S)
    subprocess.run([pip, "wheel", "-q", "--no-deps", "-w", str(wheels), str(ROOT)], check=True, timeout=BUILD_S)
    shutil.copytree(ROOT / "deploy", root / "repo" / "deploy")
    return root


def test_installed_profiled_upgraded_killed_by_the_watchdog_and_removed(tmp_path: Path) -> None:
    root, world = build(tmp_path), World(tmp_path)
    address = f"127.0.0.1:{free_port()}"
    world.environment["EDGELUT_COORDINATOR"] = address
    world.run("coordinator", "ca", "init", "--address", address)
    with world.started("coordinator", "serve", "--listen", address, ready="listening on"):
        token = world.json("coordinator", "enroll", "pi-01", "--device-type", "testboard", "--json")["token"]
        script, unit = root / "repo" / "test.sh", root / "etc" / "systemd" / "system" / "edgelut-test.service"
        script.write_text(SCRIPT.format(token=token))
        script.chmod(0o755)
        unit.write_text(UNIT)
        wants = unit.parent / "multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / unit.name).symlink_to(f"../{unit.name}")
        with (tmp_path / "boot.log").open("w") as log:
            boot = subprocess.Popen(["unshare", "-m", "bash", "-c", BOOT.format(root=root)], stdout=log, stderr=log)
            try:
                wait_for(root, "MARK installed 0")
                world.wait_for('"idle"', "coordinator", "devices", "--json")
                command = ("coordinator", "profile", "--device", "testboard", "--space", "tiny.toml")
                done = world.json(*command, "--preset", "quick", "--json")
                assert done["reference"] == "testboard/tiny@1"
                (root / "repo" / "profiled").touch()
                found = wait_for(root, "MARK end")
                boot.wait(120)
            finally:
                boot.kill()
                boot.wait()
    for mark in ("upgraded 0 active", "kept 0", "restarted", "stopped success", "removed 0", "data 0"):
        assert f"MARK {mark}" in found
    assert "MARK user" not in found
    assert "/etc/edgelut\n" not in found


def wait_for(root: Path, mark: str) -> str:
    """The log of the script once it holds the mark."""
    log, deadline_s = root / "repo" / "out.log", time.monotonic() + BOOT_S
    while time.monotonic() < deadline_s:
        text = log.read_text(errors="replace") if log.exists() else ""
        if mark in text:
            return text
        time.sleep(1)
    raise AssertionError(f"{mark} never came: {text[-2000:]}")
