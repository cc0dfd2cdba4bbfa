"""What `benchmarks.ingest` compares with: a grpc.aio stream that commits what arrives and acknowledges, and nothing
else.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import grpc

from benchmarks.ingest import bare_database
from protos import agent_pb2, agent_pb2_grpc, common_pb2


class Bare(agent_pb2_grpc.AgentServiceServicer):
    def __init__(self, path: str) -> None:
        self._database = bare_database(path)

    async def Session(  # noqa: N802
        self,
        request_iterator: AsyncIterator[agent_pb2.AgentMessage],
        context: object,  # noqa: ARG002
    ) -> AsyncIterator[agent_pb2.CoordinatorMessage]:
        waiting: asyncio.Queue[common_pb2.Measurement] = asyncio.Queue()

        async def read() -> None:
            async for message in request_iterator:
                if message.WhichOneof("body") == "measurement":
                    await waiting.put(message.measurement)

        reading = asyncio.create_task(read())
        try:
            while True:
                batch = [await waiting.get()]
                while not waiting.empty():
                    batch.append(waiting.get_nowait())
                await asyncio.to_thread(self._commit, batch)
                ids = [measurement.id for measurement in batch]
                yield agent_pb2.CoordinatorMessage(acknowledge=agent_pb2.Acknowledge(measurement_ids=ids))
        finally:
            reading.cancel()

    def _commit(self, batch: list[common_pb2.Measurement]) -> None:
        now_s = time.time()
        rows = [(m.id, m.task_id, m.fence, m.sequence, "pi-01", now_s, m.SerializeToString()) for m in batch]
        with self._database:
            self._database.executemany("INSERT INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


async def main() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    agent_pb2_grpc.add_AgentServiceServicer_to_server(Bare(sys.argv[1]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
