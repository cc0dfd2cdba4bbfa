"""`coordinator db`: copy, back up, check and prune the database."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.options import JsonOption, console, print_json
from coordinator.units import bytes_text
from protos.errors import BadInputError

if TYPE_CHECKING:
    from lut_store.database import Database
    from lut_store.retention import Pruned

app = typer.Typer(
    name="db",
    no_args_is_help=True,
    help="The database: copy it, back it up, check it, remove old raw measurements.",
    rich_markup_mode="rich",
)

EXIT_PROBLEMS = 1
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdwy])")
_AGE_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}

DbOption = Annotated[
    str,
    typer.Option(
        "--db",
        metavar="URL",
        help="The database: sqlite:///FILE or postgresql://USER@HOST/NAME. Default: the embedded one.",
    ),
]


@app.command("copy")
def copy_(
    source: Annotated[str, typer.Option("--from", metavar="URL", help="The database to copy.")],
    target: Annotated[
        str, typer.Option("--to", metavar="URL", help="An empty database, or a file that is to be made.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Copy a whole database into an empty one: SQLite to PostgreSQL, back, or to another place.

    Every version keeps its number and its digest. Runs may go on meanwhile; what they store after the beginning is not
    copied.

    [bold]Examples[/bold]

    coordinator db copy --from sqlite:///edgelut.db --to postgresql://edgelut@db.lab/edgelut
    """
    from lut_store.backup import discard
    from lut_store.database import Database
    from lut_store.engines import sqlite_file
    from lut_store.transfer import copy

    path = sqlite_file(target)
    made = path is not None and not path.exists()
    with opened(source) as there:
        try:
            with closing(Database(target)) as here, _progress() as progress:
                rows = copy(there, here, progress)
        except BaseException:
            if made and path is not None:
                discard(path)
            raise
        _report(there.name, here.name, rows, as_json=as_json)


@app.command()
def backup(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to make.")],
    db: DbOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write the whole database to one file, while runs go on.

    The file is an embedded database, also for PostgreSQL: --db sqlite:///FILE opens it, and copying it into an empty
    database restores it.

    [bold]Examples[/bold]

    coordinator db backup --output edgelut-2026-03-01.db
    """
    from lut_store.backup import backup as make

    with opened(db) as database, _progress() as progress:
        rows = make(database, output, progress)
    _report(database.name, str(output), rows, as_json=as_json)


@app.command()
def check(
    db: DbOption = "",
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="Leave out what the raw measurements say.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read everything and say what is wrong; status 1 when something is.

    [bold]Examples[/bold]

    coordinator db check
    """
    from lut_store.inspection import check as inspect

    with opened(db) as database, _progress() as progress:
        report = inspect(database, quick=quick, progress=progress)
    if as_json:
        print_json(report)
    else:
        print(f"{report.database}: schema {report.schema}, {bytes_text(report.size_bytes)}")
        print(f"  {_rows_text(report.rows)}")
        for problem in report.problems:
            print(f"  PROBLEM: {problem}")
        print(_problems_text(len(report.problems)))
    if report.problems:
        raise typer.Exit(EXIT_PROBLEMS)


@app.command()
def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Of the newest measurement of a run: 90d, 12w, 1y.")
    ],
    untagged: Annotated[
        bool,
        typer.Option(
            "--untagged", metavar="", help="Also what only versions without a tag need: these cannot be built anew."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Say what would go, and remove nothing.")
    ] = False,
    db: DbOption = "",
    as_json: JsonOption = False,
) -> None:
    """Remove the raw measurements of ended runs that no version needs. Versions themselves are never removed.

    [bold]Examples[/bold]

    coordinator db prune --older-than 90d --dry-run
    """
    from lut_store.retention import prune as remove

    before_wall_s = time.time() - age_s(older_than)
    with opened(db) as database:
        found = remove(database, before_wall_s, untagged=untagged, dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "removed": found.removed, "kept": found.kept})
    else:
        _print_pruned(found, dry_run=dry_run)


def age_s(text: str) -> float:
    """90d → 7776000. Raises BadInputError."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise BadInputError(f"--older-than {text!r} is no age; write for example 90d, 12w or 1y")
    return float(match[1]) * _AGE_S[match[2]]


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """The database at the URL, by default the embedded one, which must be there."""
    from lut_store.database import Database
    from lut_store.engines import require_existing
    from lut_store.paths import default_database_url

    url = url or default_database_url()
    require_existing(url)
    with closing(Database(url)) as database:
        yield database


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """Rows so far on a line of the terminal; nothing where there is none."""
    from lut_store.transfer import silent

    out = console(stderr=True)
    if not out.is_terminal:
        yield silent
        return
    with out.status("") as status:
        yield lambda table, rows: status.update(f"{table}: {rows}")


def _report(source: str, target: str, rows: Mapping[str, int], *, as_json: bool) -> None:
    if as_json:
        print_json({"from": source, "to": target, "rows": dict(rows)})
    else:
        print(f"{target} holds what {source} holds: {_rows_text(rows)}")


def _rows_text(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in rows.items() if count) or "nothing"


def _problems_text(count: int) -> str:
    return {0: "No problem was found.", 1: "1 problem was found."}.get(count, f"{count} problems were found.")


def _print_pruned(found: Pruned, *, dry_run: bool) -> None:
    for run in found.removed:
        print(f"  {run.run_id}  {run.state}  {run.measurements} measurements, {bytes_text(run.body_bytes)}")
    count, size = sum(r.measurements for r in found.removed), sum(r.body_bytes for r in found.removed)
    verb = "would be removed" if dry_run else "were removed"
    print(f"{count} measurements of {len(found.removed)} runs ({bytes_text(size)}) {verb}.")
    kept = ", ".join(f"{number} {reason}" for reason, number in found.kept.items() if number)
    if kept:
        print(f"Kept with all they have measured: {kept}.")
    if found.removed and not dry_run:
        print("The room is free for new measurements; a backup (coordinator db backup) is as small as it can be.")
