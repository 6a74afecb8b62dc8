"""Many workers in one process: streams that say Hello, keep alive and take no work."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import grpc.aio
from stepwell.v1 import function_pb2, step_pb2, step_pb2_grpc

CHANNEL = (("grpc.use_local_subchannel_pool", 1),)


async def worker(address: str, number: int, opened: asyncio.Queue[None]) -> None:
    """One stream on a connection of its own, as a worker process has it."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL) as channel:
        call: Any = step_pb2_grpc.StepServiceStub(channel).Connect()
        functions = [
            function_pb2.FunctionSpec(name=f"f{i}", triggers=[function_pb2.Trigger(event="bench/nothing")])
            for i in range(10)
        ]
        hello = step_pb2.Hello(
            app="streams", deployment="1", instance=f"bench:{number}", sdk="bench", functions=functions, capacity=10
        )
        await call.write(step_pb2.ConnectRequest(hello=hello))
        welcome = (await call.read()).welcome
        opened.put_nowait(None)
        frames = 1

        async def beat() -> None:
            while True:
                await asyncio.sleep(welcome.heartbeat_ms / 1000)
                await call.write(step_pb2.ConnectRequest(heartbeat=step_pb2.Heartbeat(frames_read=frames)))

        beating = asyncio.create_task(beat())
        try:
            while isinstance(await call.read(), step_pb2.ConnectResponse):
                frames += 1
        finally:
            beating.cancel()


async def main(address: str, count: int) -> None:
    opened: asyncio.Queue[None] = asyncio.Queue()
    workers = [asyncio.create_task(worker(address, number, opened)) for number in range(count)]
    for _ in range(count):
        await opened.get()
    print("ready", flush=True)
    await asyncio.gather(*workers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(main(options.address, options.count))
