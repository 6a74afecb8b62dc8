"""The half of the re-entry core that faces the code of a run: calls get their keys, begin and are given up."""

from __future__ import annotations

import enum
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stepwell.call import INVOKE, RUN, SEND, SLEEP, StepFuture
from stepwell.duration import DURATION_MS_MAX
from stepwell.errors import Fenced, LimitError, OutsideStepError, UsageError
from stepwell.journal import Journal, location
from stepwell.keys import TIMER, Keys
from stepwell.loop import RunLoop, Timer
from stepwell.outbox import Outbox
from stepwell.v1 import step_pb2

if TYPE_CHECKING:
    from stepwell.function import Function
    from stepwell.spans import RunTrace
    from stepwell.v1.step_pb2 import Assign, Limits

FENCED_CALLS_MAX = 100


class State(enum.Enum):
    """Where the core is. NEW → EXECUTING ⇄ PARKED → ENDED; FENCED from anywhere."""

    NEW = "NEW"
    EXECUTING = "EXECUTING"
    PARKED = "PARKED"
    ENDED = "ENDED"
    FENCED = "FENCED"


# Members of an enum cost a lookup each; these are read several times per step.
NEW, EXECUTING, PARKED, ENDED, FENCED = State


class Core:
    """What Step and the loop see of one run; reentry.py adds the half that faces the host."""

    # With more than 30 attributes an object without slots is slower.
    __slots__ = (
        "_branches", "_calls", "_due", "_executing", "_fenced_calls", "_journal", "_keys", "_outbox", "_waiting",
        "_watermark", "event", "events", "function", "interrupts", "limits", "loop", "now_ms", "owns_thread",
        "policy", "result_bytes", "run_id", "state", "strict", "trace", "turn",
    )  # fmt: skip

    def __init__(self, function: Function[Any, Any], assign: Assign, limits: Limits) -> None:
        self.function = function
        self.run_id = assign.run_id
        self.turn = assign.turn
        self.limits = limits
        self.state = NEW
        # Keys whose bodies the host is to interrupt.
        self.interrupts: list[str] = []
        # What Step reads.
        self.now_ms = assign.created_ms
        self.event = assign.event
        self.events = assign.events if function.batches else ()
        self.result_bytes = limits.result_bytes
        self.policy = function.policy
        self.strict = function.strict
        self.owns_thread: Callable[[], bool] | None = None  # set by a synchronous function
        self.trace: RunTrace | None = None  # set by the host where the process has a tracer
        self.loop = RunLoop(self._time, self._begin_timer, self.abandon)

        self._branches = limits.branches
        self._journal = Journal(assign)
        self._outbox = Outbox(self.run_id, self.turn)
        self._keys = Keys(limits)
        # What must be durable before a body called now may begin.
        self._watermark = self._journal.outcomes[-1].number if self._journal.outcomes else 0
        self._calls: dict[str, StepFuture[Any] | Timer] = {}
        self._waiting: list[StepFuture[Any]] = []  # bodies that were called and have not begun
        self._executing: dict[str, StepFuture[Any]] = {}
        self._due: deque[str] = deque()  # asked for after the outcome's turn had passed
        self._fenced_calls = 0

    @property
    def attempt(self) -> int:
        """Which attempt of the function this is, from 1."""
        return self._journal.function_attempt

    def check_caller(self, what: str) -> None:
        """Raises UsageError unless the code of this run is calling."""
        if self.loop.runs_here() or (self.owns_thread is not None and self.owns_thread()):
            return
        if self.state in (ENDED, FENCED):
            self._refuse()
            return
        thread = threading.current_thread().name
        raise OutsideStepError(f"{what} was called outside the function's own code: in a body, or in thread {thread!r}")

    def begin(self, call: StepFuture[Any] | Timer, name: str) -> None:
        """Gives a call its key and begins the step, unless the journal or the server knows it already."""
        if self.state is not EXECUTING:
            self._refuse()
            return
        if self._branches and len(self._calls) >= self._branches:
            raise LimitError(f"step {name} is one more than the {self._branches} open at once (branches)")
        key = call.key = self._keys.give(name, isinstance(call, Timer))
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
        if self.state is not EXECUTING:
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
        self.begin(timer, TIMER)

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
        self.state = FENCED
        raise Fenced(f"step {key}: the journal holds {recorded}, the code asks for {attempted}")

    def _emit(self, kind: Any, **fields: Any) -> None:
        self._outbox.emit(kind(run_id=self.run_id, turn=self.turn, **fields))
