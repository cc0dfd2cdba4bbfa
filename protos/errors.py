"""Domain errors, and the one table from each to a gRPC status and back to the same error with its message kept."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import grpc


class EdgelutError(Exception):
    """A problem that a person can understand and act on: its text says what is wrong, where, and what to do."""


class BadInputError(EdgelutError):
    """What was asked for cannot be."""


class NotFoundError(EdgelutError):
    """What was named does not exist."""


class AmbiguousError(EdgelutError):
    """What was named fits several things."""


class ConflictError(EdgelutError):
    """It contradicts what is already there."""


class StaleLeaseError(EdgelutError):
    """The lease was given to another device, or has ended."""


class StorageError(EdgelutError):
    """It could not be stored: the disk is full, the database is read-only or of another version."""


class UnavailableError(EdgelutError):
    """The coordinator cannot be reached."""


class IncompatibleError(EdgelutError):
    """The two ends are of versions that do not understand each other."""


def unknown(what: str, name: str, known: Iterable[str]) -> BadInputError:
    """The error for a name that is not among `known`: it says what there is and which one was probably meant."""
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return BadInputError(f"unknown {what} {name!r} (known: {', '.join(names) or 'none'}){guess}")


_TABLE: tuple[tuple[type[EdgelutError], grpc.StatusCode], ...] = (
    (BadInputError, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (AmbiguousError, grpc.StatusCode.FAILED_PRECONDITION),
    (ConflictError, grpc.StatusCode.ALREADY_EXISTS),
    (StaleLeaseError, grpc.StatusCode.PERMISSION_DENIED),
    (StorageError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (IncompatibleError, grpc.StatusCode.UNIMPLEMENTED),
)


def status_of(error: EdgelutError) -> grpc.StatusCode:
    """The gRPC status of a domain error."""
    return next((status for cls, status in _TABLE if isinstance(error, cls)), grpc.StatusCode.INTERNAL)


def error_of(error: grpc.RpcError) -> EdgelutError:
    """The domain error of a failed call, with the message that it was raised with."""
    code = error.code()
    cls = next((cls for cls, status in _TABLE if status is code), EdgelutError)
    return cls(error.details() or f"the call failed with status {code.name}")
