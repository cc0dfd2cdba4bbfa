"""What can be wrong with a meter beyond the sentence."""

from __future__ import annotations

from protos.errors import BadInputError


class OtherMeterError(BadInputError):
    """A meter answers, but of another kind than was asked for."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
