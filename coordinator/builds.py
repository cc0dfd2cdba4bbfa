"""Building versions at an operator's request: from the message to the store, beside the event loop."""

from __future__ import annotations

from coordinator.dispatch import Dispatcher
from lut_store.store import Store
from protos import run_pb2
from protos.errors import ConflictError, NotFoundError
from protos.types import ENDED_STATES


async def build_lut(dispatcher: Dispatcher, request: run_pb2.BuildLutRequest) -> run_pb2.BuildLutReply:
    """Raises BadInputError, NotFoundError, and ConflictError for a run that is still being measured."""
    return await dispatcher.beside(_build, dispatcher.store, request)


def _build(store: Store, request: run_pb2.BuildLutRequest) -> run_pb2.BuildLutReply:
    # Imported when the first build is asked for: a coordinator that only hands out LUTs starts without scipy.
    from coordinator.build import BuildRequest, build
    from lut_store.estimate.settings import Settings

    wanted = BuildRequest(
        run_ids=tuple(request.run_ids),
        settings=Settings(
            latency=request.latency or Settings.latency,
            energy=request.energy or Settings.energy,
            energy_form=request.energy_form or Settings.energy_form,
            correction=not request.no_correction,
        ),
        allow_different=tuple(request.allow_different),
        exclude_devices=tuple(request.exclude_devices),
        parents=tuple(request.parent_digests),
    )
    for run_id in wanted.run_ids:
        _check_ended(store, run_id)
    before = {version.digest for version in store.descents(wanted.run_ids)}
    lut = build(store, wanted)
    return run_pb2.BuildLutReply(digest=lut.digest, reference=lut.reference, existed=lut.digest in before)


def _check_ended(store: Store, run_id: str) -> None:
    try:
        state = store.run(run_id).state
    except NotFoundError as error:
        raise NotFoundError(f"{error}; `coordinator runs list` shows those that there are") from error
    if state not in ENDED_STATES:
        raise ConflictError(
            f"run {run_id} has not ended ({state}): its evidence still grows. Wait for it, go on with it "
            f"(coordinator runs resume {run_id}) or stop it (coordinator runs cancel {run_id})"
        )
