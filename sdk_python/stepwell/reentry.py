"""The re-entry core: journal and outcomes in, commands and bodies out. It does no I/O and reads no clock.

The host calls start, resolve, finish, ack, cancel, evict; after each call it sends `commands` in one frame, executes
`bodies` and interrupts `interrupts`, and empties all three. Between calls the code is quiescent (H1c).
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stepwell import codec, errors
from stepwell.call import IDENTICAL, INVOKE, RETRY, RUN, SEND, SLEEP, StepFuture
from stepwell.context import Body, run_id_var
from stepwell.duration import DURATION_MS_MAX
from stepwell.errors import Fenced, LimitError, OutsideStepError, StepError, StepwellError, UsageError
from stepwell.event import from_message
from stepwell.journal import CANCEL_KEY, RUN_KEY, Journal, location, split_attempt
from stepwell.keys import Keys
from stepwell.loop import RunLoop, Timer
from stepwell.outbox import Outbox
from stepwell.unwind import awaited, unwind
from stepwell.v1 import step_pb2

if TYPE_CHECKING:
    from stepwell.function import Function
    from stepwell.v1.step_pb2 import Assign, Limits, Outcome

FENCED_CALLS_MAX = 100

_get_running_loop = asyncio._get_running_loop


class State(enum.Enum):
    """Where the core is. NEW → EXECUTING ⇄ PARKED → ENDED; FENCED from anywhere."""

    NEW = "NEW"
    EXECUTING = "EXECUTING"
    PARKED = "PARKED"
    ENDED = "ENDED"
    FENCED = "FENCED"


# Members of an enum cost a lookup each; these are read several times per step.
_NEW, _EXECUTING, _PARKED, _ENDED, _FENCED = State


class Reentry:
    """One run in the worker's memory."""

    def __init__(self, function: Function[Any, Any], assign: Assign, limits: Limits) -> None:
        self.function = function
        self.run_id = assign.run_id
        self.turn = assign.turn
        self.created_ms = assign.created_ms
        self.event = assign.event
        self.limits = limits
        self.state = _NEW
        # What the host takes after each call.
        self.bodies: list[Body] = []
        self.interrupts: list[str] = []
        # What the host may read: outcomes received in this turn, each counted once; whether cancel was delivered; the
        # number of the command that ended the run.
        self.received = 0
        self.cancelled = False
        self.end_number = 0
        # What Step reads.
        self.now_ms = assign.created_ms
        self.result_bytes = limits.result_bytes
        self.policy = function.policy
        self.strict = function.strict
        self.loop = RunLoop(self._time, self._begin_timer, self.abandon)
        self.owns_thread: Callable[[], bool] | None = None  # set by a synchronous function

        self._branches = limits.branches
        self._cancel_asked = assign.cancelled
        self._journal = Journal(assign)
        self._outbox = Outbox(assign.run_id, assign.turn)
        self._keys = Keys(limits)
        self._number = self._journal.outcomes[-1].number if self._journal.outcomes else 0
        self.acked = self._number
        self._watermark = self._number  # what must be durable before a body called now may begin
        self._seen: set[str] = set()  # keys received in this turn
        self._calls: dict[str, StepFuture[Any] | Timer] = {}
        self._waiting: list[StepFuture[Any]] = []  # bodies that were called and have not begun
        self._executing: dict[str, StepFuture[Any]] = {}
        self._due: deque[str] = deque()  # asked for after the outcome's turn had passed
        self._main: asyncio.Task[Any] | None = None
        self._fenced_calls = 0

    # -- what the host calls -------------------------------------------------------------------------------------

    @property
    def commands(self) -> list[Any]:
        """Messages to send in one frame; empty the list (or assign a new one) after taking them."""
        return self._outbox.commands

    @commands.setter
    def commands(self, commands: list[Any]) -> None:
        self._outbox.commands = commands

    @property
    def attempt(self) -> int:
        """Which attempt of the function this is, from 1."""
        return self._journal.function_attempt

    @property
    def settled(self) -> bool:
        """Whether the host may forget the run: it is fenced, or its end is durable."""
        return self.state is _FENCED or (self.state is _ENDED and self.acked >= self.end_number)

    def start(self) -> None:
        """Runs the code over its journal up to where it was, then on."""
        assert self.state is _NEW, "start is called once"
        self.state = _EXECUTING
        early = self._journal.take_pending()
        self._seen.update(outcome.key for outcome in early)
        for outcome in early:
            # Leave to run the function again is seen first of all: the code may end without asking for anything.
            if outcome.key.startswith(RUN_KEY):
                self._see(outcome.key)
        try:
            event = from_message(self.event, self.function.decode_input)
        except StepwellError as error:
            self._emit_end(error)
        else:
            context = contextvars.Context()
            context.run(run_id_var.set, self.run_id)
            coro = context.run(self.function.start, self, event)
            self._main = asyncio.Task(coro, loop=self.loop, name=self.function.name, context=context)
            self._advance()
        for outcome in self._journal.outcomes:
            if self.state is not _EXECUTING:
                break
            self._replay(outcome)
        self._journal.outcomes = []
        # Cancel comes last: had the code seen it before these, that would be durable and so in the journal (H1a).
        for outcome in early:
            self._receive(outcome)
        if self._cancel_asked:
            self._cancel()
        self._close_call()

    def resolve(self, outcome: Outcome) -> None:
        """Takes an outcome from the server; one sent twice counts once. Before start it waits for the journal."""
        if outcome.key in self._seen:
            return
        self._seen.add(outcome.key)
        self.received += 1
        if self.state is _NEW:
            self._journal.pending.append(outcome)
            self._journal.note_function_attempt((outcome,))
            return
        self._receive(outcome)
        self._close_call()

    def finish(
        self, key: str, attempt: int, *, value: Any = None, error: BaseException | None = None,
        started_ms: int = 0, ended_ms: int = 0,
    ) -> None:  # fmt: skip
        """Takes the end of a body. An end that nobody asks for any more is ignored."""
        call = self._executing.get(key)
        if call is None or call.attempt != attempt:
            return
        del self._executing[key]
        if error is None:
            try:
                data, value = self._round_trip(call, value)
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

    def cancel(self) -> None:
        """Raises CancelledError in the code, which may clean up in further steps; however it ends, it is cancelled."""
        if self.state is _NEW:
            self._cancel_asked = True
            return
        self._cancel()
        self._close_call()

    def evict(self) -> None:
        """The run is no longer this worker's: fences it, then unwinds its code silently (H3)."""
        if self.state is _FENCED:
            return
        self.state = _FENCED
        self._outbox.clear()
        self.bodies.clear()
        self._let_go()

    def unacknowledged(self) -> list[Any]:
        """Commands to send again after a reconnect, in order (H11). Those not yet taken are not among them."""
        fresh = self._outbox.commands
        sent = self._outbox.unacknowledged(self.state is _PARKED)
        return [c for c in sent if not any(c is f for f in fresh)] if fresh else sent

    # -- what Step and the loop call -----------------------------------------------------------------------------

    def check_caller(self, what: str) -> None:
        """Raises UsageError unless the code of this run is calling."""
        if _get_running_loop() is self.loop or (self.owns_thread is not None and self.owns_thread()):
            return
        if self.state in (_ENDED, _FENCED):
            self._refuse()
            return
        thread = threading.current_thread().name
        raise OutsideStepError(f"{what} was called outside the function's own code: in a body, or in thread {thread!r}")

    def begin(self, call: StepFuture[Any] | Timer, name: str) -> None:
        """Gives a call its key and begins the step, unless the journal or the server knows it already."""
        if self.state is not _EXECUTING:
            self._refuse()
            return
        if self._branches and len(self._calls) >= self._branches:
            raise LimitError(f"step {name} is one more than the {self._branches} open at once (branches)")
        key = call.key = self._keys.give(name)
        journal = self._journal
        self._calls[key] = call
        if journal.known(key):
            if (difference := journal.difference(call)) is not None:
                self._mismatch(key, *difference)
            if journal.has_outcome(key):
                if journal.is_due(key):
                    self._due.append(key)
                return
            if call.kind == RUN:
                call.attempt, call.last_error = journal.attempts.pop(key, (1, None))
            opened = journal.open.pop(key, None)
            if opened is not None:
                call.open_key = opened.key
                return
        if call.kind == RUN:
            call.need = self._watermark
            self._waiting.append(call)  # pyright: ignore[reportArgumentType]
            return
        call.open_key = key
        command = call.command
        command.run_id = self.run_id
        command.turn = self.turn
        command.key = key
        self._outbox.emit(command)

    def abandon(self, call: StepFuture[Any] | Timer) -> None:
        """The code gave a call up: tells the server, unless it has not heard of it yet (H18c)."""
        if self._calls.get(call.key) is not call:
            return
        del self._calls[call.key]
        if self.state is not _EXECUTING:
            return
        if self._executing.pop(call.key, None) is not None:
            self.interrupts.append(call.key)
            self._emit(step_pb2.Abandon, key=call.key)
        elif call in self._waiting:
            self._waiting.remove(call)  # pyright: ignore[reportArgumentType]
            if call.attempt > 1:
                self._emit(step_pb2.Abandon, key=call.key)
        elif call.open_key:
            lasting = call.kind in (RUN, SEND) or (call.kind == INVOKE and call.command.detached)
            if lasting or not self._outbox.withdraw(call.command):
                self._emit(step_pb2.Abandon, key=call.open_key)

    def _begin_timer(self, timer: Timer, delay: float) -> None:
        if not delay * 1000 <= DURATION_MS_MAX:
            raise UsageError(f"a timer of {delay} seconds is longer than 366 days")
        timer.kind = SLEEP
        timer.command = step_pb2.Sleep(duration_ms=math.ceil(round(delay * 1000, 3)))
        self.begin(timer, "$timer")

    def _time(self) -> float:
        return self.now_ms / 1000

    def _refuse(self) -> None:
        """A step call of a fenced or ended run. Code that catches everything and tries for ever is left hanging."""
        self._fenced_calls += 1
        if self._fenced_calls <= FENCED_CALLS_MAX:
            raise Fenced(f"run {self.run_id} is no longer this worker's")

    def _mismatch(self, key: str, recorded: str, attempted: str) -> None:
        self._outbox.withdraw_beginnings()
        self._emit(step_pb2.Mismatch, key=key, recorded=recorded, attempted=attempted, location=location())
        self.state = _FENCED
        raise Fenced(f"step {key}: the journal holds {recorded}, the code asks for {attempted}")

    # -- delivery ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Runs the code until it is quiescent, then delivers what it asked for late, one at a time (H1b)."""
        assert self._main is not None, "the code was started"
        while True:
            try:
                self.loop.run_until_quiescent()
            except LimitError as error:
                if self.state is _EXECUTING:
                    self._emit_end(error)
            if self.state is not _EXECUTING:
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
            self._deliver_cancel(outcome.time_ms)
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
        if self.state not in (_EXECUTING, _PARKED):
            return
        if key == CANCEL_KEY:
            self._cancel()
        elif outcome.kind == RETRY:
            self._receive_retry(outcome)
        elif (call := self._calls.get(key)) is not None:
            if self._executing.pop(key, None) is not None:  # decided elsewhere, by an operator for example
                self.interrupts.append(key)
            elif call in self._waiting:
                self._waiting.remove(call)  # pyright: ignore[reportArgumentType]
            self._outbox.resolved(key)
            self.state = _EXECUTING
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
        self.state = _EXECUTING
        self._see(outcome.key)
        call.attempt, call.last_error, call.open_key, call.need = attempt, outcome.failure, "", self._watermark
        self._waiting.append(call)  # pyright: ignore[reportArgumentType]

    def _cancel(self) -> None:
        if self.cancelled or self.state not in (_EXECUTING, _PARKED):
            return
        self.state = _EXECUTING
        self._see(CANCEL_KEY)
        self._deliver_cancel(0)

    def _deliver_cancel(self, time_ms: int) -> None:
        assert self._main is not None, "the code was started"
        self.cancelled = True
        self.now_ms = max(self.now_ms, time_ms)
        self._main.cancel()
        self._advance()

    # -- bodies --------------------------------------------------------------------------------------------------

    def _round_trip(self, call: StepFuture[Any], value: Any) -> tuple[bytes, Any]:
        """Encoded, and as the code will see it: decode(encode(value)) (H2). Raises what refuses the value."""
        data = codec.encode(value, f"the result of step {call.key}")
        limit = self.result_bytes
        if limit and len(data) > limit:
            raise LimitError(f"the result of step {call.key} has {len(data)} bytes; result_bytes is {limit}")
        kind: type = type(value)
        same = kind in IDENTICAL and (call.convert is None or call.convert is IDENTICAL[kind])
        return data, (value if same else call.read(call, data))

    def _succeed(self, call: StepFuture[Any], data: bytes, value: Any, started_ms: int, ended_ms: int) -> None:
        key = call.key
        del self._calls[key]
        self._number = self._watermark = number = self._number + 1
        result = step_pb2.StepResult(
            run_id=self.run_id, turn=self.turn, key=key, number=number, attempt=call.attempt, output={"data": data},
            started_ms=started_ms, ended_ms=ended_ms, input_hash=call.hash,
        )  # fmt: skip
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

    def _emit(self, kind: Any, **fields: Any) -> None:
        self._outbox.emit(kind(run_id=self.run_id, turn=self.turn, **fields))

    def _close_call(self) -> None:
        """The last act of every call by the host: bodies begin, or the run parks."""
        if self.state is _EXECUTING:
            if self._waiting:
                self._begin_bodies()
            if not self._executing and not self._waiting:
                if self._calls:
                    self.state = _PARKED
                    keys = [call.open_key for call in self._calls.values()]
                    tree = step_pb2.AwaitTree(combine=step_pb2.AwaitTree.COMBINE_ANY, keys=keys)
                    self._emit(step_pb2.Park, tree=tree, received=self.received)
                else:
                    self._emit_end(OutsideStepError(awaited(self._main)))
                    self._let_go()
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
                Body(self.run_id, call.key, call.attempt, call.last_error, fn, args, kwargs, is_async, call.timeout_ms)
            )
        self._waiting = held

    # -- the end -------------------------------------------------------------------------------------------------

    def _end(self, main: asyncio.Task[Any]) -> None:
        if main.cancelled():
            self._emit_end(asyncio.CancelledError("the function cancelled itself"))
        elif (error := main.exception()) is not None:
            self._emit_end(error)
        else:
            self._emit_complete(main.result())
        self._let_go()

    def _emit_complete(self, value: Any) -> None:
        if self.cancelled:
            self._emit_end(None)
            return
        what = f"the output of {self.function.id}"
        try:
            data = codec.encode(value, what)
            limit = self.result_bytes
            if limit and len(data) > limit:
                raise LimitError(f"{what} has {len(data)} bytes; result_bytes is {limit}")
        except StepwellError as refused:
            self._emit_end(refused)
            return
        self._ended(step_pb2.Complete, output={"data": data})

    def _emit_end(self, error: BaseException | None) -> None:
        """Fail; or Cancelled, however the code ended after cancel was delivered to it."""
        if self.cancelled:
            self._ended(step_pb2.Cancelled)
            return
        assert error is not None, "only a cancelled run ends without output and error"
        failure = errors.to_failure(error, self.limits.failure_bytes)
        if isinstance(error, StepError):
            failure.non_retriable = True  # its step's attempts are spent
        after_ms = errors.retry_after_ms(error)
        self._ended(step_pb2.Fail, failure=failure, attempt=self.attempt, retry_after_ms=after_ms)

    def _ended(self, kind: Any, **fields: Any) -> None:
        self._number = self.end_number = self._number + 1
        self._outbox.emit(kind(run_id=self.run_id, turn=self.turn, number=self._number, **fields), numbered=True)
        self.state = _ENDED

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
