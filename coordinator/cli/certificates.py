"""`coordinator ca`, `enroll`, `join`, `revoke` and `certificates`: who may talk to this coordinator."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.options import CoordinatorOption, JsonOption, console, one_of, print_json
from protos.errors import BadInputError, NotFoundError
from protos.identity import ROLES

if TYPE_CHECKING:
    from rich.table import Table

    from lut_store.records import Issued

DAY_S = 86400.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S}

ca = typer.Typer(name="ca", help="The coordinator's own certificate authority: it turns TLS on.", no_args_is_help=True)
CaOption = Annotated[
    Path | None,
    typer.Option("--ca", envvar="EDGELUT_CA", metavar="DIR", help="The authority. Default: ca in the data directory."),
]


@ca.command()
def init(
    folder: CaOption = None,
    name: Annotated[str, typer.Option("--operator", metavar="NAME", help="Your own name, for your certificate.")] = "",
    address: Annotated[
        str, typer.Option("--address", metavar="HOST:PORT", help="Where you will reach the coordinator.")
    ] = "127.0.0.1:7443",
    db: Annotated[
        str, typer.Option("--db", metavar="URL", help="The coordinator's database. Default: the embedded one.")
    ] = "",
) -> None:
    """Make an authority, and a certificate for you as an operator on this machine.

    From then on `coordinator serve` speaks mutual TLS, and may listen beyond this machine.

    [bold]Examples[/bold]

    coordinator ca init

    coordinator ca init --operator alice --address 127.0.0.1:7500 --db postgresql://edgelut@db.lab/edgelut
    """
    import getpass

    from coordinator import ca as authorities
    from coordinator.client import checked_address
    from coordinator.sessions import check_name
    from lut_store.paths import authority_directory, default_database_url, identity_directory
    from lut_store.records import Invitation
    from lut_store.store import Store
    from protos.enrolment import keep, request

    checked_address(address)
    holder = Invitation(name or getpass.getuser(), "operator")
    check_name("--operator", holder.name)
    authority = authorities.init(folder or authority_directory(), time.time())
    store = Store(db or default_database_url())
    try:
        key, request_pem = request(holder.name)
        certificate_pem, issued = authority.issue(request_pem.decode(), holder, time.time())
        store.add_certificate(issued)
    finally:
        store.close()
    own = identity_directory(address)
    keep(own, key, certificate_pem, authority.certificate_pem)
    print(f"The authority is in {authority.folder}; whoever has authority-key.pem can be anybody: keep a backup of it.")
    print(f"Its fingerprint is {authority.fingerprint}.")
    print(f"You are the operator {holder.name} at {address}; your certificate is in {own}.")
    print("Next: coordinator serve --listen 0.0.0.0:7443, and coordinator enroll pi-01 --device-type rpi3b")


def enroll(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The board, or the person, as in pi-01 or alice.")],
    device_type: Annotated[
        str, typer.Option("--device-type", "-t", metavar="TYPE", help="What the board is, as in rpi3b.")
    ] = "",
    role: Annotated[
        str, typer.Option("--role", metavar="|".join(ROLES), help="Default: agent. A search engine is a reader.")
    ] = "agent",
    valid: Annotated[str, typer.Option("--valid", metavar="TIME", help="How long the token can be used.")] = "1h",
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a token that is good for one certificate, and print the command to run on the other machine.

    [bold]Examples[/bold]

    coordinator enroll pi-01 --device-type rpi3b

    coordinator enroll bob --role reader --valid 30m
    """
    from coordinator.cli.connect import connected
    from lut_store.records import Invitation
    from protos.tokens import Token

    one_of("role", role, ROLES)
    if role == "agent" and not device_type:
        raise BadInputError(f"what is {name}? A board needs --device-type TYPE, as in rpi3b; a person --role reader")
    valid_s = duration_s(valid)
    with connected(coordinator) as link:
        token, expires_wall_s = link.client.issue_token(Invitation(name, role, device_type), valid_s)
    command = f"edgelut-agent enroll --token {token}" if role == "agent" else f"coordinator join {token}"
    if as_json:
        where = Token.read(token)
        print_json(
            {
                "name": name,
                "role": role,
                "device_type": device_type,
                "token": token,
                "expires_wall_s": expires_wall_s,
                "coordinator": where.address,
                "command": command,
            }
        )
        return
    until = time.strftime("%H:%M:%S", time.localtime(expires_wall_s))
    print(f"On {name}, before {until} and once only:\n\n{command}\n")


def join(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="What `coordinator enroll` printed.")],
) -> None:
    """Exchange a token for this user's certificate, as an operator or a reader.

    [bold]Examples[/bold]

    coordinator join edgelut1.WyIxOTIuMTY4LjEuNTo3NDQzIi…
    """
    from lut_store.paths import identity_directory
    from protos.enrolment import enrol
    from protos.tokens import Token

    read = Token.read(token)
    if read.role == "agent":
        raise BadInputError(f"this token is for the board {read.name}: run there `edgelut-agent enroll --token …`")
    folder = identity_directory(read.address)
    identity = enrol(read, folder)
    until = time.strftime("%Y-%m-%d", time.localtime(identity.expires_wall_s))
    print(f"You are {identity.name}, {identity.role}, until {until}; your certificate is in {folder}.")
    print(f"Next: coordinator lut list --coordinator {read.address}")


def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose certificates and tokens.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="For those who read the list later.")] = "",
    coordinator: CoordinatorOption = "",
    as_json: JsonOption = False,
) -> None:
    """End all certificates and tokens of a name; an open session ends at once.

    [bold]Examples[/bold]

    coordinator revoke pi-01 --reason "stolen"
    """
    from coordinator.cli.connect import connected

    with connected(coordinator) as link:
        certificates_, tokens = link.client.revoke(name, reason)
    if as_json:
        print_json({"name": name, "certificates": certificates_, "tokens": tokens})
    else:
        print(f"Revoked of {name}: certificates {certificates_}, tokens {tokens}.")


def certificates(coordinator: CoordinatorOption = "", as_json: JsonOption = False) -> None:
    """List the certificates: who, as what, until when.

    [bold]Examples[/bold]

    coordinator certificates --json
    """
    from coordinator.cli.connect import connected

    with connected(coordinator) as link:
        issued = link.client.certificates()
    if as_json:
        print_json(issued)
    elif issued:
        console().print(table(issued))
    else:
        raise NotFoundError("no certificate has been issued: coordinator ca init, then coordinator enroll NAME")


def table(issued: Sequence[Issued]) -> Table:
    """One row per certificate."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("name", "role", "type", "issued", "expires", "revoked", "serial"):
        found.add_column(column, no_wrap=True)
    for one in issued:
        revoked = "" if one.revoked_wall_s is None else f"{_day(one.revoked_wall_s)} {one.reason}".strip()
        found.add_row(
            one.holder.name,
            one.holder.role,
            one.holder.device_type,
            _day(one.issued_wall_s),
            _day(one.expires_wall_s),
            revoked,
            one.serial[:12],
            style="dim" if revoked else "",
        )
    return found


def _day(wall_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(wall_s))


def duration_s(text: str) -> float:
    """Seconds of a time like 90s, 30m, 1h or 7d. Raises BadInputError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise BadInputError(f"--valid is {text!r}; write a time like 30m, 1h or 2d")
    return float(found[1]) * _UNITS_S[found[2]]
