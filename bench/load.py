"""The engine's load, over the generated stubs: sends events, waits for ends. Reports one line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import uvloop
from stepwell.v1 import common_pb2, event_pb2, event_pb2_grpc, run_pb2, run_pb2_grpc
from stepwell_server.model.ids import run_id_for_event

from bench.baseline.load import CALLS_AT_ONCE, event_data

OPTIONS = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 16 << 20)]
FUNCTIONS = {
    "bench/three": "bench/three",
    "bench/invoke": "bench/parent",
    "bench/cross": "bench/cross",
    "bench/wait": "bench/waiter",
    "bench/parallel": "bench/parallel",
    "bench/long": "bench/long",
    "bench/reentry": "bench/reentry",
}
NAMES = {
    "burst": "bench/three",
    "ingest": "bench/nobody",
    "one": "bench/three",
    "invoke": "bench/invoke",
    "cross": "bench/cross",
}
CALL_BYTES = 3 << 20
OPEN_DEADLINE_S = 30.0


class Client:
    """The calls that the workloads need."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._events: Any = event_pb2_grpc.EventServiceStub(channel)
        self._runs: Any = run_pb2_grpc.RunServiceStub(channel)

    async def send(self, name: str, data: list[bytes]) -> list[str]:
        """Ids of the events. Fails if one is refused."""
        payloads = (common_pb2.Payload(data=one) for one in data)
        events = [event_pb2.NewEvent(name=name, data=payload) for payload in payloads]
        response = await self._events.SendEvents(event_pb2.SendEventsRequest(events=events))
        for status in response.statuses:
            if status.outcome != event_pb2.EventStatus.OUTCOME_ACCEPTED:
                raise RuntimeError(f"event refused: {status.reason} {status.message}")
        return [status.event_id for status in response.statuses]

    async def send_all(self, name: str, data: Iterator[bytes], batch: int) -> None:
        """As fast as the server answers, eight calls at a time."""

        async def sender() -> None:
            while some := take(data, batch):
                await self.send(name, some)

        await asyncio.gather(*(sender() for _ in range(CALLS_AT_ONCE)))

    async def ended(self, run_id: str) -> None:
        """Waits for the end of a run. Fails if it is not COMPLETED."""
        run = (await self._runs.WaitRun(run_pb2.WaitRunRequest(run_id=run_id))).run
        if run.status != run_pb2.RUN_STATUS_COMPLETED:
            raise RuntimeError(f"{run_id} is {run_pb2.RunStatus.Name(run.status)}: {run.failure.message}")

    async def waits(self, run_id: str) -> None:
        """Returns once a run waits for an event."""
        deadline = time.monotonic() + OPEN_DEADLINE_S
        while time.monotonic() < deadline:
            answer = await self._runs.GetRun(run_pb2.GetRunRequest(run_id=run_id))
            if any(part.kind == run_pb2.WaitingFor.KIND_EVENT for part in answer.waiting_for):
                return
            await asyncio.sleep(0.002)
        raise RuntimeError(f"{run_id} does not wait for an event")


def run_of(event_id: str, event: str) -> str:
    """Id of the run that an event started: derived from the event and its function, so that nothing need be asked."""
    return run_id_for_event("default", event_id, FUNCTIONS[event])


def take(data: Iterator[bytes], batch: int) -> list[bytes]:
    """The next data of a call: so many, or as many as fit in it."""
    some: list[bytes] = []
    size = 0
    for one in data:
        some.append(one)
        size += len(one)
        if len(some) == batch or size + len(one) > CALL_BYTES:
            break
    return some


async def one_at_a_time(client: Client, name: str, runs: int, payload: int) -> list[float]:
    """Milliseconds from sending an event to knowing that its run has ended, one after another."""
    data = [event_data(payload)]
    latencies: list[float] = []
    for _ in range(runs):
        began = time.perf_counter()
        (event_id,) = await client.send(name, data)
        await client.ended(run_of(event_id, name))
        latencies.append((time.perf_counter() - began) * 1000)
    return latencies


class Answers:
    """Keeps a number of runs waiting for one event name, each for its own key, and answers some of them in turn."""

    def __init__(self, client: Client, waiters: int, samples: int) -> None:
        self._client = client
        self._waiters = waiters
        self._samples = samples
        self._next = waiters
        self._known: list[tuple[int, str]] = []  # key and run of the waiters that will be answered

    async def prepare(self) -> None:
        """Starts the waiters; those to be answered lie evenly among them."""
        answered = min(self._waiters, self._samples)
        stride = self._waiters // answered
        chosen = [i * stride for i in range(answered)]
        others = iter([_key(i) for i in range(self._waiters) if i % stride or i // stride >= answered])
        for key in chosen:
            self._known.append((key, await self._start(key)))
        await self._client.send_all("bench/wait", others, 100)

    async def run(self) -> list[float]:
        """Milliseconds from sending an answer to knowing that its run has ended; each is replaced by a new waiter."""
        latencies: list[float] = []
        for _ in range(self._samples):
            key, run_id = self._known.pop(0)
            await self._client.waits(run_id)
            ended = asyncio.create_task(self._client.ended(run_id))
            await asyncio.sleep(0.005)  # the call waits at the server when the answer is sent
            began = time.perf_counter()
            await self._client.send("bench/answer", [_key(key)])
            await ended
            latencies.append((time.perf_counter() - began) * 1000)
            self._next += 1
            self._known.append((self._next, await self._start(self._next)))
        return latencies

    async def _start(self, key: int) -> str:
        (event_id,) = await self._client.send("bench/wait", [_key(key)])
        return run_of(event_id, "bench/wait")


def _key(key: int) -> bytes:
    return b'{"key":%d}' % key


async def load(options: argparse.Namespace) -> None:
    workload, runs = options.workload, options.runs
    async with grpc.aio.insecure_channel(options.address, options=OPTIONS) as channel:
        await channel.channel_ready()
        client = Client(channel)
        answers = Answers(client, options.waiters, runs)
        if workload == "answers":
            await answers.prepare()
        gc.freeze()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        started_ms = time.time() * 1000
        latencies: list[float] = []
        if workload in ("one", "invoke", "cross"):
            latencies = await one_at_a_time(client, NAMES[workload], runs, options.payload)
        elif workload == "answers":
            latencies = await answers.run()
        elif workload == "events":
            template = options.data.encode() or event_data(options.payload)
            data = (template.replace(b"$i", b"%d" % i) for i in range(runs))
            await client.send_all(options.name, data, options.batch)
        else:
            await client.send_all(NAMES[workload], iter([event_data(options.payload)] * runs), options.batch)
        report = {
            "started_ms": started_ms,
            "sent_ms": time.time() * 1000,
            "latencies_ms": latencies,
            "cpu_ms": time.process_time() * 1000,
        }
        print(json.dumps(report), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of the server")
    parser.add_argument("--workload", choices=[*NAMES, "events", "answers"], required=True)
    parser.add_argument("--runs", type=int, required=True, help="events to send")
    parser.add_argument("--batch", type=int, default=100, help="events in a call")
    parser.add_argument("--payload", type=int, default=200, help="bytes of event data")
    parser.add_argument("--name", default="", help="events: their name")
    parser.add_argument("--data", default="", help="events: their data; $i is the number of the event")
    parser.add_argument("--waiters", type=int, default=10, help="answers: runs that wait")
    uvloop.run(load(parser.parse_args()))


if __name__ == "__main__":
    main()
