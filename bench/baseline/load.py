"""The toy's load: sends events and, for one run at a time, waits for each end. Reports one line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time

import grpc
import grpc.aio
import uvloop

from bench.baseline import toy_pb2 as pb
from bench.baseline import toy_pb2_grpc as rpc
from bench.baseline.server import OPTIONS, RUN_EVENT

CALLS_AT_ONCE = 8


def event_data(payload: int) -> bytes:
    return b'{"pad":"' + b"e" * (payload - 10) + b'"}'


async def send_all(stub: rpc.ToyStub, name: str, runs: int, batch: int, payload: int) -> None:
    """As fast as the server answers, eight calls at a time."""
    data = event_data(payload)
    sizes = iter([batch] * (runs // batch) + ([runs % batch] if runs % batch else []))

    async def sender() -> None:
        for size in sizes:
            await stub.SendEvents(pb.SendEventsRequest(events=[pb.NewEvent(name=name, data=data) for _ in range(size)]))

    await asyncio.gather(*(sender() for _ in range(CALLS_AT_ONCE)))


async def one_at_a_time(stub: rpc.ToyStub, runs: int, payload: int) -> list[float]:
    """Milliseconds from sending an event to knowing that its run has ended, one after another."""
    request = pb.SendEventsRequest(events=[pb.NewEvent(name=RUN_EVENT, data=event_data(payload))])
    latencies: list[float] = []
    for _ in range(runs):
        began = time.perf_counter()
        sent = await stub.SendEvents(request)
        await stub.WaitRun(pb.WaitRunRequest(event_id=sent.event_ids[0]))
        latencies.append((time.perf_counter() - began) * 1000)
    return latencies


async def load(options: argparse.Namespace) -> None:
    async with grpc.aio.insecure_channel(options.address, options=OPTIONS) as channel:
        stub = rpc.ToyStub(channel)
        await channel.channel_ready()
        gc.freeze()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        started_ms = time.time() * 1000
        latencies: list[float] = []
        if options.workload == "one":
            latencies = await one_at_a_time(stub, options.runs, options.payload)
        else:
            name = RUN_EVENT if options.workload == "burst" else "bench/nobody"
            await send_all(stub, name, options.runs, options.batch, options.payload)
        report = {
            "started_ms": started_ms,
            "sent_ms": time.time() * 1000,
            "latencies_ms": latencies,
            "cpu_ms": time.process_time() * 1000,
        }
        print(json.dumps(report), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of the toy server")
    parser.add_argument("--workload", choices=["burst", "ingest", "one"], required=True)
    parser.add_argument("--runs", type=int, required=True, help="events to send")
    parser.add_argument("--batch", type=int, default=100, help="events in a call")
    parser.add_argument("--payload", type=int, default=200, help="bytes of event data")
    uvloop.run(load(parser.parse_args()))


if __name__ == "__main__":
    main()
