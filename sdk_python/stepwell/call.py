"""A step call: the future that the code awaits and what the core knows of its key."""

from __future__ import annotations

import contextlib
import functools
import inspect
import typing
import weakref
from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from stepwell import codec, errors
from stepwell.errors import LimitError, SerializationError, StepwellError, UsageError
from stepwell.typed import Convert, convert_to
from stepwell.v1 import step_pb2

if TYPE_CHECKING:
    from stepwell.core import Core
    from stepwell.v1.common_pb2 import Failure, RetryPolicy

T = TypeVar("T")

RUN = step_pb2.STEP_KIND_RUN
SLEEP = step_pb2.STEP_KIND_SLEEP
EVENT = step_pb2.STEP_KIND_EVENT
INVOKE = step_pb2.STEP_KIND_INVOKE
SEND = step_pb2.STEP_KIND_SEND
RETRY = step_pb2.STEP_KIND_RETRY

# Types of results that are the same before and after JSON, with the converter that lets them pass: for these,
# decode(encode(result)) may be skipped (H2).
IDENTICAL: dict[type, Convert | None] = {type(None): None, **{tp: convert_to(tp) for tp in (bool, int, str)}}


class StepFuture(Future[T]):
    """The outcome of a step call. Made by Step; the key is given and the step begun before the caller gets it (H5)."""

    __slots__ = (
        "_core", "_number", "attempt", "body", "command", "convert", "hash", "key", "kind", "last_error", "need",
        "open_key", "policy", "read", "target", "timeout_ms",
    )  # fmt: skip

    def __init__(self, core: Core, kind: int, target: str) -> None:
        super().__init__(loop=core.loop)
        self._core = core
        self._number = core.loop.next_number()
        self.kind = kind
        self.target = target
        self.key = ""
        # The key under which the server holds it open: that of the call, or "key#attempt" while it backs off.
        self.open_key = ""
        self.hash = b""
        self.attempt = 1
        self.last_error: Failure | None = None

    # Set only where the kind needs them.
    if TYPE_CHECKING:
        body: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], bool]  # fn, args, kwargs, is_async
        convert: Convert | None
        policy: RetryPolicy
        timeout_ms: int
        need: int  # the number that must be acknowledged before the body begins
        command: Any
        read: Callable[[Any, bytes], Any]  # given this call and the data of its outcome

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other

    def cancel(self, msg: Any | None = None) -> bool:
        """Gives the step up: its key is abandoned, its body interrupted."""
        if not super().cancel(msg):
            return False
        self._core.abandon(self)
        return True

    def deliver(self, outcome: step_pb2.Outcome) -> None:
        """Resolves the future with what the server or the journal says."""
        if self.done():
            return
        if outcome.WhichOneof("result") == "failure":
            make = errors.invoke_error if self.kind == INVOKE else errors.step_error
            self.set_exception(make(outcome.failure, self.key, outcome.attempt))
            return
        try:
            if outcome.output.encoding not in ("", "json"):
                raise SerializationError(f"{self.key}: encoding {outcome.output.encoding!r} is not understood")
            value = self.read(self, outcome.output.data)
        except StepwellError as error:
            self.set_exception(error)
        else:
            self.set_result(value)

    def round_trip(self, value: Any, result_bytes: int) -> tuple[bytes, Any]:
        """A result encoded, and as the code will see it: decode(encode(value)) (H2). Raises what refuses the value."""
        what = f"the result of step {self.key}"
        text, data = codec.render(value, what)
        if result_bytes and len(data) > result_bytes:
            raise LimitError(f"{what} has {len(data)} bytes; result_bytes is {result_bytes}")
        kind: type = type(value)
        same = kind in IDENTICAL and (self.convert is None or self.convert is IDENTICAL[kind])
        return data, (value if same else codec.decode(text, self.convert, what))


@dataclass(slots=True)
class BodyInfo:
    """What is known of a body's function: its name, flavour, and the type of its result."""

    name: str
    is_async: bool
    returns: Any
    convert: Convert | None


_bodies: weakref.WeakKeyDictionary[Any, BodyInfo] = weakref.WeakKeyDictionary()


def body_info(fn: Any) -> BodyInfo:
    """What is known of a body's function, found out once."""
    try:
        return _bodies[fn]
    except (KeyError, TypeError):
        key = fn
    if isinstance(fn, functools.partial) or inspect.ismethod(fn):
        key = inspect.unwrap(fn.func if isinstance(fn, functools.partial) else fn.__func__)  # pyright: ignore
    try:
        return _bodies[key]
    except (KeyError, TypeError):
        info = _inspect(fn)
    with contextlib.suppress(TypeError):  # a callable object without weak references
        _bodies[key] = info
    return info


def _inspect(fn: Any) -> BodyInfo:
    if not callable(fn):
        raise UsageError(f"step.run needs a function, not {fn!r}; write step.run(fn, *args), without calling it")
    plain: Any = fn
    while isinstance(plain, functools.partial):
        plain = plain.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    name: str = getattr(plain, "__name__", "") or type(plain).__name__
    called: Any = plain if inspect.isroutine(plain) or inspect.isclass(plain) else type(plain).__call__
    is_async = inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(called)
    returns = Any if inspect.isclass(plain) else _returns(called, name)
    convert = convert_to(returns) if returns is not UNRESOLVED else None
    return BodyInfo(name, is_async, returns, convert)


class _Unresolved:
    """Stands for an annotation that names something unknown at run time."""


UNRESOLVED: Any = _Unresolved


def resolve_hints(fn: Any, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """A function's annotations, resolved in its module, its closure and `names`. Raises NameError."""
    code = getattr(fn, "__code__", None)
    local = dict(names or {})
    for name, cell in zip(getattr(code, "co_freevars", ()), getattr(fn, "__closure__", None) or (), strict=False):
        try:
            local[name] = cell.cell_contents
        except ValueError:  # not yet bound
            continue
    return typing.get_type_hints(fn, localns=local, include_extras=True)


def _returns(fn: Any, name: str) -> Any:
    annotations: dict[str, Any] = getattr(fn, "__annotations__", None) or {}
    if "return" not in annotations:
        return Any
    try:
        return resolve_hints(fn).get("return", Any)
    except NameError:
        pass
    except TypeError as error:
        raise UsageError(f"the annotations of {name} cannot be read: {error}") from error
    # Another annotation may be the one that is unknown.
    annotation = annotations["return"]
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, getattr(fn, "__globals__", {}))
    except NameError:
        return UNRESOLVED
