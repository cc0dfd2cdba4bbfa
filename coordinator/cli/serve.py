"""`coordinator serve`: the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.certificates import CaOption

if TYPE_CHECKING:
    from coordinator.server import Tls


def serve(
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="The address to serve. Without TLS: loopback only.")
    ] = "127.0.0.1:7443",
    db: Annotated[
        str,
        typer.Option("--db", metavar="URL", help="The database. Default: the embedded one, in the XDG data directory."),
    ] = "",
    folder: CaOption = None,
    no_tls: Annotated[
        bool, typer.Option("--no-tls", metavar="", help="In the clear, on loopback only, though there is an authority.")
    ] = False,
    enrol_listen: Annotated[
        str,
        typer.Option("--enrol-listen", metavar="HOST:PORT", help="Where boards enrol. Default: the next port."),
    ] = "",
    advertise: Annotated[
        str, typer.Option("--advertise", metavar="HOST", help="This machine, as tokens name it to the boards.")
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", metavar="", help="Log what happens in detail.")] = False,
) -> None:
    """Run the coordinator: agents and commands connect to it.

    Ctrl-C stops it. What was acknowledged is stored, and runs go on when it is back.

    [bold]Examples[/bold]

    coordinator serve

    coordinator ca init && coordinator serve --listen 0.0.0.0:7443 --advertise lab.local

    coordinator serve --listen 127.0.0.1:7500 --db sqlite:////srv/edgelut/edgelut.db

    coordinator serve --db postgresql://edgelut@db.lab/edgelut
    """
    import asyncio
    import gc
    import logging

    from coordinator.server import serve as serve_until_stopped
    from lut_store.engines import shown
    from lut_store.paths import authority_directory, default_database_url

    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", force=True)
    for noisy in ("grpc", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    url = db or default_database_url()

    def ready(address: str) -> None:
        # What is loaded now stays. Looking at it again and again was a third of the CPU time of ingest.
        gc.collect()
        gc.freeze()
        print(f"coordinator: listening on {address}, database {shown(url)}", flush=True)

    tls = None if no_tls else _tls(folder or authority_directory(), folder is not None, enrol_listen, advertise)
    asyncio.run(serve_until_stopped(listen, url, ready=ready, tls=tls))


def _tls(folder: Path, named: bool, enrol_listen: str, advertise: str) -> Tls | None:
    """TLS with the authority in `folder`; None when there is none and none was named."""
    from coordinator import ca
    from coordinator.server import Tls

    return Tls(ca.Authority(folder), enrol_listen, advertise) if named or ca.exists(folder) else None
