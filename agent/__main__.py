"""The `edgelut-agent` command. What is slow to load is imported inside the commands, so that the daemon stays small."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # before it is loaded: it would write of every lost connection itself

from agent import logs
from agent.cli.options import COMMANDS
from agent.options import certificate_directory, parse
from protos.errors import EdgelutError, UnavailableError

if TYPE_CHECKING:
    from agent.daemon import Agent

log = logging.getLogger("agent")

ONCE_PATIENCE_S = 15.0


def run(options: argparse.Namespace) -> None:
    """The daemon on a real board."""
    from agent.calibration_store import CalibrationStore
    from agent.daemon import Agent, Identity
    from agent.metering import Follow, Meters
    from agent.runner import WorkerRunner
    from agent.spool import Spool
    from agent.worker import die_with_parent

    if options.once:
        die_with_parent(os.getppid(), signal.SIGTERM)
    spool = Spool(options.state_dir)

    async def serve() -> None:
        runner = WorkerRunner()
        follow = Follow(lambda: runner.worker_pid, runner.own_pids)
        meters = Meters(options.meter, runner.clock, follow, calibrations=CalibrationStore(options.calibrations))
        identity = Identity(options.name, options.device_type, certificate=certificate(options.identity))
        patience_s = ONCE_PATIENCE_S if options.once else None
        agent = Agent(identity, runner, meters, spool, options.coordinator, patience_s)
        _stop_by_signal([agent])
        try:
            await agent.run()
        except UnavailableError as error:
            if not agent.was_connected:
                raise
            log.info("%s; ending, as --once asks", error)

    _serve(serve())


def certificate(folder: Path | None) -> Path | None:
    """The folder when it holds an identity. Raises BadInputError for a damaged one."""
    from protos.identity import load

    return folder if folder is not None and load(folder) is not None else None


def emulate(options: argparse.Namespace) -> None:
    """Emulated boards, all in this process."""
    from agent.emulate import check, emulated_agent, serve

    check(options)
    if options.name:
        options.identity = certificate(options.identity or certificate_directory(options.name))

    async def serve_all(folder: Path) -> None:
        async with contextlib.AsyncExitStack() as stack:
            agents = []
            for number in range(1, options.count + 1):
                name = options.name or f"{options.device_type}-emu-{number}"
                board = emulated_agent(name, number, options, folder)
                agents.append(await stack.enter_async_context(board))
            _stop_by_signal(agents)
            await serve(agents)

    with tempfile.TemporaryDirectory(prefix="edgelut-emulate-") as folder:
        _serve(serve_all(Path(folder)))


def _stop_by_signal(agents: Sequence[Agent]) -> None:
    """SIGTERM and Ctrl-C stop in good order; the second one at once."""
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            os._exit(130)
        stopping = True
        for agent in agents:
            agent.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def _serve(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end; of several agents' errors the first is raised."""
    try:
        asyncio.run(work)
    except* EdgelutError as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. A domain error is one sentence on stderr and exit status 2."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        if options.command == "emulate-meter":
            from agent.emulator.meter import main as serve_meter

            return serve_meter(options.arguments)
        logs.set_up(verbose=options.verbose)
        if options.command in (*COMMANDS, "enroll", "renew"):
            return int(import_module(f"agent.cli.{options.command}").main(options))
        {"run": run, "emulate": emulate}[options.command](options)
    except EdgelutError as error:
        print(f"edgelut-agent: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
