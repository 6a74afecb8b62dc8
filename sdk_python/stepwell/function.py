"""App and functions: the decorator, what it refuses, and what a worker registers."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, Unpack, overload

from stepwell import codec, schema
from stepwell.call import resolve_hints
from stepwell.duration import Duration, DurationError, to_ms
from stepwell.errors import RegistrationError, UsageError
from stepwell.event import Event, check_event_name
from stepwell.flow import FlowOptions, to_labels, to_message
from stepwell.retry import Retries, to_policy
from stepwell.step import Step
from stepwell.sync_step import Baton, SyncStep
from stepwell.v1 import function_pb2

if TYPE_CHECKING:
    from stepwell.core import Core

In = TypeVar("In")
Out = TypeVar("Out")

NAME_BYTES_MAX = 128
CONDITION_BYTES_MAX = 2048
TRIGGERS_MAX = 10

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trigger:
    """Starts a function when an event of this name fits the CEL condition; a trailing `*` matches any rest."""

    event: str
    if_: str = ""


On: TypeAlias = str | Trigger | Sequence[str | Trigger]


class Function(Generic[In, Out]):
    """A registered function. Calling it calls the code itself, which is handy in tests."""

    def __init__(
        self, app: str, fn: Callable[..., Any], name: str, triggers: tuple[Trigger, ...], retries: Retries,
        strict: bool, timeouts: tuple[int, int], input_schema: Mapping[str, Any] | None, names: dict[str, Any],
        flow: FlowOptions, labels: Mapping[str, str] | None,
    ) -> None:  # fmt: skip
        self.app = app
        self.name = name
        self.id = f"{app}/{name}"
        self.fn = fn
        self.triggers = triggers
        self.strict = strict
        self.timeout_ms, self.start_timeout_ms = timeouts
        self.flow = to_message(flow)
        self.batches = self.flow is not None and self.flow.HasField("batch")
        self.labels = to_labels(labels or {})
        self.policy = to_policy(retries)
        self.is_sync = not inspect.iscoroutinefunction(fn)
        self.parameters, self.input, self.returns = _signature(fn, name, self.is_sync, names)
        _check_events(name, self.parameters, self.batches)
        self._given = None if input_schema is None else schema.given(input_schema)
        self.decode_input = codec.convert_to(self.input) if self.input is not Any else None
        self.__name__ = name
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<stepwell function {self.id}>"

    def start(self, core: Core, event: Event[Any] | list[Event[Any]]) -> Coroutine[Any, Any, Any]:
        """The coroutine of one run's code. Called by the core, in the context of the run. event: all of a batch."""
        step = Step(core)
        if not self.is_sync:
            return self.fn(*self._arguments(step, event))
        baton = Baton(lambda: self.fn(*self._arguments(SyncStep(step, baton.ask), event)))
        core.owns_thread = baton.owns
        return baton.drive()

    def _arguments(self, step: Any, event: Any) -> list[Any]:
        return [step if parameter == "step" else event for parameter in self.parameters]

    def spec(self) -> function_pb2.FunctionSpec:
        """What the worker says of this function in Hello."""
        # Not before: a model of pydantic may name classes that follow it.
        taken = schema.derive(self.input, "input") if self._given is None else self._given
        return function_pb2.FunctionSpec(
            name=self.name,
            triggers=[function_pb2.Trigger(event=t.event, condition=t.if_, schema=taken) for t in self.triggers],
            retry=self.policy,
            input_schema=taken,
            output_schema=schema.derive(self.returns, "output"),
            strict=self.strict,
            timeout_ms=self.timeout_ms,
            start_timeout_ms=self.start_timeout_ms,
            flow=self.flow,
            labels=self.labels,
        )


class App:
    """Functions that one worker serves under one name."""

    def __init__(self, name: str, *, deployment: str = "") -> None:
        _check_name("app", name)
        self.name = name
        self.deployment = deployment
        self.functions: dict[str, Function[Any, Any]] = {}

    def __repr__(self) -> str:
        return f"<stepwell app {self.name}: {', '.join(self.functions) or 'no functions'}>"

    @overload
    def function(self, fn: Callable[..., Coroutine[Any, Any, Out]], /) -> Function[Any, Out]: ...
    @overload
    def function(
        self, *, on: On = (), name: str | None = None, retries: Retries = 3, strict: bool = False,
        timeout: Duration | None = None, start_timeout: Duration | None = None,
        input_schema: Mapping[str, Any] | None = None, labels: Mapping[str, str] | None = None,
        **flow: Unpack[FlowOptions],
    ) -> _Decorator: ...  # fmt: skip
    def function(  # pyright: ignore[reportInconsistentOverload]
        self, fn: Any = None, /, *, on: On = (), name: str | None = None, retries: Retries = 3, strict: bool = False,
        timeout: Duration | None = None, start_timeout: Duration | None = None,
        input_schema: Mapping[str, Any] | None = None, labels: Mapping[str, str] | None = None,
        **flow: Unpack[FlowOptions],
    ) -> Any:  # fmt: skip
        """Registers a function: `on` is what starts it (nothing: it is only invoked), `retries` the default of its
        steps and of an exception that leaves it, `strict` makes a changed input of a recorded step a mismatch too.

        A run that has not ended `timeout` after its first start is unwound as by a cancel, and ends as TIMED_OUT; so
        does one that has not started `start_timeout` after it was created.

        The server refuses what does not fit the JSON Schema of the input, which is that of the event's annotation;
        `input_schema` is another one, and {} takes anything.

        `concurrency`, `throttle`, `rate_limit`, `debounce`, `batch`, `singleton` and `priority` limit, gather and order
        the runs: see stepwell.flow. Only workers that have all `labels`, with these values, serve it.

        Raises RegistrationError naming the function and the option that is wrong.
        """
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        names = caller.f_locals if caller.f_locals is not caller.f_globals else {}

        def register(fn: Any) -> Function[Any, Any]:
            return self._register(
                fn, on, name, retries, strict, (timeout, start_timeout), input_schema, dict(names), flow, labels
            )

        return register(fn) if fn is not None else register

    def _register(
        self, fn: Any, on: On, name: str | None, retries: Retries, strict: bool,
        timeouts: tuple[Duration | None, Duration | None], input_schema: Mapping[str, Any] | None,
        names: dict[str, Any], flow: FlowOptions, labels: Mapping[str, str] | None,
    ) -> Function[Any, Any]:  # fmt: skip
        if not inspect.isfunction(fn):
            raise RegistrationError(f"@app.function is for functions, not for {fn!r}; write @app.function(on=…)")
        name = fn.__name__ if name is None else name
        _check_name("function", name)
        if name in self.functions:
            raise RegistrationError(f"function {name}: app {self.name} has a function of this name already")
        try:
            triggers = _triggers(on)
        except UsageError as error:
            raise RegistrationError(f"function {name}, on: {error}") from None
        limits = _timeout_ms(name, "timeout", timeouts[0]), _timeout_ms(name, "start_timeout", timeouts[1])
        try:
            function: Function[Any, Any] = Function(
                self.name, fn, name, triggers, retries, strict, limits, input_schema, names, flow, labels
            )
        except RegistrationError:
            raise
        except (UsageError, TypeError) as error:
            raise RegistrationError(f"function {name}: {error}") from error
        self.functions[name] = function
        return function

    def specs(self) -> list[function_pb2.FunctionSpec]:
        """What the worker registers."""
        return [function.spec() for function in self.functions.values()]

    def run(self, **options: Any) -> None:
        """Serves the functions until the process is told to stop. The options are those of stepwell.worker.run."""
        import stepwell.worker

        stepwell.worker.run(self, **options)


if TYPE_CHECKING:

    class _Decorator(typing.Protocol):
        """Types of @app.function(…): the input comes from the event's annotation, the output from the function's."""

        @overload
        def __call__(self, fn: Callable[[Step, Event[In]], Coroutine[Any, Any, Out]], /) -> Function[In, Out]: ...
        @overload
        def __call__(self, fn: Callable[[Event[In], Step], Coroutine[Any, Any, Out]], /) -> Function[In, Out]: ...
        @overload
        def __call__(self, fn: Callable[[Step], Coroutine[Any, Any, Out]], /) -> Function[Any, Out]: ...
        @overload
        def __call__(self, fn: Callable[[Event[In]], Coroutine[Any, Any, Out]], /) -> Function[In, Out]: ...
        @overload
        def __call__(self, fn: Callable[[SyncStep, Event[In]], Out], /) -> Function[In, Out]: ...
        @overload
        def __call__(self, fn: Callable[[Event[In], SyncStep], Out], /) -> Function[In, Out]: ...
        @overload
        def __call__(self, fn: Callable[[SyncStep], Out], /) -> Function[Any, Out]: ...
        @overload
        def __call__(self, fn: Callable[[Event[In]], Out], /) -> Function[In, Out]: ...
        @overload
        def __call__(self, fn: Callable[[Step, list[Event[In]]], Coroutine[Any, Any, Out]], /) -> Function[In, Out]: ...
        @overload
        def __call__(self, fn: Callable[[list[Event[In]], Step], Coroutine[Any, Any, Out]], /) -> Function[In, Out]: ...
        @overload
        def __call__(self, fn: Callable[[list[Event[In]]], Coroutine[Any, Any, Out]], /) -> Function[In, Out]: ...
        @overload
        def __call__(self, fn: Callable[[SyncStep, list[Event[In]]], Out], /) -> Function[In, Out]: ...
        @overload
        def __call__(self, fn: Callable[[list[Event[In]]], Out], /) -> Function[In, Out]: ...
        @overload
        def __call__(self, fn: Callable[..., Any], /) -> Function[Any, Any]: ...
        def __call__(self, fn: Any, /) -> Any: ...


def _check_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{what} name {name!r} must be 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.' of ASCII, and begin "
            "with a letter or digit"
        )


def _timeout_ms(function: str, option: str, value: Duration | None) -> int:
    if value is None:
        return 0
    try:
        ms = to_ms(value)
    except DurationError as error:
        raise RegistrationError(f"function {function}, {option}: {error}") from None
    if ms == 0:
        raise RegistrationError(f"function {function}, {option}: it must be longer than zero")
    return ms


def _triggers(on: Any) -> tuple[Trigger, ...]:
    items: Any = (on,) if isinstance(on, (str, Trigger)) else on
    if not isinstance(items, (list, tuple)):
        raise UsageError(f"{on!r} is neither an event name nor a Trigger nor a list of them")
    triggers: list[Trigger] = []
    for item in items:  # pyright: ignore[reportUnknownVariableType]
        trigger = Trigger(item) if isinstance(item, str) else item  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(trigger, Trigger):
            raise UsageError(f"{item!r} is neither an event name nor a Trigger")
        check_event_name(trigger.event, wildcard=True)
        if len(trigger.if_.encode()) > CONDITION_BYTES_MAX:
            raise UsageError(f"the condition of {trigger.event!r} is longer than {CONDITION_BYTES_MAX} bytes")
        if trigger not in triggers:
            triggers.append(trigger)
    if len(triggers) > TRIGGERS_MAX:
        raise UsageError(f"a function has at most {TRIGGERS_MAX} triggers, not {len(triggers)}")
    return tuple(triggers)


def _signature(fn: Any, name: str, is_sync: bool, names: dict[str, Any]) -> tuple[list[str], Any, Any]:
    """Which parameters are step and event, the type of the event's data, and the type of the output."""
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise RegistrationError(f"function {name}: generators cannot be functions")
    try:
        hints = resolve_hints(fn, names)
    except NameError as error:
        raise RegistrationError(f"function {name}: an annotation cannot be resolved: {error}") from None
    roles: list[str] = []
    data: Any = Any
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            raise RegistrationError(f"function {name}: parameter {parameter.name} must be a plain one")
        hint = hints.get(parameter.name)
        role = _role(parameter.name, hint)
        if role is None or role in roles:
            raise RegistrationError(
                f"function {name}: parameter {parameter.name!r} is neither its step nor its event; "
                "name them step and event (of a batch: events), or annotate them with Step and Event"
            )
        if role == "step" and hint is (Step if is_sync else SyncStep):
            flavour = "SyncStep" if is_sync else "Step"
            raise RegistrationError(f"function {name}: its step is a {flavour}, because it is {'def' if is_sync else 'async def'}")  # fmt: skip  # noqa: E501
        item: Any = typing.get_args(hint)[0] if role == "events" and typing.get_args(hint) else hint
        if role in ("event", "events") and typing.get_origin(item) is Event:
            data = typing.get_args(item)[0]
        roles.append(role)
    return roles, data, hints.get("return", Any)


def _role(name: str, hint: Any) -> str | None:
    if hint in (Step, SyncStep):
        return "step"
    if hint is Event or typing.get_origin(hint) is Event:
        return "event"
    if hint is list or typing.get_origin(hint) is list:
        item: Any = (*typing.get_args(hint), Event)[0]
        return "events" if item is Event or typing.get_origin(item) is Event else None
    return name if hint in (None, Any, object) and name in ("step", "event", "events") else None


def _check_events(name: str, roles: list[str], batches: bool) -> None:
    if batches and "events" not in roles:
        raise RegistrationError(f"function {name}, batch: it gets many events: take them as `events: list[Event[…]]`")
    if not batches and "events" in roles:
        raise RegistrationError(f"function {name}: only one with batch= gets a list of events; take `event: Event[…]`")
