"""Ids: unique, of the standard's form, in the order of time."""

from __future__ import annotations

import time
import uuid

from protos.ids import new_id


def test_an_id_is_a_uuid_of_version_7_that_says_when_it_was_made() -> None:
    before_ms = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1000)]
    after_ms = time.time_ns() // 1_000_000
    assert len(set(ids)) == 1000
    for name in ids:
        parsed = uuid.UUID(name)
        assert (parsed.version, parsed.variant, parsed.hex) == (7, uuid.RFC_4122, name)
        assert before_ms <= int(name[:12], 16) <= after_ms
