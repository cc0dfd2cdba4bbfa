"""What was put into the spool comes back in order, or its loss is named."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.spool import Spool, SpoolFullError
from protos.convert import from_message
from protos.errors import BadInputError
from protos.types import HostState, LatencyRound, Measurement

STATE = HostState(1)


def measurement(number: int, task_id: str = "task", size: int = 1) -> Measurement:
    probes = tuple(range(1, size + 1))
    latency = LatencyRound(number, 1, 2, probe_ns=probes[:1])
    return Measurement(f"id-{number:04d}", task_id, 3, number, STATE, STATE, flags=("x" * size,), latency=latency)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def reopened(spool: Spool, directory: Path, **options: int) -> Spool:
    spool.close()
    return Spool(directory, **options)


def ids(spool: Spool) -> list[str]:
    return [entry.id for entry in spool.entries()]


def test_measurements_come_back_in_order(directory: Path) -> None:
    spool = Spool(directory)
    put = [measurement(number) for number in (5, 3, 9, 1)]
    for item in put:
        spool.put(item)
    spool = reopened(spool, directory)
    assert ids(spool) == [item.id for item in put]
    for item, entry in zip(put, spool.entries(), strict=True):
        message = spool.read(entry)
        assert message is not None
        assert from_message(Measurement, message) == item
        assert (entry.task_id, entry.fence) == ("task", 3)
    spool.put(measurement(4))
    assert ids(reopened(spool, directory))[-1] == "id-0004"


def test_only_what_is_discarded_goes(directory: Path) -> None:
    spool = Spool(directory)
    for number in range(3):
        spool.put(measurement(number))
    assert spool.discard("id-0001")
    assert not spool.discard("id-0001")
    assert not spool.discard("never there")
    assert "id-0001" not in spool
    assert len(spool) == 2
    assert ids(reopened(spool, directory)) == ["id-0000", "id-0002"]


def test_a_full_spool_refuses_and_takes_again(directory: Path) -> None:
    spool = Spool(directory, limit_bytes=1000)
    spool.put(measurement(0, size=500))
    with pytest.raises(SpoolFullError, match=r"limit is 0\.0 MB; measuring goes on"):
        spool.put(measurement(1, size=500))
    assert ids(spool) == ["id-0000"]
    spool = reopened(spool, directory, limit_bytes=1000)  # it is as full as before
    with pytest.raises(SpoolFullError):
        spool.put(measurement(1, size=500))
    spool.discard("id-0000")
    spool.put(measurement(1, size=500))
    assert ids(reopened(spool, directory)) == ["id-0001"]


def test_a_disk_that_takes_no_more_leaves_nothing_half_written(directory: Path) -> None:
    spool = Spool(directory)
    spool.put(measurement(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(SpoolFullError, match="cannot be written: File too large"):
            spool.put(measurement(1, size=4000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(list(directory.glob("*.*"))) == 1
    spool.put(measurement(2))
    assert ids(reopened(spool, directory)) == ["id-0000", "id-0002"]


def test_what_a_crash_interrupted_was_never_there(directory: Path) -> None:
    spool = Spool(directory)
    spool.put(measurement(0))
    (directory / "000000000001-id-0001.part").write_bytes(b"half")
    spool = reopened(spool, directory)
    assert ids(spool) == ["id-0000"]
    assert not list(directory.glob("*.part"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_set_aside_and_named(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    spool = Spool(directory)
    entries = [spool.put(measurement(number)) for number in range(3)]
    victim = entries[data.draw(st.integers(0, 2))]
    content = bytearray(victim.path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[at:]
    victim.path.write_bytes(content)
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        spool = reopened(spool, directory)
    assert ids(spool) == [entry.id for entry in entries if entry is not victim]
    assert victim.path.name in caplog.text
    assert (directory / "corrupt" / victim.path.name).read_bytes() == content
    spool.close()


def test_damage_after_the_start_is_noticed_when_it_is_read(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(directory)
    entry = spool.put(measurement(0))
    entry.path.write_bytes(entry.path.read_bytes()[:-1])
    assert spool.read(entry) is None
    assert not len(spool)
    assert "bytes are there" in caplog.text
    spool.close()


def test_two_agents_cannot_share_a_directory(directory: Path) -> None:
    spool = Spool(directory)
    code = f"from pathlib import Path; from agent.spool import Spool; Spool(Path({str(directory)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another agent uses the state directory" in done.stderr
    spool.close()
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="give another one with --state-dir"):
        Spool(tmp_path / "file" / "spool")
