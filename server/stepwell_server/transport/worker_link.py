"""The outbox of one worker's stream: frames are built as things come in, and written by exactly one writer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import grpc.aio
from stepwell.v1 import step_pb2

from stepwell_server.model.journal import GIVEN_UP, INNER, OutcomeRow
from stepwell_server.model.limits import LIMITS
from stepwell_server.ports.store import RunState
from stepwell_server.transport import convert

_LAST_FRAME_S = 1.0
_EVENT_BYTES = 128


class WorkerLink:
    """Implements ports/link.py on a gRPC stream."""

    def __init__(self) -> None:
        self._frames: deque[step_pb2.ConnectResponse] = deque()
        self._open: step_pb2.ConnectResponse | None = None
        self._items = 0
        self._bytes = 0
        self._sent = 0
        self._wake: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._stopped = False
        self.closed: tuple[str, str] | None = None

    # -- what goes in --------------------------------------------------------------------------------------------

    def _work(self, size: int) -> step_pb2.Work:
        """The frame that the next item goes into: soft limits on items and bytes; a larger item travels alone."""
        frame = self._open
        if frame is not None and (self._items >= LIMITS.frame_items or self._bytes + size > LIMITS.frame_soft_bytes):
            self._frames.append(frame)
            frame = None
        if frame is None:
            frame = self._open = step_pb2.ConnectResponse()
            self._items = 0
            self._bytes = 0
            wake = self._wake
            if wake is not None and not wake.done():
                wake.set_result(None)
        self._items += 1
        self._bytes += size
        return frame.work

    def welcome(self, welcome: step_pb2.Welcome) -> None:
        """The first frame."""
        self._frames.append(step_pb2.ConnectResponse(welcome=welcome))

    def pulse(self) -> None:
        """An empty frame, so that the worker hears something; nothing if something is on its way."""
        if self._open is None and not self._frames:
            self._open = step_pb2.ConnectResponse(work=step_pb2.Work())
            self._items = 0
            self._bytes = 0
            if self._wake is not None and not self._wake.done():
                self._wake.set_result(None)

    def ack(self, run_id: str, turn: int, number: int) -> None:
        self._work(64).acks.add(run_id=run_id, turn=turn, number=number)

    def assign(self, state: RunState, cancel: OutcomeRow | None) -> None:
        run = state.run
        # What the code has not seen yet comes with the journal, without a number: it must not come later than the code.
        told = (o for o in state.outcomes if o.number != GIVEN_UP)
        journal = [outcome for outcome in told if outcome.number is not None or outcome.kind not in INNER]
        size = 256 + len(state.event.data if state.event is not None else run.input or b"")
        if state.events:
            size += sum(len(event.data) + len(event.metadata) + _EVENT_BYTES for event in state.events)
        message = self._work(size).assigns.add(
            run_id=run.id,
            turn=run.turn,
            function_id=run.function_id,
            cancelled=cancel is not None,
            created_ms=run.created_ms,
        )
        if cancel is not None:
            message.cancel_failure.CopyFrom(convert.failure_message(cancel.failure))
        convert.input_message(message.event, state)
        for event in state.events:
            convert.event_into(message.events.add(), event)
        waits = [wait for wait in state.waits if wait.kind not in INNER]
        if not journal and not waits:
            return
        part: step_pb2.Assign | step_pb2.JournalPart = message
        room = LIMITS.frame_soft_bytes - self._bytes
        count = len(state.events)  # behind a batch the journal begins a part of its own: the two may not fit one frame
        for item in (*journal, *waits):
            cost = 96 + (len(item.output or b"") + len(item.failure or b"") if isinstance(item, OutcomeRow) else 0)
            if count and (cost > room or count >= LIMITS.frame_items):
                part.more = True
                self._bytes = LIMITS.frame_soft_bytes
                part = self._work(cost).journal_parts.add(run_id=run.id, turn=run.turn)
                room = LIMITS.frame_soft_bytes - cost
                count = 0
            count += 1
            room -= cost
            self._bytes += cost
            if isinstance(item, OutcomeRow):
                convert.outcome_into(part.journal.add(), item)
            else:
                part.open.add(key=item.key, kind=item.kind, target=item.target, input_hash=item.input_hash)  # pyright: ignore[reportArgumentType]

    def outcome(self, turn: int, outcome: OutcomeRow) -> None:
        size = 96 + len(outcome.output or b"") + len(outcome.failure or b"")
        message = self._work(size).outcomes.add(run_id=outcome.run_id, turn=turn)
        convert.outcome_into(message, outcome)

    def cancel(self, turn: int, request: OutcomeRow) -> None:
        message = self._work(256).cancels.add(run_id=request.run_id, turn=turn)
        message.failure.CopyFrom(convert.failure_message(request.failure))

    def evict(self, run_id: str, turn: int) -> None:
        self._work(64).evicts.add(run_id=run_id, turn=turn)

    def refuse(self, run_id: str, turn: int, key: str, reason: str, message: str) -> None:
        self._work(256).refused.add(run_id=run_id, turn=turn, key=key, reason=reason, message=message)

    def drain(self, reconnect_after_ms: int, reason: str) -> None:
        self._seal()
        self._frames.append(
            step_pb2.ConnectResponse(drain=step_pb2.Drain(reconnect_after_ms=reconnect_after_ms, reason=reason))
        )

    def close(self, reason: str, message: str) -> None:
        if self.closed is None:
            self.closed = (reason, message)
            if self._task is not None:
                self._task.cancel()

    def frames_sent(self) -> int:
        return self._sent + len(self._frames)

    # -- what goes out -------------------------------------------------------------------------------------------

    def _seal(self) -> None:
        if self._open is not None:
            self._frames.append(self._open)
            self._open = None
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def write_all(self, context: grpc.aio.ServicerContext[Any, Any], counters: Any) -> None:
        """Writes frames for as long as the stream lives: takes all there is, sends, repeats."""
        while not self._stopped:
            while self._frames and not self._stopped:
                frame = self._frames.popleft()
                self._sent += 1
                counters.frames_out += 1
                await context.write(frame)
            if self._open is not None:
                self._frames.append(self._open)
                self._open = None
                continue
            if not self._stopped:
                self._wake = self._loop.create_future()
                await self._wake
                self._wake = None

    async def stop(self, writer: asyncio.Task[None]) -> None:
        """The writer ends with the frame that it is writing: a call whose write was cut off would never get its status.

        A client that does not read is not waited for.
        """
        self._stopped = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        writer.add_done_callback(_seen)
        try:
            await asyncio.wait((writer,), timeout=_LAST_FRAME_S)
        finally:
            writer.cancel()
        await asyncio.wait((writer,))


def _seen(writer: asyncio.Task[None]) -> None:
    """A write that failed is the end of the stream, which its reader learns."""
    if not writer.cancelled():
        writer.exception()
