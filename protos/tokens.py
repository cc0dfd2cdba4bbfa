"""The token that an operator carries to a machine: where to enrol, for whom, the secret, and whom to trust."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass

from protos.errors import BadInputError

PREFIX = "edgelut1."
MAX_CHARACTERS = 2048
_ADDRESS = re.compile(r"[^\s:/]+:\d{1,5}|\[[0-9A-Fa-f:]+\]:\d{1,5}")


@dataclass(frozen=True)
class Token:
    """address: HOST:PORT of the coordinator; enrol_address: of its enrolment port; fingerprint: SHA-256 of the
    authority's certificate, hexadecimal.
    """

    address: str
    enrol_address: str
    role: str
    name: str
    secret: str
    fingerprint: str

    def text(self) -> str:
        """One word that survives a terminal, a chat and a shell."""
        parts = json.dumps(
            [self.address, self.enrol_address, self.role, self.name, self.secret, self.fingerprint],
            separators=(",", ":"),
        )
        return PREFIX + base64.urlsafe_b64encode(parts.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Token:
        """Raises BadInputError when it is no whole token."""
        text = text.strip()
        problem = BadInputError("this is no enrolment token; copy the whole word that `coordinator enroll` printed")
        if not text.startswith(PREFIX) or len(text) > MAX_CHARACTERS:
            raise problem
        body = text.removeprefix(PREFIX)
        try:
            parts = json.loads(base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True))
        except (ValueError, binascii.Error, RecursionError) as error:
            raise problem from error
        if not isinstance(parts, list) or len(parts) != 6 or not all(isinstance(part, str) for part in parts):
            raise problem
        token = cls(*parts)
        addresses = all(_ADDRESS.fullmatch(address) for address in (token.address, token.enrol_address))
        if not addresses or not re.fullmatch(r"[0-9a-f]{64}", token.fingerprint):
            raise problem
        return token
