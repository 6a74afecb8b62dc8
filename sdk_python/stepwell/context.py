"""What a body knows of itself: its run, key, attempt, token, and whether it should stop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stepwell.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from stepwell.spans import RunTrace
    from stepwell.v1.common_pb2 import Failure

# The run whose code executes; in a body the step says it. Empty elsewhere.
run_id_var: ContextVar[str] = ContextVar("stepwell_run_id", default="")
step_var: ContextVar[StepContext | None] = ContextVar("stepwell_step", default=None)


@dataclass(slots=True)
class StepContext:
    """The step whose body executes. `attempt` counts from 1; `last_error` is the failure of the attempt before."""

    run_id: str
    key: str
    attempt: int
    last_error: Failure | None
    cancelled: bool = field(default=False, kw_only=True)

    @property
    def token(self) -> str:
        """The same for every attempt of this step: an idempotency key for the services the body calls."""
        return idempotency_token(self.run_id, self.key)

    def check(self) -> None:
        """Raises Interrupted if the body should stop: call it in long loops of synchronous bodies."""
        if self.cancelled:
            raise Interrupted(f"{self.key} was interrupted")

    def enter(self) -> None:
        """Makes this the current step of the calling context. Called by the worker before the body."""
        step_var.set(self)


@dataclass(slots=True)
class Body(StepContext):
    """A body the worker executes now. Its end is reported with Reentry.finish(key, attempt, …)."""

    fn: Callable[..., Any] = field(repr=False)
    args: tuple[Any, ...] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    is_async: bool = field(repr=False)
    timeout_ms: int = field(repr=False)  # 0: none
    trace: RunTrace | None = field(default=None, repr=False)


def current_step() -> StepContext:
    """The step whose body is executing. Raises UsageError elsewhere."""
    step = step_var.get()
    if step is None:
        raise UsageError("current_step() was called outside the body of a step")
    return step


def idempotency_token(run_id: str, key: str) -> str:
    """32 hex digits derived from run and key, so that every attempt and every worker gets the same."""
    return hashlib.blake2b(f"{run_id}\0{key}".encode(), digest_size=16).hexdigest()
