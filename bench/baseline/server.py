"""The toy server: events in, runs out to workers, results in; everything durable before it is acknowledged."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from bench.baseline import toy_pb2 as pb
from bench.baseline import toy_pb2_grpc as rpc
from bench.baseline.store import Lane, open_store

MAX_FRAME_ITEMS = 128
EOF: Any = grpc.aio.EOF  # pyright: ignore[reportAttributeAccessIssue]  (the stubs lack it)
RUN_EVENT = "bench/three"
OPTIONS = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 16 << 20)]


class Worker:
    """One stream: what waits to be written to it, and how many runs it may still take."""

    def __init__(self, capacity: int) -> None:
        self.free = capacity
        self.acks: deque[pb.Ack] = deque()
        self.assigns: deque[pb.Assign] = deque()
        self.wake = asyncio.Event()


class Toy(rpc.ToyServicer):
    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._ready: deque[pb.Assign] = deque()
        self._workers: deque[Worker] = deque()
        self._live: dict[str, asyncio.Future[None] | None] = {}
        self.frames_in = 0
        self.frames_out = 0

    async def SendEvents(self, request: pb.SendEventsRequest, context: Any) -> pb.SendEventsResponse:
        now_ms = time.time_ns() // 1_000_000
        prefix = f"{now_ms:012x}"
        events = request.events
        tails = os.urandom(10 * len(events)).hex()
        ids: list[str] = []
        assigns: list[pb.Assign] = []
        runs = sum(event.name == RUN_EVENT for event in events)
        batch = self._lane.batch(len(events) + runs)
        event_id, event_name, event_data, event_ms = batch.events
        run_id, run_event, run_function, run_ms = batch.runs
        for i, event in enumerate(events):
            tail = prefix + tails[20 * i : 20 * i + 20]
            id, name, data = "evt_" + tail, event.name, event.data
            ids.append(id)
            event_id.append(id)
            event_name.append(name)
            event_data.append(data)
            event_ms.append(now_ms)
            if name == RUN_EVENT:
                run = "run_" + tail
                run_id.append(run)
                run_event.append(id)
                run_function.append("bench/three")
                run_ms.append(now_ms)
                self._live[run] = None
                assigns.append(pb.Assign(run_id=run, event_id=id, name=name, data=data))
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        batch.done.append((self._started, assigns))
        batch.done.append((durable.set_result, None))
        await asyncio.shield(durable)
        return pb.SendEventsResponse(event_ids=ids)

    def _started(self, assigns: list[pb.Assign]) -> None:
        self._ready.extend(assigns)
        self._dispatch()

    def _dispatch(self) -> None:
        """Hands waiting runs to workers with room, in turn."""
        ready, workers = self._ready, self._workers
        full = 0
        while ready and full < len(workers):
            worker = workers[0]
            workers.rotate(-1)
            if worker.free:
                full = 0
                worker.free -= 1
                worker.assigns.append(ready.popleft())
                worker.wake.set()
            else:
                full += 1

    async def WaitRun(self, request: pb.WaitRunRequest, context: Any) -> pb.WaitRunResponse:
        run_id = "run_" + request.event_id.removeprefix("evt_")
        if run_id in self._live:
            future = self._live[run_id]
            if future is None:
                future = self._live[run_id] = asyncio.get_running_loop().create_future()
            await asyncio.shield(future)
        return pb.WaitRunResponse()

    async def Connect(self, request_iterator: Any, context: Any) -> None:
        hello = await context.read()
        if hello is EOF:
            return
        worker = Worker(hello.capacity)
        await context.write(pb.ServerFrame())
        writer = asyncio.create_task(self._write(worker, context))
        self._workers.append(worker)
        self._dispatch()
        try:
            while (frame := await context.read()) is not EOF:
                self.frames_in += 1
                self._take(worker, frame.results)
        finally:
            self._workers.remove(worker)
            writer.cancel()

    def _take(self, worker: Worker, results: Any) -> None:
        for result in results:
            last = result.last
            batch = self._lane.batch(2 if last else 1)
            run_id, number, key, output, started, ended = batch.steps
            run = result.run_id
            run_id.append(run)
            number.append(result.number)
            key.append(result.key)
            output.append(result.output)
            started.append(result.started_ms)
            ended.append(result.ended_ms)
            if last:
                end_run, end_output, end_ms = batch.ends
                end_run.append(run)
                end_output.append(result.run_output)
                end_ms.append(time.time_ns() // 1_000_000)
            batch.done.append((self._durable, (worker, run, result.number, last)))

    def _durable(self, what: tuple[Worker, str, int, bool]) -> None:
        worker, run_id, number, last = what
        worker.acks.append(pb.Ack(run_id=run_id, number=number))
        worker.wake.set()
        if last:
            worker.free += 1
            waiter = self._live.pop(run_id)
            if waiter is not None:
                waiter.set_result(None)
            if self._ready:
                self._dispatch()

    async def _write(self, worker: Worker, context: Any) -> None:
        """The stream's only writer: takes all that is there, at most 128 items a frame, sends, repeats."""
        acks, assigns, wake = worker.acks, worker.assigns, worker.wake
        while True:
            await wake.wait()
            wake.clear()
            while acks or assigns:
                n_acks = min(len(acks), MAX_FRAME_ITEMS)
                n_assigns = min(len(assigns), MAX_FRAME_ITEMS - n_acks)
                frame = pb.ServerFrame(
                    acks=[acks.popleft() for _ in range(n_acks)],
                    assigns=[assigns.popleft() for _ in range(n_assigns)],
                )
                self.frames_out += 1
                await context.write(frame)


async def serve(database: str, listen: str) -> None:
    lane = Lane(await open_store(database))
    toy = Toy(lane)
    server = grpc.aio.server(options=OPTIONS)
    rpc.add_ToyServicer_to_server(toy, server)
    if not server.add_insecure_port(listen):
        sys.exit(f"cannot listen on {listen}")
    await server.start()

    def write_counters() -> None:
        if path := os.environ.get("STEPWELL_COUNTERS"):
            counters = {
                "commits": lane.commits,
                "rows": lane.rows,
                "frames_in": toy.frames_in,
                "frames_out": toy.frames_out,
            }
            partial = Path(path + ".partial")
            partial.write_text(json.dumps(counters))
            partial.replace(path)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, write_counters)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    print("ready", flush=True)
    await stop.wait()
    await server.stop(0.1)
    await lane.close()
    write_counters()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", required=True, help="sqlite:///path or postgresql://…")
    parser.add_argument("--listen", required=True, help="host:port")
    options = parser.parse_args()
    uvloop.run(serve(options.database, options.listen))


if __name__ == "__main__":
    main()
