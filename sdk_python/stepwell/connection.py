"""The one I/O thread of the process: its loop carries every channel, call and stream of grpc.aio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where it is installed, else the loop of the standard library."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class IoThread:
    """A loop that runs apart from user code. grpc.aio has one poller a process, hence one such loop (see `io`)."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.pid = os.getpid()
        self.loop = loop or new_event_loop()
        if loop is None:
            threading.Thread(target=self._main, name="stepwell-io", daemon=True).start()

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def spawn(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Starts a coroutine on the I/O loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Calls a function on the I/O loop soon, from any thread."""
        self.loop.call_soon_threadsafe(function, *args)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the I/O loop and awaits it on the caller's; a cancellation passes over."""
        if asyncio.get_running_loop() is self.loop:
            return await work
        return await asyncio.wrap_future(self.spawn(work))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the I/O loop and blocks the caller's thread until it ends."""
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self.loop:
            work.close()
            raise RuntimeError("a blocking call on the I/O loop would wait for itself: use AsyncClient")
        future = self.spawn(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


_lock = threading.Lock()
_io: IoThread | None = None


def io() -> IoThread:
    """The process's I/O thread, started when it is first needed (and once more in a forked child)."""
    global _io
    with _lock:
        if _io is None or _io.pid != os.getpid() or _io.loop.is_closed():
            _io = IoThread()
        return _io


_CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Without this, channels to one address share connections, and a new one inherits the back-off of a dead one.
    ("grpc.use_local_subchannel_pool", 1),
    # Our own retries repeat a request id and know their deadline.
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
)


_SCHEMES = ("ipv4:", "ipv6:", "unix:", "dns:", "xds:")


def split_addresses(address: str) -> tuple[str, ...]:
    """The addresses of "host:port,host:port": nodes of one cluster. A target of gRPC's own syntax is one."""
    if address.startswith(_SCHEMES):
        return (address,)
    return tuple(part.strip() for part in address.split(",") if part.strip()) or (address,)


def open_channel(address: str) -> grpc.aio.Channel:
    """Opens a channel; to be called on the I/O loop. The address is "host:port", or "https://host:port" for TLS."""
    scheme, separator, rest = address.partition("://")
    target = rest if separator and scheme in ("http", "https") else address
    if separator and scheme == "https":
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=_CHANNEL_OPTIONS)
    return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
