"""Every domain error crosses a real gRPC call and comes back as itself, with its message."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from protos import errors
from protos.errors import BadInputError, EdgelutError, error_of, status_of, unknown

# Other modules have errors of their own that never cross the wire as themselves.
ALL = sorted(
    (cls for cls in EdgelutError.__subclasses__() if cls.__module__ == errors.__name__), key=lambda cls: cls.__name__
)
SENTENCE = "space 'x' → line 3: it’s wrong; choose another\nand again"


class Raises(grpc.GenericRpcHandler):
    """Answers /CLASS with the status of that error."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            error = getattr(errors, details.method.removeprefix("/e/"))(request.decode())
            context.abort(status_of(error), str(error))

        return grpc.unary_unary_rpc_method_handler(call)


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Raises(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None)


@pytest.mark.parametrize("cls", [*ALL, EdgelutError], ids=lambda cls: cls.__name__)
def test_there_and_back(channel: grpc.Channel, cls: type[EdgelutError]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/e/{cls.__name__}")(SENTENCE.encode(), timeout=60)
    error = error_of(caught.value)
    assert type(error) is cls
    assert str(error) == SENTENCE


def test_every_error_has_a_status_of_its_own() -> None:
    statuses = [status_of(cls("x")) for cls in ALL]
    assert len(set(statuses)) == len(ALL) == 8
    assert grpc.StatusCode.INTERNAL not in statuses


def test_a_subclass_travels_as_what_it_is_a_case_of() -> None:
    class WrongFileError(BadInputError):
        pass

    assert status_of(WrongFileError("x")) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_coordinator_that_cannot_be_reached() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as nowhere, pytest.raises(grpc.RpcError) as caught:
        nowhere.unary_unary("/e/x")(b"", timeout=60)
    error = error_of(caught.value)
    assert type(error) is errors.UnavailableError
    assert "127.0.0.1:1" in str(error)


def test_an_unknown_name() -> None:
    assert str(unknown("preset", "quik", ["quick", "standard"])) == (
        "unknown preset 'quik' (known: quick, standard); did you mean 'quick'?"
    )
    assert str(unknown("device", "pi-01", [])) == "unknown device 'pi-01' (known: none)"
    assert str(unknown("preset", "zzz", {"quick": 1})) == "unknown preset 'zzz' (known: quick)"
