"""The toy worker: executes a function of N steps, each step durable before the next one's body."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import time
from collections import deque
from typing import Any

import grpc
import grpc.aio
import uvloop

from bench.baseline import toy_pb2 as pb
from bench.baseline import toy_pb2_grpc as rpc
from bench.baseline.server import EOF, MAX_FRAME_ITEMS, OPTIONS


class Stream:
    """The outbox of results and the futures of those not yet acknowledged."""

    def __init__(self) -> None:
        self.results: deque[pb.StepResult] = deque()
        self.wake = asyncio.Event()
        self.unacknowledged: dict[tuple[str, int], asyncio.Future[None]] = {}

    def send(self, result: pb.StepResult) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.unacknowledged[result.run_id, result.number] = future
        self.results.append(result)
        self.wake.set()
        return future


async def body(number: int, output: bytes) -> bytes:
    """What a step does: nothing, and it returns this many bytes."""
    return output


async def execute(stream: Stream, run_id: str, steps: int, output: bytes) -> None:
    """The function: its steps in sequence. The last result and the end of the run travel together."""
    for number in range(1, steps + 1):
        started_ms = time.time_ns() // 1_000_000
        result = await body(number, output)
        last = number == steps
        await stream.send(
            pb.StepResult(
                run_id=run_id,
                key=f"step-{number}",
                number=number,
                output=result,
                started_ms=started_ms,
                ended_ms=time.time_ns() // 1_000_000,
                last=last,
                run_output=output if last else b"",
            )
        )


async def write(stream: Stream, call: Any) -> None:
    """The stream's only writer."""
    results, wake = stream.results, stream.wake
    while True:
        await wake.wait()
        wake.clear()
        while results:
            n = min(len(results), MAX_FRAME_ITEMS)
            await call.write(pb.WorkerFrame(results=[results.popleft() for _ in range(n)]))


async def work(address: str, capacity: int, steps: int, payload: int) -> None:
    output = b'"' + b"r" * (payload // 2 - 2) + b'"'
    loop = asyncio.get_running_loop()
    stream = Stream()
    tasks: set[asyncio.Task[None]] = set()
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        call = rpc.ToyStub(channel).Connect()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, call.cancel)
        await call.write(pb.WorkerFrame(capacity=capacity))
        await call.read()
        writer = asyncio.create_task(write(stream, call))
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        print("ready", flush=True)
        try:
            while (frame := await call.read()) is not EOF:
                for ack in frame.acks:
                    stream.unacknowledged.pop((ack.run_id, ack.number)).set_result(None)
                for assign in frame.assigns:
                    task = loop.create_task(execute(stream, assign.run_id, steps, output))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        except (asyncio.CancelledError, grpc.aio.AioRpcError):
            pass
        writer.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of the toy server")
    parser.add_argument("--capacity", type=int, default=1000, help="runs at once")
    parser.add_argument("--steps", type=int, default=3, help="steps of a run")
    parser.add_argument("--payload", type=int, default=200, help="bytes of event data; a step's result is half of it")
    options = parser.parse_args()
    uvloop.run(work(options.address, options.capacity, options.steps, options.payload))


if __name__ == "__main__":
    main()
