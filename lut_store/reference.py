"""How people name a LUT, ``TYPE[/SPACE][@VERSION|@TAG]``, and what they are told when that does not fit exactly one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from protos.errors import AmbiguousError, BadInputError, NotFoundError
from protos.types import LutQuery, LutSummary

LATEST = "latest"  # the tag that moves by itself: the newest version of a configuration
STABLE = "stable"  # the tag that is refused to versions that are not fit for it (lut_store.stable)
# The options of the command line that choose a configuration, in the order in which they are suggested.
OPTIONS = ("emulation", "context", "threads", "batch", "runtime", "precision")
_FORM = re.compile(r"(?P<device_type>[^/@\s]+)(?:/(?P<space>[^@\s]+))?(?:@(?P<version>[^@/\s]+))?")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}", re.ASCII)
_LISTED = 12  # at most so many LUTs in a message


def parse_reference(text: str) -> LutQuery:
    """``rpi3b``, ``rpi3b/fbnet-cifar10``, ``rpi3b@stable``, ``rpi3b/fbnet-cifar10@3``. Raises BadInputError."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise BadInputError(
            f"{text!r} names no LUT; write TYPE[/SPACE][@VERSION], for example rpi3b/fbnet-cifar10@latest"
        )
    query = LutQuery(match["device_type"], match["space"] or "", match["version"] or "")
    version_number(query)
    return query


def version_number(query: LutQuery) -> int | None:
    """The number that the query asks for; None for the newest and for a tag. Raises BadInputError."""
    if _NUMBER.fullmatch(query.version):
        return int(query.version)
    tag_name(query)
    return None


def tag_name(query: LutQuery) -> str:
    """The tag that the query asks for; "" for a number and for the newest. Raises BadInputError."""
    if query.version in ("", LATEST) or _NUMBER.fullmatch(query.version):
        return ""
    if not _TAG.fullmatch(query.version):
        raise BadInputError(f"version {query.version!r} must be a number from 1, {LATEST!r} or a tag's name")
    return query.version


def check_tag(name: str) -> None:
    """Raise BadInputError unless people may set a tag of this name."""
    if name == LATEST:
        raise BadInputError(
            f"{LATEST!r} moves by itself: it is the newest version of a configuration; choose another name"
        )
    if not _TAG.fullmatch(name):
        raise BadInputError(
            f"{name[:80]!r} is no name for a tag; write 1 to 64 letters, digits, dots, dashes or underscores, "
            "a letter first"
        )


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


def no_such_version(query: LutQuery, there: Sequence[LutSummary]) -> NotFoundError:
    """`there`: every version, with its tags, of the configurations that the query fits but for its version or tag."""
    tags = sorted({tag for summary in there for tag in summary.tags})
    close = get_close_matches(query.version, tags, n=1)
    what = f"tag {query.version!r}" if tag_name(query) else f"version {query.version}"
    guess = f"; did you mean {close[0]!r}?" if close and tag_name(query) else "."
    ordered = sorted(there, key=lambda summary: not summary.tags)  # a tag may point at an old version
    there_is = _listed([_reference(s) + (f" ({', '.join(s.tags)})" if s.tags else "") for s in ordered])
    return NotFoundError(f"{name_of(replace(query, version=''))} has no {what}{guess} There is: {there_is}")


def _conditions(summary: LutSummary) -> str:
    """What people choose between; the rest only when it is unusual."""
    words = [summary.context, f"{summary.threads} thread{'' if summary.threads == 1 else 's'}"]
    words += [] if summary.emulation == "none" else [f"emulated {summary.emulation}"]
    words += [] if summary.batch == 1 else [f"batch {summary.batch}"]
    return ", ".join(words)
