"""Who a process is to a coordinator: a folder with its key, its certificate and the authority's, and the channel that
they make.

Every certificate comes from the coordinator's own authority, and only coordinators get one for SERVER_NAME, so that is
the name that is checked, whatever address or tunnel leads there.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from protos.errors import BadInputError

SERVER_NAME = "edgelut-coordinator"
ROLES = ("agent", "operator", "reader")
RENEW_AT = 2 / 3  # of a certificate's life
_KEY, _CERTIFICATE, _AUTHORITY, _ABOUT = "key.pem", "certificate.pem", "authority.pem", "identity.json"

Options = Sequence[tuple[str, int | str]]


@dataclass(frozen=True)
class Identity:
    """What stands in the certificate. device_type is empty for people; times are wall times in seconds."""

    name: str
    role: str
    device_type: str = ""
    issued_wall_s: float = 0.0
    expires_wall_s: float = 0.0

    @property
    def renew_wall_s(self) -> float:
        """When to ask for the next certificate."""
        return self.issued_wall_s + RENEW_AT * (self.expires_wall_s - self.issued_wall_s)


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT stays on this machine."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(folder: Path) -> Identity | None:
    """The identity in `folder`; None when there is none. Raises BadInputError for one that is damaged."""
    try:
        text = (folder / _ABOUT).read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInputError(f"the identity in {folder} cannot be read: {error.strerror}") from error
    try:
        about: Mapping[str, object] = json.loads(text)
        return Identity(
            str(about["name"]),
            str(about["role"]),
            str(about["device_type"]),
            float(str(about["issued_wall_s"])),
            float(str(about["expires_wall_s"])),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{folder / _ABOUT} is damaged; enroll again") from error


def save(folder: Path, identity: Identity, key_pem: bytes, certificate_pem: bytes, authority_pem: bytes) -> None:
    """Put a whole identity in place at once: a reader finds the old one or the new one. Only the owner may read it.

    Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    generation = folder.with_name(f".{folder.name}-{mark}")
    generation.mkdir(mode=0o700)
    contents = {
        _KEY: key_pem,
        _CERTIFICATE: certificate_pem,
        _AUTHORITY: authority_pem,
        _ABOUT: json.dumps(asdict(identity), indent=1).encode(),
    }
    for name, data in contents.items():
        descriptor = os.open(generation / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    # A name that is a link can be exchanged in one step, a folder cannot.
    before = folder.resolve() if folder.is_symlink() else None
    link = folder.with_name(f".{folder.name}.link-{mark}")
    link.symlink_to(generation.name)
    link.replace(folder)
    if before is not None:
        for path in before.iterdir():
            path.unlink()
        before.rmdir()


def credentials(folder: Path) -> grpc.ChannelCredentials:
    """Of the identity in `folder`. Raises BadInputError when a part is missing."""
    try:
        authority, key, certificate = ((folder / name).read_bytes() for name in (_AUTHORITY, _KEY, _CERTIFICATE))
    except OSError as error:
        raise BadInputError(f"the identity in {folder} is incomplete ({error.strerror}); enroll again") from error
    return grpc.ssl_channel_credentials(authority, key, certificate)


def tls_options(options: Options) -> Options:
    """A channel's options with the server's name."""
    return (*options, ("grpc.ssl_target_name_override", SERVER_NAME))


def channel(address: str, folder: Path | None, options: Options) -> grpc.Channel:
    """A channel to a coordinator: mutual TLS with the identity in `folder`; in the clear without one, on this machine
    only. Raises BadInputError for another machine without an identity.
    """
    if folder is None:
        check_clear(address)
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, credentials(folder), options=tls_options(options))


def aio_channel(address: str, folder: Path | None, options: Options) -> grpc.aio.Channel:
    """`channel` for asyncio."""
    if folder is None:
        check_clear(address)
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, credentials(folder), tls_options(options))


def check_clear(address: str) -> None:
    """Raises BadInputError when a connection to `address` would leave this machine in the clear."""
    if not is_loopback(address):
        raise BadInputError(
            f"{address} is another machine, and this one has no certificate for it: on the coordinator's machine run "
            "`coordinator enroll NAME` (a board also needs --device-type TYPE) and do here what it prints"
        )
