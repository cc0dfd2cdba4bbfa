"""The boards that have ever said hello, as they were last seen."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.engine import Connection

from lut_store.database import insert
from lut_store.schema import devices
from protos import run_pb2
from protos.convert import from_message, to_message
from protos.types import Device


def upsert(connection: Connection, device: Device) -> None:
    values = {
        "device_type": device.device_type,
        "last_seen_wall_s": device.last_seen_s,
        "body": to_message(device).SerializeToString(),
    }
    added = insert(connection, devices).values(name=device.name, **values)
    connection.execute(added.on_conflict_do_update(index_elements=["name"], set_=values))


def every(connection: Connection) -> list[Device]:
    bodies = connection.execute(select(devices.c.body).order_by(devices.c.name)).scalars()
    return [from_message(Device, run_pb2.Device.FromString(body)) for body in bodies]
