"""`coordinator serve`: the daemon."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="The address to serve. Without TLS: loopback only.")
    ] = "127.0.0.1:7443",
    db: Annotated[
        str,
        typer.Option("--db", metavar="URL", help="The database. Default: the embedded one, in the XDG data directory."),
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", metavar="", help="Log what happens in detail.")] = False,
) -> None:
    """Run the coordinator: agents and commands connect to it.

    Ctrl-C stops it. What was acknowledged is stored, and runs go on when it is back.

    [bold]Examples[/bold]

    coordinator serve

    coordinator serve --listen 127.0.0.1:7500 --db sqlite:////srv/edgelut/edgelut.db
    """
    import asyncio
    import logging

    from coordinator.server import serve as serve_until_stopped
    from lut_store.paths import default_database_url

    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", force=True)
    for noisy in ("grpc", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    url = db or default_database_url()

    def ready(address: str) -> None:
        print(f"coordinator: listening on {address}, database {url}", flush=True)

    asyncio.run(serve_until_stopped(listen, url, ready=ready))
