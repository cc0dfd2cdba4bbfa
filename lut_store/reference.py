"""How people name a LUT, ``TYPE[/SPACE][@VERSION]``, and what they are told when the name does not fit exactly one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from protos.errors import AmbiguousError, BadInputError, NotFoundError
from protos.types import LutQuery, LutSummary

LATEST = "latest"
# The options of the command line that choose a configuration, in the order in which they are suggested.
OPTIONS = ("emulation", "context", "threads", "batch", "runtime", "precision")
_FORM = re.compile(r"(?P<device_type>[^/@\s]+)(?:/(?P<space>[^@\s]+))?(?:@(?P<version>[^@/\s]+))?")
_LISTED = 12  # at most so many LUTs in a message


def parse_reference(text: str) -> LutQuery:
    """``rpi3b``, ``rpi3b/fbnet-cifar10``, ``rpi3b@latest``, ``rpi3b/fbnet-cifar10@3``. Raises BadInputError."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise BadInputError(
            f"{text!r} names no LUT; write TYPE[/SPACE][@VERSION], for example rpi3b/fbnet-cifar10@latest"
        )
    query = LutQuery(match["device_type"], match["space"] or "", match["version"] or "")
    version_number(query)
    return query


def version_number(query: LutQuery) -> int | None:
    """The number that the query asks for; None for the newest. Raises BadInputError."""
    if query.version in ("", LATEST):
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,17}", query.version):
        raise BadInputError(f"version {query.version!r} must be a number from 1 or {LATEST!r}")
    return int(query.version)


def name_of(query: LutQuery) -> str:
    """The query as people write it: the reference and its options."""
    text = query.device_type or "any device type"
    text += f"/{query.space}" if query.space else ""
    text += f"@{query.version}" if query.version else ""
    options = [f"--{name} {getattr(query, name)}" for name in OPTIONS if getattr(query, name) not in ("", None)]
    return " ".join([text, *options])


def _reference(summary: LutSummary) -> str:
    return f"{summary.device_type}/{summary.space}@{summary.version}"


def _listed(parts: Sequence[str]) -> str:
    more = len(parts) - _LISTED
    return ", ".join(parts[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def ambiguous(query: LutQuery, fits: Sequence[LutSummary]) -> AmbiguousError:
    """`fits`: the newest version of each configuration that the query fits, two or more."""
    differing = [name for name in OPTIONS if len({getattr(summary, name) for summary in fits}) > 1]
    names = [name for name in ("device_type", "space") if len({getattr(summary, name) for summary in fits}) > 1]

    def told_apart(summary: LutSummary) -> str:
        options = " ".join(f"--{name} {getattr(summary, name)}" for name in differing)
        return f"{_reference(summary)} ({options})" if options else _reference(summary)

    what = " and ".join(
        [*(["the device type"] if "device_type" in names else []), *(["the space"] if "space" in names else [])]
        + [f"--{name}" for name in differing]
    )
    there_is = _listed([told_apart(summary) for summary in fits])
    return AmbiguousError(f"{name_of(query)} fits {len(fits)} configurations; add {what}. There is: {there_is}")


def not_found(query: LutQuery, newest: Sequence[LutSummary]) -> NotFoundError:
    """`newest`: the newest version of every configuration that there is."""
    if not newest:
        return NotFoundError(f"there is no LUT {name_of(query)}, nor any other yet; `coordinator profile` makes one")
    types = sorted({summary.device_type for summary in newest})
    spaces = sorted({summary.space for summary in newest})
    close = []
    if query.device_type and query.device_type not in types:
        close += get_close_matches(query.device_type, types, n=1)
    if query.space and query.space not in spaces:
        close += get_close_matches(query.space, spaces, n=1)
    guess = f"; did you mean {' '.join(repr(name) for name in close)}?" if close else "."
    near = [s for s in newest if s.device_type == query.device_type and query.space in ("", s.space)] or newest
    there_is = _listed([f"{_reference(summary)} ({_conditions(summary)})" for summary in near])
    return NotFoundError(f"there is no LUT {name_of(query)}{guess} There is: {there_is}")


def _conditions(summary: LutSummary) -> str:
    """What people choose between; the rest only when it is unusual."""
    words = [summary.context, f"{summary.threads} thread{'' if summary.threads == 1 else 's'}"]
    words += [] if summary.emulation == "none" else [f"emulated {summary.emulation}"]
    words += [] if summary.batch == 1 else [f"batch {summary.batch}"]
    return ", ".join(words)
