"""When and how often a failed body, or the function itself, is tried again. The server does the waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from stepwell.duration import Duration, DurationError, to_ms
from stepwell.errors import UsageError
from stepwell.v1 import common_pb2

ATTEMPTS_MAX = 100


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy: `attempts` executions in all, the first included."""

    attempts: int = 4
    initial: Duration = "1s"
    factor: float = 2.0
    max: Duration = "10m"
    jitter: bool = True


Retries: TypeAlias = int | Retry


def to_policy(retries: Retries) -> common_pb2.RetryPolicy:
    """The message. Raises UsageError naming what is out of range."""
    if isinstance(retries, bool) or not isinstance(retries, (int, Retry)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"retries={retries!r} is neither a number nor a Retry")
    if isinstance(retries, int):
        if not 0 <= retries < ATTEMPTS_MAX:
            raise UsageError(f"retries={retries} is not between 0 and {ATTEMPTS_MAX - 1}")
        return common_pb2.RetryPolicy(max_attempts=retries + 1)
    if isinstance(retries.attempts, bool) or not 1 <= retries.attempts <= ATTEMPTS_MAX:
        raise UsageError(f"Retry(attempts={retries.attempts!r}) is not between 1 and {ATTEMPTS_MAX}")
    if not 1.0 <= retries.factor <= 1000.0:
        raise UsageError(f"Retry(factor={retries.factor!r}) is not between 1 and 1,000")
    return common_pb2.RetryPolicy(
        max_attempts=retries.attempts,
        initial_ms=_positive_ms("initial", retries.initial),
        factor=retries.factor,
        max_ms=_positive_ms("max", retries.max),
        jitter=common_pb2.RetryPolicy.JITTER_FULL if retries.jitter else common_pb2.RetryPolicy.JITTER_NONE,
    )


def _positive_ms(option: str, value: Duration) -> int:
    try:
        ms = to_ms(value)
    except DurationError as error:
        raise UsageError(f"Retry({option}=…): {error}") from None
    if ms == 0:
        raise UsageError(f"Retry({option}=…) must be longer than zero")
    return ms
