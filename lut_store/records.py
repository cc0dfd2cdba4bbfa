"""What the store gives back about runs, tasks and measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from protos import raw_pb2
from protos.types import Measurement, RunSpec

TASK_STATES = ("pending", "leased", "done")
REMOVED = "its raw measurements were removed"  # in the reason of a run that lut_store.retention has pruned


@dataclass(frozen=True)
class RunRecord:
    run_id: str
    spec: RunSpec
    state: str
    reason: str
    created_wall_s: float
    lut_digest: str
    lut_reference: str


@dataclass(frozen=True)
class TaskRecord:
    """device and fence are those of the newest lease; attempts counts failures, reason is that of the newest one."""

    task_id: str
    kind: str
    state: str  # one of TASK_STATES
    device: str
    fence: int
    attempts: int
    first_round: int
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of one measurement. A refusal has the name of a gRPC status as its code, and a sentence."""

    id: str
    status: str  # "stored" | "duplicate" | "refused"
    code: str = ""
    message: str = ""


class Encoded(NamedTuple):
    """A measurement as a message whose long columns are not decoded, and the bytes that it was read from: making them
    anew would cost as much as reading.
    """

    message: raw_pb2.Measurement
    body: bytes


@dataclass(frozen=True)
class StoredMeasurement:
    device: str
    measurement: Measurement
    received_wall_s: float


@dataclass(frozen=True)
class Invitation:
    """Whom a token invites, as what."""

    name: str
    role: str  # one of protos.identity.ROLES
    device_type: str = ""


@dataclass(frozen=True)
class Issued:
    """A certificate. Times are wall times in seconds; revoked_wall_s is None while it holds."""

    serial: str
    holder: Invitation
    issued_wall_s: float
    expires_wall_s: float
    revoked_wall_s: float | None = None
    reason: str = ""
