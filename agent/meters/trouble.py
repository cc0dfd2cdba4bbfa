"""What it means when a meter's first reading does not come, from what came instead."""

from __future__ import annotations

import string
from collections import Counter

from agent.meters.base import INCOMPLETE, OUTSIDE
from agent.meters.errors import OtherMeterError
from agent.meters.ports import plugged_in
from protos.errors import BadInputError

SHOWN_BYTES, SHOWN_CHARS = 16, 40
TEXT_SHARE = 0.9  # of the bytes are printable in text; of garbage about four in ten
_PRINTABLE = frozenset(string.printable.encode())
# Part of a reason of a decoder → what to do about it.
_ADVICE = (
    ("unknown model", "this driver does not know it: no scale for its values is certain"),
    ("report of", "it is none that this driver can use: it takes USB and direct-current types"),
    ("disagrees with W", "the units or columns are wrong, or it is another model with another scale"),
    ("columns", "write the columns as the meter prints them, for example ?columns=t_ms,V,mA"),
    ("line without", "write the columns as the meter prints them, for example ?columns=t_ms,V,mA"),
    ("is no number", "write the columns as the meter prints them, for example ?columns=t_ms,V,mA"),
)


def no_reading(
    who: str, kind: str, port: str, opened: str, waited_s: float, seen: bytes, rejected: Counter[str]
) -> BadInputError:
    """The error with its sentence. `opened` says how the port was ("9600 baud"), `rejected` why the decoder took
    nothing of `seen`.
    """
    from agent.meters import identify

    waited = f"within {waited_s:g} s"
    if not seen:
        there = plugged_in(port)
        what = f" The system calls what is plugged in there {there!r}." if there else ""
        return BadInputError(
            f"{who}: no answer {waited}. Is it switched on, and is this the port that carries its data?{what}"
        )
    other = identify(seen)
    if other and other != kind:
        return OtherMeterError(f"{who}: a meter of kind {other} speaks there; write {other}:{port}.", other)
    for part, advice in _ADVICE:
        reasons = [reason for reason, _ in rejected.most_common() if part in reason]
        if reasons:
            return BadInputError(f"{who}: something answers, but with {'; '.join(reasons[:2])}: {advice}.")
    start = seen[:SHOWN_BYTES].hex(" ")
    if sum(byte in _PRINTABLE for byte in seen) >= TEXT_SHARE * len(seen):
        text = seen.decode("ascii", "replace").split("\n")[0].strip()[:SHOWN_CHARS]
        return BadInputError(
            f"{who}: another device answers there, with text that begins {text!r}; no reading came {waited}."
        )
    if set(rejected) <= {OUTSIDE, INCOMPLETE, "line that is not text", "line too long", "incomplete line"}:
        return BadInputError(
            f"{who}: {len(seen)} bytes of garbage came {waited}, beginning with {start}: another baud rate than the "
            f"port's ({opened}), or another device."
        )
    counted = ", ".join(f"{n} × {reason}" for reason, n in rejected.most_common(3))
    return BadInputError(
        f"{who}: {len(seen)} bytes came {waited}, beginning with {start}, but no good reply ({counted}): a bad link, "
        "another model, or another program that talks to the meter?"
    )
