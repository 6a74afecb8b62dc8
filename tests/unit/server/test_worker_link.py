"""The writer of a worker's stream: how it ends when the stream does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest
from stepwell.v1 import step_pb2
from stepwell_server.transport import worker_link
from stepwell_server.transport.scope import Counters
from stepwell_server.transport.worker_link import WorkerLink


class Stream:
    """A stream whose writes wait until they may end, or fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.may_end = asyncio.Event()
        self.written = 0
        self.cut_off = False
        self._error = error

    async def write(self, frame: step_pb2.ConnectResponse) -> None:
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cut_off = True
            raise
        if self._error is not None:
            raise self._error
        self.written += 1


async def writing(stream: Any) -> tuple[WorkerLink, asyncio.Task[None]]:
    """A link whose writer is within its first write, with a frame behind it."""
    link = WorkerLink()
    link.welcome(step_pb2.Welcome())
    link.welcome(step_pb2.Welcome())
    writer = asyncio.ensure_future(link.write_all(stream, Counters()))
    await asyncio.sleep(0)
    return link, writer


async def test_a_write_is_never_cut_off_and_nothing_is_written_after_it() -> None:
    stream = Stream()
    link, writer = await writing(stream)
    stopping = asyncio.ensure_future(link.stop(writer))
    await asyncio.sleep(0)
    assert not stopping.done()
    stream.may_end.set()
    await stopping
    assert (stream.written, stream.cut_off) == (1, False)


async def test_a_client_that_does_not_read_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "_LAST_FRAME_S", 0.01)
    stream = Stream()
    link, writer = await writing(stream)
    await link.stop(writer)
    assert stream.cut_off


async def test_a_write_that_fails_while_the_stream_ends_is_nothing_to_report() -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    stream = Stream(RuntimeError("the connection is gone"))
    link, writer = await writing(stream)
    stopping = asyncio.ensure_future(link.stop(writer))
    await asyncio.sleep(0)
    stream.may_end.set()
    stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stopping
    await asyncio.wait((writer,))
    del writer, stopping
    gc.collect()
    await asyncio.sleep(0)
    asyncio.get_running_loop().set_exception_handler(None)
    assert told == []
