"""The engine's worker: the functions of the benchmarks, written as a user would."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from datetime import UTC, datetime
from typing import Any

import stepwell
from stepwell.v1 import step_pb2, step_pb2_grpc

assigned_at: float | None = None


async def body(output: str) -> str:
    """What a step does: nothing, and it returns so many bytes."""
    return output


async def clock_ms() -> float:
    return time.time() * 1000


async def never() -> None:
    await asyncio.Event().wait()


def build(options: argparse.Namespace) -> stepwell.App:
    """The app with all functions; `--functions` more of them listen to one event."""
    app = stepwell.App("bench")
    output = "r" * (options.payload // 2 - 2)

    async def steps(step: stepwell.Step, event: stepwell.Event[Any]) -> str:
        result = ""
        for _ in range(options.steps):
            result = await step.run(body, output)
        return result

    app.function(on="bench/three", name="three")(steps)
    for i in range(options.functions):
        app.function(on="bench/fan", name=f"fan-{i}")(steps)

    if options.limits:
        keyed = stepwell.Concurrency(50, key="event.data.key % 100")
        pace = stepwell.Throttle(1_000_000, "1s")
        app.function(on="bench/limited", name="limited", concurrency=keyed, throttle=pace)(steps)
        app.function(on="bench/alone", name="alone", concurrency=1)(steps)

    @app.function(on="bench/invoke")
    async def parent(step: stepwell.Step, event: stepwell.Event[Any]) -> Any:
        return await step.invoke("bench/three", event.data)

    @app.function(on="bench/cross")
    async def cross(step: stepwell.Step, event: stepwell.Event[Any]) -> Any:
        return await step.invoke("bench-other/three", event.data)

    @app.function(on="bench/wait")
    async def waiter(step: stepwell.Step, event: stepwell.Event[Any]) -> str:
        answer = await step.wait_for_event("bench/answer", match="data.key", timeout="1d")
        assert answer is not None
        return await step.run(body, output)

    @app.function(on="bench/parallel")
    async def parallel(step: stepwell.Step, event: stepwell.Event[Any]) -> int:
        return len(await asyncio.gather(*(step.run(body, output) for _ in range(event.data["branches"]))))

    @app.function(on="bench/sleep")
    async def sleeper(step: stepwell.Step, event: stepwell.Event[Any]) -> str:
        await step.sleep_until(datetime.fromtimestamp(event.data["until_ms"] / 1000, UTC))
        return await step.run(body, output)

    @app.function(on="bench/long")
    async def long(step: stepwell.Step, event: stepwell.Event[Any]) -> dict[str, float]:
        count = event.data["steps"]
        times = [await step.run(clock_ms) for _ in range(count)]
        half = count // 2
        return {
            "first_ms": (times[half] - times[0]) / half,
            "second_ms": (times[-1] - times[half]) / (count - 1 - half),
        }

    @app.function(on="bench/reentry")
    async def reentry(step: stepwell.Step, event: stepwell.Event[Any]) -> None:
        for _ in range(event.data["steps"]):
            await step.run(body, output)
        await step.run(gate)

    async def gate() -> None:
        """The step at which the first worker is killed; the second says how long it took to come here."""
        report = {"pid": os.getpid(), "assigned": assigned_at, "here": time.perf_counter()}
        print("gate " + json.dumps(report), flush=True)
        if options.hang:
            await never()

    @app.function(on="bench/big")
    async def big(step: stepwell.Step, event: stepwell.Event[Any]) -> str:
        await step.run(body, output)
        return event.data["pad"]

    return app


def note_assigns() -> None:
    """Keeps the time at which the bytes of the last frame with an Assign arrived, before they are parsed."""
    connect: Any = step_pb2_grpc.StepServiceStub

    def parse(data: bytes) -> step_pb2.ConnectResponse:
        """Assign stands for the first frame of a run; further parts of a long journal count as time since then."""
        global assigned_at
        arrived = time.perf_counter()
        frame = step_pb2.ConnectResponse.FromString(data)
        if frame.work.assigns:
            assigned_at = arrived
        return frame

    class Noting:
        """A channel whose streams parse with the function above."""

        def __init__(self, channel: Any) -> None:
            self._channel = channel

        def stream_stream(self, *arguments: Any, **options: Any) -> Any:
            return self._channel.stream_stream(*arguments, **{**options, "response_deserializer": parse})

    step_pb2_grpc.StepServiceStub = lambda channel: connect(Noting(channel))  # type: ignore[assignment,misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of the server")
    parser.add_argument("--capacity", type=int, default=1000, help="runs at once")
    parser.add_argument("--steps", type=int, default=3, help="steps of a run")
    parser.add_argument("--payload", type=int, default=200, help="bytes of event data; a step's result is half of it")
    parser.add_argument("--limits", action="store_true", help="with the functions that have limits")
    parser.add_argument("--functions", type=int, default=0, help="functions that listen to bench/fan")
    parser.add_argument("--hang", action="store_true", help="the gate of reentry never opens")
    parser.add_argument("--note-assigns", action="store_true", help="for reentry: note when frames arrive")
    options = parser.parse_args()
    if options.note_assigns:
        note_assigns()
    build(options).run(address=options.address, capacity=options.capacity)


if __name__ == "__main__":
    main()
