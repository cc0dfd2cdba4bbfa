"""`edgelut-agent renew`: the next certificate of this board. The daemon calls it by itself."""

from __future__ import annotations

import argparse
import time

from protos.enrolment import renew


def main(options: argparse.Namespace) -> int:
    """Raises NotFoundError without an identity, UnavailableError, and what the coordinator refuses."""
    identity = renew(options.coordinator, options.identity)
    print(f"{identity.name} is certified until {time.strftime('%Y-%m-%d', time.localtime(identity.expires_wall_s))}.")
    return 0
