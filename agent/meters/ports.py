"""Serial ports, opened exclusively, with a sentence for everything that can be in the way."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import termios
from pathlib import Path

import serial
from serial.tools import list_ports

from protos.errors import BadInputError

# pyserial's SerialException is an OSError; flushing a port that has gone raises termios.error.
PORT_ERRORS = (OSError, termios.error)
WRITE_S = 2.0
SHARED_GROUP_MIN = 1  # nobody joins the group of root
GROUP_RW = stat.S_IRGRP | stat.S_IWGRP
READ_S = 0.1  # one wait for bytes; a frame that pauses for longer than a few of these is broken


def open_port(port: str, baud: int, who: str) -> serial.Serial:
    """Any pyserial port or URL; BadInputError names what is in the way and what to do about it. `who` begins the
    sentence.
    """
    if not port:
        raise BadInputError(f"{who}: the port is missing; write KIND:PORT, for example um25c:/dev/rfcomm0.{_present()}")
    try:
        write_timeout_s = None if "://" in port else WRITE_S  # rfc2217:// refuses one
        return serial.serial_for_url(port, baudrate=baud, timeout=READ_S, write_timeout=write_timeout_s, exclusive=True)
    except (*PORT_ERRORS, ValueError) as error:
        raise BadInputError(f"{who}: {explain(port, error)}") from error


def explain(port: str, error: Exception) -> str:
    """What a failed opening of `port` means and what to do."""
    number = getattr(error, "errno", None)
    text = str(error)
    if "://" in port:
        return f"{port} cannot be opened ({text}). Check the host, the port number and that the serial server runs."
    if number == errno.ENOENT:
        return f"{port} does not exist. Is the meter plugged in, or bound (rfcomm)?{_present()}"
    if number == errno.EACCES:
        return f"no permission for {port}: {_permission(port)}"
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text:
        return f"{port} is in use by {holder(port) or 'another process'}. End it, or take another port."
    if number == errno.EHOSTDOWN:
        return f"{port} is bound, but the meter does not answer on Bluetooth. Switch it on and bring it near."
    if number == errno.ENOTTY or "Inappropriate ioctl" in text:
        return f"{port} is no serial port.{_present()}"
    if number in (errno.ENXIO, errno.ENODEV, errno.EIO):
        return f"{port} is there, but no device is behind it ({text}). Plug the meter in again."
    return f"{port} cannot be opened: {text}."


def plugged_in(port: str) -> str:
    """What the system calls the USB device behind `port`; empty when it knows none."""
    path = os.path.realpath(port)
    items = (item for item in list_ports.comports() if item.vid is not None and os.path.realpath(item.device) == path)
    return next((str(item.product or item.description) for item in items), "")


def _present() -> str:
    found = [item.device for item in list_ports.comports()]
    return f" Ports here: {', '.join(sorted(found))}." if found else " This machine has no serial port."


def _permission(port: str) -> str:
    group, names_group = "dialout", True
    try:
        import grp

        found = Path(port).stat()
        group = grp.getgrgid(found.st_gid).gr_name
        names_group = found.st_mode & GROUP_RW == GROUP_RW and found.st_gid >= SHARED_GROUP_MIN
    except (ImportError, KeyError, OSError):
        pass  # not to be seen: the group that such ports have
    if names_group:
        return f"join its group with `sudo usermod -aG {group} $USER`, log in again, and try once more."
    return (
        f"only its owner may use it. Give it to the group dialout with `sudo chgrp dialout {port} && sudo chmod 660 "
        f'{port}` until it is plugged in again, or for good with a udev rule that says GROUP="dialout", '
        'MODE="0660"; and be a member of that group (`sudo usermod -aG dialout $USER`).'
    )


def holder(port: str) -> str:
    """Who has `port` locked, or else open: "name (pid 123)"; empty when that cannot be seen."""
    try:
        inode = Path(port).stat().st_ino
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return ""
    for fields in locks:  # 1: FLOCK ADVISORY WRITE 123 00:18:4 0 EOF
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            return _process_name(int(fields[4]))
    target = os.path.realpath(port)
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # the process has gone, or belongs to another user
            if os.path.realpath(link) == target:
                return _process_name(int(link.parts[2]))
    return ""


def _process_name(pid: int) -> str:
    if pid == os.getpid():
        return "this very process"
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
    except OSError:
        return f"pid {pid}"


def is_pseudo_terminal(port: str) -> bool:
    """No real meter hangs on a pseudo-terminal: whoever answers there is emulated."""
    return os.path.realpath(port).startswith("/dev/pts/")
