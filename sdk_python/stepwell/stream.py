"""One stream of a worker on the I/O loop: Hello and Welcome, a reader, one writer that drains an outbox, heartbeats."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from math import inf
from typing import Any, NamedTuple

import grpc
import grpc.aio

from stepwell.connection import IoThread, open_channel
from stepwell.frames import Decision, pack
from stepwell.v1 import step_pb2, step_pb2_grpc

WELCOME_TIMEOUT_S = 10.0
LEAVE_TIMEOUT_S = 1.0
LEASE_SHARE = 0.8
"""Part of the lease that may pass in silence before everything is given up."""

HASH_MODULUS = 1 << 64


def run_digest(run_id: str, turn: int) -> int:
    """One run's part of the hash of residents; see Heartbeat.resident_hash."""
    return int.from_bytes(blake2b(f"{run_id}:{turn}".encode(), digest_size=8).digest(), "big")


class Digest(NamedTuple):
    """The residents as of a number of applied server frames, for the heartbeat."""

    residents: int
    hash: int
    frames_read: int


class Batch(NamedTuple):
    """Decisions, and the digest of the residents once they are sent."""

    decisions: Sequence[Decision]
    digest: Digest


class Stream:
    """Lives on the I/O loop; `send` may be called from the user's thread.

    `arrived(stream, frame)` is called for each frame of the server after Welcome.
    """

    def __init__(self, io: IoThread, address: str, arrived: Callable[[Stream, step_pb2.ConnectResponse], None]) -> None:
        self._io = io
        self._address = address
        self._arrived = arrived
        self._outbox: deque[Batch | step_pb2.ConnectRequest] = deque()
        self._signalled = True
        """The writer is awake, or was woken: it looks at the outbox again before it rests."""
        self._rest: asyncio.Future[None] | None = None
        self._heartbeat_due = False
        self.digest = Digest(0, 0, 0)
        """What heartbeats say: set before `serve`, then by the batches as they are sent."""
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._responses: Any = None
        self._leaving = False
        self.epoch = 0
        self.welcome = step_pb2.Welcome()
        self.heard_at = time.monotonic()
        self._beat_at = time.monotonic()
        self._trusted_s = inf

    @property
    def overslept(self) -> bool:
        """So long without a heartbeat from here that the runs may be elsewhere: what came on it may be older than that.

        The process was frozen, or the stream has ended. It stays so: nothing of it is applied any more (H12c).
        """
        return time.monotonic() - self._beat_at > self._trusted_s

    def _stay_awake(self) -> None:
        if self.overslept:
            raise ConnectionError(f"this process stood still for {time.monotonic() - self._beat_at:.1f} s")

    async def open(self, hello: Iterable[step_pb2.ConnectRequest]) -> step_pb2.Welcome:
        """Says Hello and waits for Welcome. Raises AioRpcError, or ConnectionError."""
        self._channel = open_channel(self._address)
        self._call = step_pb2_grpc.StepServiceStub(self._channel).Connect()
        self._responses = aiter(self._call)
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT_S):
                # A refusal breaks the writing off; the reason is found by reading.
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    for frame in hello:
                        self._beat_at = time.monotonic()
                        await self._call.write(frame)
                first = await anext(self._responses, None)
        except TimeoutError:
            raise ConnectionError(f"no Welcome within {WELCOME_TIMEOUT_S:g} s") from None
        if first is None or first.WhichOneof("frame") != "welcome":
            raise ConnectionError("the stream ended before Welcome")
        self._trusted_s = LEASE_SHARE * first.welcome.lease_ms / 1000 or inf
        self._stay_awake()
        self.heard_at = time.monotonic()
        self.welcome = first.welcome
        self.epoch = first.welcome.epoch
        return first.welcome

    async def serve(self) -> None:
        """Reads and writes until the stream ends. Raises what ended it: AioRpcError or ConnectionError."""
        beat_s = max(self.welcome.heartbeat_ms, 20) / 1000
        # The server sends something each heartbeat; silence for less than half a lease leaves time to take up the
        # session on another connection.
        quiet_s = max(3 * beat_s, 0.4 * self.welcome.lease_ms / 1000)
        writer = asyncio.ensure_future(self._write())
        watch = asyncio.ensure_future(self._watch(beat_s, quiet_s))
        reader = asyncio.ensure_future(self._read())
        tasks = (reader, writer, watch)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if writer in done and reader not in done:
                # After Goodbye the server ends the stream; after a failed write only the reader can tell the cause.
                await asyncio.wait((reader,), timeout=LEAVE_TIMEOUT_S)
            if self._leaving:
                return
            for task in tasks:
                if task.cancelled():
                    raise ConnectionError("the call was broken off here")
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def cancel(self) -> None:
        """Breaks the call off: `serve` ends with an error."""
        if self._call is not None:
            self._call.cancel()

    async def close(self) -> None:
        """Ends the call without a word: the session goes on elsewhere, or was left by Goodbye."""
        self.cancel()
        if self._channel is not None:
            await self._channel.close(None)

    # --- outwards ---

    def send(self, entry: Batch | step_pb2.ConnectRequest) -> None:
        """Puts an entry into the outbox, in order, from any thread. What a dead stream holds is never sent."""
        self._outbox.append(entry)
        if self._signalled or (isinstance(entry, Batch) and not entry.decisions):
            return
        self._signalled = True
        with contextlib.suppress(RuntimeError):
            self._io.call(self._wake)

    def _wake(self) -> None:
        if self._rest is not None and not self._rest.done():
            self._rest.set_result(None)

    async def _write(self) -> None:
        outbox = self._outbox
        write = self._call.write
        loop = asyncio.get_running_loop()
        while not self._leaving:
            while outbox:
                for frame in self._take():
                    await write(frame)
            if self._leaving:
                break
            if self._heartbeat_due:
                self._heartbeat_due = False
                await write(self._heartbeat())
                continue
            self._rest = loop.create_future()
            self._signalled = False
            if outbox or self._heartbeat_due:
                self._signalled = True
                continue
            await self._rest
            self._signalled = True
        await self._call.done_writing()

    def _take(self) -> Iterable[step_pb2.ConnectRequest]:
        """Empties the outbox: neighbouring batches share frames, other entries keep their place."""
        outbox = self._outbox
        decisions: list[Decision] = []
        for _ in range(len(outbox)):
            entry = outbox.popleft()
            if isinstance(entry, Batch):
                decisions.extend(entry.decisions)
                self.digest = entry.digest
                continue
            yield from pack(decisions, self.epoch)
            decisions = []
            yield entry
            if entry.WhichOneof("frame") == "goodbye":
                self._leaving = True
                return
        yield from pack(decisions, self.epoch)

    def _heartbeat(self) -> step_pb2.ConnectRequest:
        residents, residents_hash, frames_read = self.digest
        return step_pb2.ConnectRequest(
            heartbeat=step_pb2.Heartbeat(
                epoch=self.epoch, residents=residents, resident_hash=residents_hash, frames_read=frames_read
            )
        )

    # --- inwards ---

    async def _read(self) -> None:
        arrived = self._arrived
        # Not call.read(): once the call's status is there, that one leaves out messages which came before it.
        async for frame in self._responses:
            self._stay_awake()
            self.heard_at = time.monotonic()
            arrived(self, frame)
        raise ConnectionError("the server ended the stream")

    async def _watch(self, beat_s: float, quiet_s: float) -> None:
        """Makes a heartbeat due on the interval, and gives up a stream that fell silent."""
        while True:
            await asyncio.sleep(beat_s)
            self._stay_awake()
            now = time.monotonic()
            # After a short freeze of our own, what has arrived meanwhile is read first.
            late = now - self._beat_at > 2 * beat_s
            self._beat_at = now
            self._heartbeat_due = True
            self._wake()
            if not late and now - self.heard_at > quiet_s:
                raise ConnectionError(f"nothing heard from the server for {now - self.heard_at:.1f} s")
