"""Step: what a function's code does durably. Every call gets its key and begins when it is made, not when awaited."""

from __future__ import annotations

import time
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

from stepwell import codec
from stepwell.call import EVENT, INVOKE, RUN, SEND, SLEEP, UNRESOLVED, StepFuture, body_info
from stepwell.canonical import input_hash
from stepwell.chance import RunRandom, run_uuid
from stepwell.duration import DURATION_MS_MAX, Duration, DurationError, to_ms
from stepwell.errors import LimitError, UsageError
from stepwell.event import Event, NewEvent, check_awaited, from_unix_ms, from_wait, match_value, to_unix_ms
from stepwell.retry import to_policy
from stepwell.v1 import step_pb2

if TYPE_CHECKING:
    from random import Random
    from uuid import UUID

    from stepwell.core import Core
    from stepwell.function import Function
    from stepwell.retry import Retries

T = TypeVar("T")
R = TypeVar("R")


class Step:
    """Given to a function's code. Its calls return futures: await them, or hand them to asyncio.gather and wait."""

    __slots__ = ("_core", "_random", "_uuids")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._random: RunRandom | None = None
        self._uuids = 0

    @overload
    def run(
        self, fn: Callable[..., Any], /, *args: Any, returns: type[R], name: str | None = None,
        retries: Retries | None = None, timeout: Duration | None = None, **kwargs: Any,
    ) -> Future[R]: ...  # fmt: skip
    @overload
    def run(
        self, fn: Callable[..., Awaitable[T]], /, *args: Any, name: str | None = None,
        retries: Retries | None = None, timeout: Duration | None = None, **kwargs: Any,
    ) -> Future[T]: ...  # fmt: skip
    @overload
    def run(
        self, fn: Callable[..., T], /, *args: Any, name: str | None = None,
        retries: Retries | None = None, timeout: Duration | None = None, **kwargs: Any,
    ) -> Future[T]: ...  # fmt: skip
    def run(
        self, fn: Any, /, *args: Any, returns: Any = None, name: str | None = None,
        retries: Retries | None = None, timeout: Duration | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Executes fn(*args, **kwargs) once, durably. The key is the name of fn, or `name`.

        The result comes back through JSON as the type fn is annotated with, or `returns`. Raises StepError when the
        last attempt failed. `retries` and the default are the function's; `timeout` bounds one attempt.
        """
        core = self._core
        core.check_caller("step.run")
        info = body_info(fn)
        if name is None:
            name = info.name
            if name == "<lambda>":
                raise UsageError("step.run of a lambda needs a key: name='…'")
        call: StepFuture[Any] = StepFuture(core, RUN, "")
        call.body = (fn, args, kwargs, info.is_async)
        call.policy = core.policy if retries is None else self._checked(name, "retries", to_policy, retries)
        call.timeout_ms = 0 if timeout is None else max(1, self._checked(name, "timeout", to_ms, timeout))
        if returns is not None:
            call.convert = codec.convert_to(returns)
        elif info.returns is UNRESOLVED:
            raise UsageError(f"step.run({name}): the annotation of its result cannot be resolved; give returns=…")
        else:
            call.convert = info.convert
        call.read = _read_result
        if core.strict and (args or kwargs):
            call.hash = input_hash([*args, kwargs] if kwargs else args, f"the arguments of {name}")
        core.begin(call, name)
        return call

    def sleep(self, duration: Duration, *, name: str | None = None) -> Future[None]:
        """Sleeps for "4d", a timedelta or seconds, at most 366 days. The run is parked meanwhile."""
        ms = self._checked("sleep", "duration", to_ms, duration)
        return self._sleep("step.sleep", name or "sleep", step_pb2.Sleep(duration_ms=ms))

    def sleep_until(self, instant: datetime | float, *, name: str | None = None) -> Future[None]:
        """Sleeps until an aware datetime or Unix time in seconds, at most 366 days off; a past one is due at once."""
        name = name or "sleep_until"
        ms = self._checked(name, "instant", self._until_ms, instant)
        return self._sleep("step.sleep_until", name, step_pb2.Sleep(until_ms=ms))

    def _until_ms(self, instant: datetime | float) -> int:
        ms = to_unix_ms(instant)
        # The clock of the run stands still between outcomes, that of this machine may be wrong: the later one decides.
        if ms > max(self._core.now_ms, time.time() * 1000) + DURATION_MS_MAX:
            raise UsageError(f"{instant!r} is more than 366 days ahead")
        return ms

    def _sleep(self, what: str, name: str, command: step_pb2.Sleep) -> Future[None]:
        self._core.check_caller(what)
        call: StepFuture[None] = StepFuture(self._core, SLEEP, "")
        call.read = _read_nothing
        return self._begin(call, name, command)

    @overload
    def wait_for_event(
        self, event: str, *, returns: type[R], match: str = "", if_: str = "",
        timeout: Duration | None = None, name: str | None = None,
    ) -> Future[Event[R] | None]: ...  # fmt: skip
    @overload
    def wait_for_event(
        self, event: str, *, match: str = "", if_: str = "",
        timeout: Duration | None = None, name: str | None = None,
    ) -> Future[Event[Any] | None]: ...  # fmt: skip
    def wait_for_event(
        self, event: str, *, returns: Any = None, match: str = "", if_: str = "",
        timeout: Duration | None = None, name: str | None = None,
    ) -> Future[Any]:  # fmt: skip
        """Waits for an event accepted since this run began; None at the time-out (default and most: 366 days).

        `match` names a path, for example "data.user_id", at which the awaited event must hold what the event that
        started this run holds there. `if_` is CEL over `event` (that one) and `async` (the awaited one). `returns` is
        the type of the awaited event's data.
        """
        core = self._core
        core.check_caller("step.wait_for_event")
        check_awaited(event)
        timeout_ms = DURATION_MS_MAX
        if timeout is not None:
            # Zero stands for the longest time-out on the wire.
            timeout_ms = max(1, self._checked(name or event, "timeout", to_ms, timeout))
        command = step_pb2.WaitForEvent(event=event, match_path=match, condition=if_, timeout_ms=timeout_ms)
        if match:
            command.match_value = match_value(core.event, match)
        call: StepFuture[Any] = StepFuture(core, EVENT, event)
        call.convert = codec.convert_to(returns) if returns is not None else None
        call.read = _read_event
        return self._begin(call, name or event, command)

    @overload
    def invoke(
        self, function: Function[Any, T], input: Any = None, /, *, timeout: Duration | None = None,
        detached: bool = False, name: str | None = None,
    ) -> Future[T]: ...  # fmt: skip
    @overload
    def invoke(
        self, function: str, input: Any = None, /, *, returns: type[R], timeout: Duration | None = None,
        detached: bool = False, name: str | None = None,
    ) -> Future[R]: ...  # fmt: skip
    @overload
    def invoke(
        self, function: str, input: Any = None, /, *, timeout: Duration | None = None,
        detached: bool = False, name: str | None = None,
    ) -> Future[Any]: ...  # fmt: skip
    def invoke(
        self, function: Any, input: Any = None, /, *, returns: Any = None, timeout: Duration | None = None,
        detached: bool = False, name: str | None = None,
    ) -> Future[Any]:  # fmt: skip
        """Runs a function of any app and language ("app/name", or a Function) and returns its output.

        The child is cancelled with its parent or at the time-out, unless detached. Raises RunFailedError,
        RunCancelledError, RunTimedOutError, InvokeTimeoutError or InvokeError.
        """
        core = self._core
        core.check_caller("step.invoke")
        target = target_of(core.function.app, function)
        if returns is None and not isinstance(function, str):
            returns = function.returns
        command = step_pb2.Invoke(function_id=target, detached=detached)
        data = codec.encode(input, f"the input of {target}")
        if core.result_bytes and len(data) > core.result_bytes:
            raise LimitError(f"the input of {target} has {len(data)} bytes; result_bytes is {core.result_bytes}")
        command.input.data = data
        if core.trace is not None:
            core.trace.carry(command.metadata)
        if timeout is not None:
            # Zero stands for "no time-out" on the wire.
            command.timeout_ms = max(1, self._checked(name or target, "timeout", to_ms, timeout))
        call: StepFuture[Any] = StepFuture(core, INVOKE, target)
        if core.strict:
            call.hash = command.input_hash = input_hash([input], f"the input of {target}")
        call.convert = codec.convert_to(returns) if returns is not None else None
        call.read = _read_result
        return self._begin(call, name or target, command)

    def send_event(self, event: str | NewEvent, data: Any = None, *, id: str = "", name: str | None = None) -> Future[list[str]]:  # fmt: skip  # noqa: E501
        """Sends one event, once; returns the list of its one id."""
        new = event if isinstance(event, NewEvent) else NewEvent(event, data, id)
        return self.send_events([new], name=name or "send_event")

    def send_events(
        self, events: Sequence[NewEvent | tuple[str, Any]], *, name: str | None = None
    ) -> Future[list[str]]:
        """Sends events, once, together; returns their ids in order. None to send: no step, and no ids."""
        core = self._core
        core.check_caller("step.send_events")
        if not events:
            nothing: Future[list[str]] = Future(loop=core.loop)
            nothing.set_result([])
            return nothing
        news = [event if isinstance(event, NewEvent) else NewEvent(*event) for event in events]
        command = step_pb2.SendEvents(events=[new.to_message(core.limits.event_bytes) for new in news])
        if core.trace is not None:
            for message in command.events:
                core.trace.carry(message.metadata)
        limit = core.limits.frame_bytes
        if limit and command.ByteSize() > limit:
            raise LimitError(f"step.send_events: {command.ByteSize()} bytes of events; frame_bytes is {limit}")
        call: StepFuture[list[str]] = StepFuture(core, SEND, news[0].name)
        if core.strict:
            call.hash = command.input_hash = input_hash([[new.name, new.id, new.data] for new in news], "the events")
        call.convert = _ids
        call.read = _read_result
        return self._begin(call, name or "send_events", command)

    def _begin(self, call: StepFuture[T], name: str, command: Any) -> Future[T]:
        call.command = command
        self._core.begin(call, name)
        return call

    def _checked(self, name: str, option: str, parse: Callable[..., T], value: Any) -> T:
        try:
            return parse(value)
        except (DurationError, UsageError) as error:
            raise UsageError(f"step {name}, {option}: {error}") from None

    @property
    def run_id(self) -> str:
        """The id of this run."""
        return self._core.run_id

    @property
    def attempt(self) -> int:
        """Which attempt of the function this is, from 1."""
        return self._core.attempt

    def now(self) -> datetime:
        """The time of the last outcome the code has seen (at the start, of the run's creation): the same in replay."""
        return from_unix_ms(self._core.now_ms)

    def uuid(self) -> UUID:
        """A random id that is the same in replay and in all languages; no secret, for the run's id decides it."""
        self._uuids += 1
        return run_uuid(self._core.run_id, self._uuids - 1)

    def random(self) -> Random:
        """Random numbers that are the same in replay. Those of its method random() are so in all languages."""
        if self._random is None:
            self._random = RunRandom(self._core.run_id)
        return self._random


def target_of(app: str, function: Any) -> str:
    """The id "app/name" of what is invoked; a plain name is one of the own app's."""
    if not isinstance(function, str):
        return function.id
    return function if "/" in function else f"{app}/{function}"


_ids = codec.convert_to(list[str])


# How the data of an outcome becomes the value of a call. Functions of the call, not closures in it: a cycle in every
# call would leave its memory to the garbage collector.
def _read_nothing(call: StepFuture[Any], data: bytes) -> None:
    return None


def _read_result(call: StepFuture[Any], data: bytes) -> Any:
    return codec.decode(data or b"null", call.convert, f"the result of step {call.key}")


def _read_event(call: StepFuture[Any], data: bytes) -> Any:
    return from_wait(data, call.convert, f"the event of step {call.key}")
