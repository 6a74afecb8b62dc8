"""Notes between nodes through Redis pub/sub: nothing is kept there, so nothing is lost with it (H30)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import orjson
from redis import exceptions

from stepwell_server.adapters.redis.link import ANSWER_S, connect
from stepwell_server.model.notes import KINDS, Note
from stepwell_server.ports.peers import EVERYBODY

log = logging.getLogger("stepwell.redis")
_WAITING = 20_000
_BATCH = 1_000
_SILENCE_S = 3.0
_BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_NAMES = {kind.__name__: kind for kind in KINDS}
_TROUBLE = (exceptions.RedisError, OSError, TimeoutError)


class RedisPeers:
    """Implements ports/peers.py: one connection that publishes, one that listens.

    A node hears what it tells everybody itself: silence for some seconds means that Redis hangs or is away.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._sender = connect(url)
        self._listener = connect(url, answer_s=None)
        self._me = ""
        self._prefix = ""
        self._heard: Callable[[str, Note], None] = lambda sender, note: None
        self._outbox: dict[str, list[Note]] = {}
        self._waiting = 0
        self._flushing: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._heard_at = time.monotonic()
        self._trouble = ""

    async def start(self, cluster: str, node_id: str, heard: Callable[[str, Note], None]) -> None:
        self._prefix = f"stepwell:{{{cluster}}}:"
        self._me = node_id
        self._heard = heard
        ready = asyncio.get_running_loop().create_future()
        self._listening = asyncio.get_running_loop().create_task(self._listen(ready))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ready, _SILENCE_S)

    @property
    def trouble(self) -> str:
        if self._trouble:
            return self._trouble
        silent_s = time.monotonic() - self._heard_at
        return f"nothing was heard through Redis for {silent_s:.0f} s" if silent_s > _SILENCE_S else ""

    def tell(self, to: str, note: Note) -> None:
        if self._waiting >= _WAITING:
            return
        notes = self._outbox.get(to)
        if notes is None:
            self._outbox[to] = [note]
        else:
            notes.append(note)
        self._waiting += 1
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def stop(self) -> None:
        flushing, listening = self._flushing, self._listening
        self._listening = None
        if flushing is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(flushing), ANSWER_S / 2)
            flushing.cancel()
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        for client in (self._sender, self._listener):
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.aclose(), ANSWER_S)

    # -- outwards ------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        """Sends what there is, then what came meanwhile, in a round trip each. What does not get through is lost."""
        try:
            while self._outbox:
                outbox, self._outbox, self._waiting = self._outbox, {}, 0
                pipeline = self._sender.pipeline(transaction=False)
                for to, notes in outbox.items():
                    for at in range(0, len(notes), _BATCH):
                        pipeline.publish(self._channel(to), self._packed(notes[at : at + _BATCH]))
                try:
                    await asyncio.wait_for(pipeline.execute(), ANSWER_S)
                except _TROUBLE as error:
                    self._in_trouble(error)
                    await self._sender.connection_pool.disconnect()
                    await asyncio.sleep(_BACKOFF_S[-1])
                    return
        finally:
            self._flushing = None
            if self._outbox and self._listening is not None:
                self._flushing = asyncio.get_running_loop().create_task(self._flush())

    def _channel(self, to: str) -> str:
        return self._prefix + (to or "all")

    def _packed(self, notes: list[Note]) -> bytes:
        return orjson.dumps([self._me, [[type(note).__name__, *note] for note in notes]])

    # -- inwards -------------------------------------------------------------------------------------------------

    async def _listen(self, ready: asyncio.Future[None]) -> None:
        tries = 0
        while True:
            pubsub = self._listener.pubsub()
            try:
                async with asyncio.timeout(_SILENCE_S):
                    await pubsub.subscribe(self._channel(EVERYBODY), self._channel(self._me))
                self._heard_at = time.monotonic()
                if not ready.done():
                    ready.set_result(None)
                while True:
                    async with asyncio.timeout(_SILENCE_S):
                        message = await pubsub.get_message(timeout=_SILENCE_S)
                    if message is None:
                        raise TimeoutError(f"nothing was heard for {_SILENCE_S:g} s")
                    if self._trouble:
                        log.warning("Redis answers again")
                    self._heard_at, self._trouble, tries = time.monotonic(), "", 0
                    if message["type"] == "message":
                        data: Any = message["data"]
                        self._opened(data)
            except _TROUBLE as error:
                self._in_trouble(error)
            finally:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(pubsub.aclose(), ANSWER_S)
                await self._listener.connection_pool.disconnect()
            await asyncio.sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)])
            tries += 1

    def _opened(self, data: bytes) -> None:
        for sender, note in unpack(data):
            try:
                self._heard(sender, note)
            except Exception:
                log.exception("a note of node %s broke what follows from it: %s", sender, note)

    def _in_trouble(self, error: BaseException) -> None:
        if not self._trouble:
            log.error("Redis is not available, nodes find their work in the database: %s", str(error) or "no answer")
        self._trouble = str(error) or "Redis does not answer"


def unpack(data: bytes) -> list[tuple[str, Note]]:
    """Who told which notes. What another version says, and this one does not know, is left out."""
    try:
        sender, packed = orjson.loads(data)
        return [(str(sender), note) for item in packed if (note := _note(item)) is not None]
    except (orjson.JSONDecodeError, ValueError, TypeError):
        return []


def _note(item: Any) -> Note | None:
    kind: Any = _NAMES.get(item[0]) if item else None
    if kind is None or len(item) != len(kind._fields) + 1:
        return None
    return kind(*item[1:])
