"""A worker's session on the I/O loop: connects for ever, moves between streams, and watches the lease."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import grpc
import grpc.aio

from stepwell.api_errors import ApiError, FailedPreconditionError, from_rpc_error
from stepwell.connection import IoThread, split_addresses
from stepwell.frames import Introduction, hello_frames
from stepwell.logs import log
from stepwell.stream import HASH_MODULUS, LEASE_SHARE, Digest, Stream, run_digest
from stepwell.v1 import step_pb2

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 5.0
STABLE_S = 5.0
"""A stream that lived this long starts the back-off anew."""
_HOPELESS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
_TRANSIENT = ("", "HELLO_EXPECTED", "OUT_OF_ORDER", "RESIDENTS_DIFFER")
"""Reasons of such a status that are not about the registration; an empty one is not the server's own."""


class Opened(NamedTuple):
    """A stream is open: from now on it is the one to send to."""

    stream: Stream
    listed: dict[str, int]
    """The residents that Hello named, with their turns."""


class Arrived(NamedTuple):
    """A frame arrived; its work is empty if it was of another kind."""

    stream: Stream
    work: step_pb2.Work


class Lost(NamedTuple):
    """The stream is gone; the session may be taken up again."""

    stream: Stream


class Lapsed(NamedTuple):
    """The lease is nearly over: the runs may be elsewhere soon."""


News: TypeAlias = Opened | Arrived | Lost | Lapsed


class Mailbox:
    """News for the user's loop, in order. An item leaves it only after it was applied."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ready: Callable[[], None]) -> None:
        self._loop = loop
        self._ready = ready
        self._signalled = False
        self.items: deque[News] = deque()

    def put(self, item: News) -> None:
        """Adds an item, from the I/O thread, and wakes the user's loop unless that is under way."""
        self.items.append(item)
        if not self._signalled:
            self._signalled = True
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                self.items.clear()  # the user's loop is closed: nobody reads any more

    def _wake(self) -> None:
        # What comes while items are applied is applied with them: to be woken for it would cost two system calls.
        try:
            self._ready()
        finally:
            self._signalled = False
            if self.items:
                self._signalled = True
                self._loop.call_soon(self._wake)


class Session:
    """Lives on the I/O loop. address: one, or several with commas; where one fails or drains, the next is tried.
    `residents` may be called from there at any time: the user's loop may be blocked."""

    def __init__(
        self,
        io: IoThread,
        address: str,
        worker: Introduction,
        capacity: int,
        residents: Callable[[], Sequence[step_pb2.Resident]],
        mailbox: Mailbox,
    ) -> None:
        self._io = io
        self._addresses = split_addresses(address)
        # Workers that were given the same list spread over it.
        self._at = random.randrange(len(self._addresses)) if len(self._addresses) > 1 else 0
        self._worker = worker
        self._residents = residents
        self._mailbox = mailbox
        self._current: Stream | None = None
        self._drain: asyncio.Future[step_pb2.Drain] | None = None
        self._lapsed = False
        self._heard_at = time.monotonic()
        self._lease_s = 0.0
        self._failures = 0
        self._opened_at = 0.0
        self.capacity = capacity
        """Set from the user's thread; the next Hello says it."""
        self._session_id = ""

    async def run(self) -> None:
        """Keeps a stream open until one is left by Goodbye. Raises ApiError if the server refuses the registration."""
        lease = asyncio.ensure_future(self._watch_lease())
        leaving: tuple[Stream, asyncio.Future[None]] | None = None
        try:
            while True:
                stream = await self._connect()
                if leaving is not None:
                    await self._drop(*leaving)
                serving = asyncio.ensure_future(stream.serve())
                leaving = (stream, serving)
                assert self._drain is not None
                await asyncio.wait((serving, self._drain), return_when=asyncio.FIRST_COMPLETED)
                if not serving.done():
                    # Make before break: the next stream opens while this one goes on.
                    drain = self._drain.result()
                    log.info("the server asks to connect elsewhere: %s", drain.reason)
                    serving.add_done_callback(lambda ended, left=stream: self._left(left, ended))
                    await asyncio.wait((serving,), timeout=drain.reconnect_after_ms / 1000)
                    self._at += 1
                    continue
                leaving = None
                await self._drop(stream, serving)
                self._mailbox.put(Lost(stream))
                error = serving.exception()
                if error is None:
                    return
                log.warning("the stream ended: %s", _words(error))
                self._at += 1
                if time.monotonic() - self._opened_at > STABLE_S:
                    self._failures = 0
                await self._back_off()
        finally:
            lease.cancel()
            if leaving is not None:
                await self._drop(*leaving)

    def _left(self, stream: Stream, serving: asyncio.Future[None]) -> None:
        """A stream that is being left has ended, perhaps before there is another to send to."""
        if not serving.cancelled():
            serving.exception()  # seen: the server said that it leaves
        self._mailbox.put(Lost(stream))

    async def _drop(self, stream: Stream, serving: asyncio.Future[None]) -> None:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await stream.close()

    async def _connect(self) -> Stream:
        while True:
            listed = () if self._lapsed else self._residents()
            if not self._session_id:
                listed = ()
            address = self._addresses[self._at % len(self._addresses)]
            stream = Stream(self._io, address, self._arrived)
            try:
                welcome = await stream.open(hello_frames(self._worker, self._session_id, self.capacity, listed))
            except (grpc.aio.AioRpcError, ConnectionError) as error:
                await stream.close()
                if isinstance(error, grpc.aio.AioRpcError):
                    refusal = from_rpc_error(error)
                    if refusal.code in _HOPELESS and refusal.reason not in _TRANSIENT:
                        raise refusal from None
                if self._failures & (self._failures - 1) == 0:
                    log.warning("no connection to %s (attempt %d): %s", address, self._failures + 1, _words(error))
                self._at += 1
                await self._back_off()
                continue
            except BaseException:
                await stream.close()
                raise
            if lacks := self._worker.missing(welcome.capabilities):
                await stream.close()
                message = f"the server at {address} is too old: it does not know {lacks}"
                raise FailedPreconditionError(grpc.StatusCode.FAILED_PRECONDITION, message, "CAPABILITY_MISSING")
            self._session_id = welcome.session_id
            self._lease_s = welcome.lease_ms / 1000
            self._lapsed = False
            self._opened_at = time.monotonic()
            self._current = stream
            self._drain = asyncio.get_running_loop().create_future()
            log.info("connected to %s, session %s, epoch %d", address, welcome.session_id, welcome.epoch)
            refused = {one.run_id for one in welcome.refused}
            # Until the user's loop has seen Welcome, which may take a while, this is what the session holds.
            held = [run_digest(one.run_id, one.turn) for one in listed if one.run_id not in refused]
            stream.digest = Digest(len(held), sum(held) % HASH_MODULUS, 1)
            self._mailbox.put(Opened(stream, {one.run_id: one.turn for one in listed}))
            return stream

    async def _back_off(self) -> None:
        ceiling = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(self._failures, 10))
        self._failures += 1
        await asyncio.sleep(random.uniform(0, ceiling))

    def _arrived(self, stream: Stream, frame: step_pb2.ConnectResponse) -> None:
        kind = frame.WhichOneof("frame")
        # Every frame is passed on, empty if need be: heartbeats count those that were applied.
        self._mailbox.put(Arrived(stream, frame.work))
        if kind == "drain" and stream is self._current and self._drain is not None and not self._drain.done():
            self._drain.set_result(frame.drain)

    async def _watch_lease(self) -> None:
        """Says Lapsed once the server was silent for most of a lease."""
        while True:
            before = time.monotonic()
            pause_s = max(self._lease_s / 20, 0.01) if self._lease_s else 0.1
            await asyncio.sleep(pause_s)
            now = time.monotonic()
            if self._current is not None:
                self._heard_at = max(self._heard_at, self._current.heard_at)
            # After a freeze of our own the stream judges first: what has arrived meanwhile may be young enough.
            late = now - before > 4 * pause_s
            if self._lease_s and not self._lapsed and not late and now - self._heard_at > LEASE_SHARE * self._lease_s:
                log.error("nothing heard from the server for %.1f s: stopping all bodies", now - self._heard_at)
                self._lapsed = True
                self._mailbox.put(Lapsed())


def _words(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return str(from_rpc_error(error))
    if isinstance(error, ApiError):
        return str(error)
    return str(error) or type(error).__name__
