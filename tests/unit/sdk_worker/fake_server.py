"""A scripted server for tests of the worker: real gRPC, speaks StepService, acknowledges what it is told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from stepwell import connection
from stepwell.v1 import common_pb2, event_pb2, step_pb2, step_pb2_grpc

NUMBERED = ("results", "completes", "fails", "cancelled")


class Link:
    """One stream of a worker, as the server sees it."""

    def __init__(self, server: FakeServer, hello: list[step_pb2.Hello]) -> None:
        self.server = server
        self.hello = hello
        self.silent = False
        self.residents = {one.run_id: one.turn for part in hello for one in part.residents}
        self.outbox: asyncio.Queue[step_pb2.ConnectResponse | None] = asyncio.Queue()

    def send(self, work: step_pb2.Work | step_pb2.Drain | None) -> None:
        """Sends a frame, from any thread; None ends the stream."""
        frame = None
        if isinstance(work, step_pb2.Work):
            frame = step_pb2.ConnectResponse(work=work)
        elif isinstance(work, step_pb2.Drain):
            frame = step_pb2.ConnectResponse(drain=work)
        connection.io().call(self.outbox.put_nowait, frame)

    def assign(self, run_id: str, function: str, data: bytes = b"{}", **fields: Any) -> None:
        """Assigns a run."""
        event = event_pb2.Event(id="evt_1", name="test/event", data=common_pb2.Payload(data=data))
        assign = step_pb2.Assign(run_id=run_id, turn=fields.pop("turn", 1), function_id=f"test/{function}", event=event)
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(assign, name).extend(value)
            else:
                setattr(assign, name, value)
        self.send(step_pb2.Work(assigns=[assign]))


class FakeServer(step_pb2_grpc.StepServiceServicer):
    """Lives on the I/O loop; what workers send comes out of `links` and `frames` on the loop of the test."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.links: asyncio.Queue[Link] = asyncio.Queue()
        self.frames: asyncio.Queue[tuple[Link, step_pb2.ConnectRequest]] = asyncio.Queue()
        self.welcome = step_pb2.Welcome(session_id="ses_1", epoch=1, lease_ms=10_000, heartbeat_ms=1_000)
        self._commands: deque[tuple[str, Any]] = deque()
        self.acknowledge = True
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.hang_after: int | None = None
        """Streams after this many get no Welcome."""
        self.hangup_s: float | None = None
        """The first stream is ended so long after its Welcome."""
        self.heartbeats_before_commands = 0
        self.heartbeats: list[step_pb2.Heartbeat] = []
        self.streams: list[str] = []
        self.port = 0
        self._server: Any = None

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        step_pb2_grpc.add_StepServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    def tell(self, queue: asyncio.Queue[Any], item: Any) -> None:
        self.loop.call_soon_threadsafe(queue.put_nowait, item)

    async def Connect(self, request_iterator: Any, context: Any) -> AsyncIterator[step_pb2.ConnectResponse]:
        hello: list[step_pb2.Hello] = []
        async for frame in request_iterator:
            hello.append(frame.hello)
            if not frame.hello.more:
                break
        if self.refusal is not None:
            await context.abort_with_status(_status(*self.refusal))
        link = Link(self, hello)
        self.streams.append("opened")
        self.tell(self.links, link)
        if self.hang_after is not None and self.streams.count("opened") > self.hang_after:
            await asyncio.sleep(60)
        yield step_pb2.ConnectResponse(welcome=self.welcome)
        if self.hangup_s is not None:
            asyncio.get_running_loop().call_later(self.hangup_s, link.outbox.put_nowait, None)
            self.hangup_s = None
        reading = asyncio.ensure_future(self._read(link, request_iterator))
        beat = asyncio.ensure_future(self._beat(link))
        try:
            while (response := await link.outbox.get()) is not None:
                yield response
        finally:
            reading.cancel()
            beat.cancel()

    async def _beat(self, link: Link) -> None:
        while True:
            await asyncio.sleep(self.welcome.heartbeat_ms / 1000)
            if not link.silent:
                link.send(step_pb2.Work())

    async def _read(self, link: Link, requests: Any) -> None:
        commands = False
        async for frame in requests:
            kind = frame.WhichOneof("frame")
            commands = commands or kind == "commands"
            if kind == "heartbeat":
                self.heartbeats.append(frame.heartbeat)
            self.heartbeats_before_commands += kind == "heartbeat" and not commands
            if self.acknowledge and kind == "commands":
                link.outbox.put_nowait(step_pb2.ConnectResponse(work=acks(frame.commands)))
            self.tell(self.frames, (link, frame))
        self.streams.append("ended")
        link.outbox.put_nowait(None)

    async def command(self, kind: str) -> Any:
        """The next command of a kind, from the list of that name in Commands; those before it are skipped."""
        while True:
            while self._commands:
                name, command = self._commands.popleft()
                if name == kind:
                    return command
            commands = (await self.frame("commands")).commands
            self._commands.extend(
                (field.name, one) for field, value in commands.ListFields() if field.name != "epoch" for one in value
            )

    async def frame(self, kind: str) -> step_pb2.ConnectRequest:
        """The next frame of a kind; others are skipped."""
        async with asyncio.timeout(10):
            while True:
                _, frame = await self.frames.get()
                if frame.WhichOneof("frame") == kind:
                    return frame

    async def link(self) -> Link:
        """The next stream that a worker opens."""
        async with asyncio.timeout(10):
            return await self.links.get()


def acks(commands: step_pb2.Commands) -> step_pb2.Work:
    """Acknowledges all numbers of a frame."""
    highest: dict[tuple[str, int], int] = {}
    for name in NUMBERED:
        for one in getattr(commands, name):
            at = (one.run_id, one.turn)
            highest[at] = max(highest.get(at, 0), one.number)
    for one in commands.delivered:
        at = (one.run_id, one.turn)
        highest[at] = max(highest.get(at, 0), *(key.number for key in one.keys))
    return step_pb2.Work(
        acks=[step_pb2.Ack(run_id=run, turn=turn, number=number) for (run, turn), number in highest.items()]
    )


class _Status:
    def __init__(self, code: grpc.StatusCode, details: str, metadata: Any) -> None:
        self.code, self.details, self.trailing_metadata = code, details, metadata


def _status(code: grpc.StatusCode, reason: str) -> Any:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="stepwell"))
    status = status_pb2.Status(code=code.value[0], message="refused by the test", details=[detail])
    return _Status(code, status.message, (("grpc-status-details-bin", status.SerializeToString()),))


@asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    server = FakeServer()
    io = connection.io()
    await io.run(server.start())
    try:
        yield server
    finally:
        await io.run(server.stop())
