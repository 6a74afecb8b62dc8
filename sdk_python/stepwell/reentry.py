"""The re-entry core: journal and outcomes in, commands and bodies out. It does no I/O and reads no clock.

The host calls start, resolve, finish, ack, cancel, evict; after each call it sends `commands` in one frame, executes
`bodies` and interrupts `interrupts`, and empties all three. Between calls the code is quiescent (H1c).
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

from stepwell import endings, errors
from stepwell.call import RETRY, RUN, StepFuture
from stepwell.context import Body, run_id_var
from stepwell.core import ENDED, EXECUTING, FENCED, NEW, PARKED, Core
from stepwell.errors import LimitError, OutsideStepError, StepwellError
from stepwell.event import from_message
from stepwell.journal import CANCEL_KEY, RUN_KEY, split_attempt
from stepwell.loop import Timer
from stepwell.unwind import awaited, unwind
from stepwell.v1 import step_pb2

if TYPE_CHECKING:
    from stepwell.function import Function
    from stepwell.v1.step_pb2 import Assign, Limits, Outcome


class Reentry(Core):
    """One run in the worker's memory."""

    __slots__ = (
        "_cancel_asked", "_main", "_number", "_seen", "acked", "bodies", "cancelled", "commands", "end_number",
        "received",
    )  # fmt: skip

    def __init__(self, function: Function[Any, Any], assign: Assign, limits: Limits) -> None:
        super().__init__(function, assign, limits)
        # What the host takes after each call, with interrupts.
        self.commands = self._outbox.commands
        self.bodies: list[Body] = []
        # What the host may read: outcomes received in this turn, each counted once; whether cancel was delivered; the
        # number of the command that ended the run.
        self.received = 0
        self.cancelled = False
        self.end_number = 0
        # Why the code is to be unwound, once it has started; None: it is not.
        self._cancel_asked: str | None = assign.cancel_failure.message if assign.cancelled else None
        self._number = self._watermark
        self.acked = self._watermark
        self._seen: set[str] = set()  # keys received in this turn
        self._main: asyncio.Task[Any] | None = None

    # -- what the host calls -------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether the host may forget the run: it is fenced, or its end is durable."""
        return self.state is FENCED or (self.state is ENDED and self.acked >= self.end_number)

    def start(self) -> None:
        """Runs the code over its journal up to where it was, then on."""
        assert self.state is NEW, "start is called once"
        self.state = EXECUTING
        early = self._journal.take_pending()
        self._seen.update(outcome.key for outcome in early)
        for outcome in early:
            # Leave to run the function again is seen first of all: the code may end without asking for anything.
            if outcome.key.startswith(RUN_KEY):
                self._see(outcome.key)
        try:
            event: Any = from_message(self.event, self.function.decode_input)
            if self.function.batches:
                event = [from_message(one, self.function.decode_input) for one in self.events] or [event]
        except StepwellError as error:
            self._emit_end(error)
        else:
            context = contextvars.Context()
            context.run(run_id_var.set, self.run_id)
            coro = context.run(self.function.start, self, event)
            self._main = asyncio.Task(coro, loop=self.loop, name=self.function.name, context=context)
            self._advance()
        for outcome in self._journal.outcomes:
            if self.state is not EXECUTING:
                break
            self._replay(outcome)
        self._journal.outcomes = []
        # Cancel comes last: had the code seen it before these, that would be durable and so in the journal (H1a).
        for outcome in early:
            self._receive(outcome)
        if self._cancel_asked is not None:
            self._cancel(self._cancel_asked)
        self._close_call()

    def resolve(self, outcome: Outcome) -> None:
        """Takes an outcome from the server; one sent twice counts once. Before start it waits for the journal."""
        if outcome.key in self._seen:
            return
        self._seen.add(outcome.key)
        self.received += 1
        if self.state is NEW:
            self._journal.pending.append(outcome)
            self._journal.note_function_attempt((outcome,))
            return
        self._receive(outcome)
        self._close_call()

    def finish(
        self, key: str, attempt: int, value: Any = None, error: BaseException | None = None,
        started_ms: int = 0, ended_ms: int = 0,
    ) -> None:  # fmt: skip
        """Takes the end of a body. An end that nobody asks for any more is ignored."""
        call = self._executing.get(key)
        if call is None or call.attempt != attempt:
            return
        del self._executing[key]
        if error is None:
            try:
                data, value = call.round_trip(value, self.result_bytes)
            except StepwellError as refused:
                self._fail(call, refused, started_ms, ended_ms)
            else:
                self._succeed(call, data, value, started_ms, ended_ms)
        else:
            self._fail(call, error, started_ms, ended_ms)
        self._close_call()

    def ack(self, number: int) -> None:
        """Everything up to the number is durable: bodies that waited for it begin."""
        if number <= self.acked:
            return
        self.acked = number
        self._outbox.acknowledge(number)
        self._close_call()

    def cancel(self, why: str = "") -> None:
        """Raises CancelledError(why) in the code, which may clean up in further steps; at its end it is cancelled."""
        if self.state is NEW:
            self._cancel_asked = why
            return
        self._cancel(why)
        self._close_call()

    def evict(self) -> None:
        """The run is no longer this worker's: fences it, then unwinds its code silently (H3)."""
        if self.state is FENCED:
            return
        self.state = FENCED
        self._outbox.clear()
        self.bodies.clear()
        self._let_go()

    def unacknowledged(self) -> list[Any]:
        """Commands to send again after a reconnect, in order (H11). Those not yet taken are not among them."""
        fresh = self._outbox.commands
        sent = self._outbox.unacknowledged(self.state is PARKED)
        return [c for c in sent if not any(c is f for f in fresh)] if fresh else sent

    def unasked(self) -> tuple[str, ...]:
        """Keys of recorded outcomes that the code has not asked for."""
        return tuple(self._journal.recorded)

    # -- delivery ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Runs the code until it is quiescent, then delivers what it asked for late, one at a time (H1b)."""
        assert self._main is not None, "the code was started"
        while True:
            try:
                self.loop.run_until_quiescent()
            except LimitError as error:
                if self.state is EXECUTING:
                    self._emit_end(error)
            if self.state is not EXECUTING:
                self._let_go()
                return
            if self._main.done():
                self._end(self._main)
                return
            if not self._due:
                return
            call = self._calls.get(key := self._due.popleft())
            outcome = self._journal.take(key)
            if call is not None:
                if not outcome.number:
                    self._see(key)
                self._settle(call, outcome)

    def _see(self, key: str) -> None:
        """Numbers an outcome made elsewhere. With another key open it was a choice: that must be durable (H1a)."""
        self._number += 1
        self._outbox.deferred.append(step_pb2.DeliveredKey(key=key, number=self._number))
        if len(self._calls) > 1 or key == CANCEL_KEY:
            self._outbox.flush()
            self._watermark = self._number

    def _settle(self, call: StepFuture[Any] | Timer, outcome: Outcome) -> None:
        del self._calls[call.key]
        self.now_ms = max(self.now_ms, outcome.time_ms)
        call.deliver(outcome)

    def _replay(self, outcome: Outcome) -> None:
        """Delivers a recorded outcome; one that the code does not ask for is skipped, never awaited (H1b)."""
        key = outcome.key
        if key == CANCEL_KEY:
            self._deliver_cancel(outcome.failure.message, outcome.time_ms)
        elif outcome.kind == RETRY:
            base, attempt = split_attempt(key)
            self.now_ms = max(self.now_ms, outcome.time_ms)
            call = self._calls.get(base)
            if call is None:
                self._journal.attempts[base] = (attempt, outcome.failure)
            elif call.kind == RUN:
                call.attempt, call.last_error = attempt, outcome.failure
        elif (call := self._calls.get(key)) is not None:
            del self._journal.recorded[key]
            self._settle(call, outcome)
            self._advance()
        elif key not in self._keys:
            self._journal.skipped.add(key)

    def _receive(self, outcome: Outcome) -> None:
        key = outcome.key
        if self.state not in (EXECUTING, PARKED):
            return
        if key == CANCEL_KEY:
            self._cancel(outcome.failure.message)
        elif outcome.kind == RETRY:
            self._receive_retry(outcome)
        elif (call := self._calls.get(key)) is not None:
            if self._executing.pop(key, None) is not None:  # decided elsewhere, by an operator for example
                self.interrupts.append(key)
            elif call in self._waiting:
                self._waiting.remove(call)  # pyright: ignore[reportArgumentType]
            self._outbox.resolved(key)
            self.state = EXECUTING
            self._see(key)
            self._settle(call, outcome)
            self._advance()
        elif key not in self._keys:
            self._journal.inbox[key] = outcome

    def _receive_retry(self, outcome: Outcome) -> None:
        """Leave for another attempt of a body: numbered like all outcomes, though the code does not see it."""
        base, attempt = split_attempt(outcome.key)
        call = self._calls.get(base)
        self.now_ms = max(self.now_ms, outcome.time_ms)
        if base == RUN_KEY:
            return
        if call is None:
            if base not in self._keys:
                self._see(outcome.key)
                self._journal.open.pop(base, None)
                self._journal.attempts[base] = (attempt, outcome.failure)
            return
        if call.kind != RUN or base in self._executing or (attempt <= call.attempt and not call.open_key):
            return
        self._outbox.resolved(base)
        self.state = EXECUTING
        self._see(outcome.key)
        call.attempt, call.last_error, call.open_key, call.need = attempt, outcome.failure, "", self._watermark
        self._waiting.append(call)  # pyright: ignore[reportArgumentType]

    def _cancel(self, why: str) -> None:
        if self.cancelled or self.state not in (EXECUTING, PARKED):
            return
        self.state = EXECUTING
        self._see(CANCEL_KEY)
        self._deliver_cancel(why, 0)

    def _deliver_cancel(self, why: str, time_ms: int) -> None:
        assert self._main is not None, "the code was started"
        self.cancelled = True
        self.now_ms = max(self.now_ms, time_ms)
        self._main.cancel(why or None)
        self._advance()

    # -- bodies --------------------------------------------------------------------------------------------------

    def _succeed(self, call: StepFuture[Any], data: bytes, value: Any, started_ms: int, ended_ms: int) -> None:
        key = call.key
        del self._calls[key]
        self._number = self._watermark = number = self._number + 1
        result = step_pb2.StepResult(
            run_id=self.run_id, turn=self.turn, key=key, number=number, attempt=call.attempt,
            started_ms=started_ms, ended_ms=ended_ms, input_hash=call.hash,
        )  # fmt: skip
        result.output.data = data  # a dict among the arguments costs more
        self._outbox.emit(result, numbered=True)
        self.now_ms = max(self.now_ms, ended_ms)
        call.set_result(value)
        self._advance()

    def _fail(self, call: StepFuture[Any], error: BaseException, started_ms: int, ended_ms: int) -> None:
        failure = errors.to_failure(error, self.limits.failure_bytes)
        final = failure.non_retriable or call.attempt >= (call.policy.max_attempts or 4)
        # The server decides; this names the key under which it will answer, for the park.
        call.open_key = call.key if final else f"{call.key}#{call.attempt + 1}"
        self._emit(
            step_pb2.StepFailure, key=call.key, attempt=call.attempt, failure=failure, retry=call.policy,
            retry_after_ms=errors.retry_after_ms(error), started_ms=started_ms, ended_ms=ended_ms, input_hash=call.hash,
        )  # fmt: skip

    def _close_call(self) -> None:
        """The last act of every call by the host: bodies begin, or the run parks."""
        if self.state is EXECUTING:
            if self._waiting:
                self._begin_bodies()
            if not self._executing and not self._waiting:
                if self._calls:
                    self.state = PARKED
                    keys = [call.open_key for call in self._calls.values()]
                    tree = step_pb2.AwaitTree(combine=step_pb2.AwaitTree.COMBINE_ANY, keys=keys)
                    self._emit(step_pb2.Park, tree=tree, received=self.received)
                else:
                    self._emit_end(OutsideStepError(awaited(self._main)))
                    self._let_go()
        if self._outbox.fresh:
            self._outbox.close_call(self._number)

    def _begin_bodies(self) -> None:
        held: list[StepFuture[Any]] = []
        for call in self._waiting:
            if call.need > self.acked:
                held.append(call)
                continue
            self._executing[call.key] = call
            fn, args, kwargs, is_async = call.body
            self.bodies.append(
                Body(
                    self.run_id, call.key, call.attempt, call.last_error, fn, args, kwargs, is_async, call.timeout_ms,
                    self.trace,
                )
            )  # fmt: skip
        self._waiting = held

    # -- the end -------------------------------------------------------------------------------------------------

    def _end(self, main: asyncio.Task[Any]) -> None:
        """The code has ended; once cancel was delivered to it, it is cancelled, however it ended."""
        if self.cancelled:
            self._ended(step_pb2.Cancelled())
        else:
            what = f"the output of {self.function.id}"
            self._ended(endings.of_code(main, what, self.result_bytes, self.limits.failure_bytes, self.attempt))
        self._let_go()

    def _emit_end(self, error: BaseException) -> None:
        """The core ends a run that cannot go on."""
        if self.cancelled:
            self._ended(step_pb2.Cancelled())
        else:
            self._ended(endings.failed(error, self.limits.failure_bytes, self.attempt))

    def _ended(self, ending: endings.Ending) -> None:
        self._number = self.end_number = self._number + 1
        if self.trace is not None:
            self.trace.ending = ending
        ending.run_id = self.run_id
        ending.turn = self.turn
        ending.number = self._number
        self._outbox.emit(ending, numbered=True)
        self.state = ENDED

    def _let_go(self) -> None:
        """Stops what still runs of a run that ended or was fenced."""
        self.interrupts.extend(self._executing)
        self._executing.clear()
        self._waiting.clear()
        self._due.clear()
        self._calls.clear()
        unwind(self.loop, self._main)
        self._main = None
        self.loop.detach()
