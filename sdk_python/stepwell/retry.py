"""When and how often a failed body, or the function itself, is tried again. The server does the waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

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
    _check("attempts", retries.attempts, int, 1, ATTEMPTS_MAX)
    _check("factor", retries.factor, (int, float), 1, 1000)
    if not isinstance(retries.jitter, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"Retry(jitter={retries.jitter!r}) is neither True nor False")
    return common_pb2.RetryPolicy(
        max_attempts=retries.attempts,
        initial_ms=_positive_ms("initial", retries.initial),
        factor=retries.factor,
        max_ms=_positive_ms("max", retries.max),
        jitter=common_pb2.RetryPolicy.JITTER_FULL if retries.jitter else common_pb2.RetryPolicy.JITTER_NONE,
    )


def _check(option: str, value: Any, types: type | tuple[type, ...], least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, types) or not least <= value <= most:
        raise UsageError(f"Retry({option}={value!r}) is not between {least} and {most:,}")


def _positive_ms(option: str, value: Duration) -> int:
    try:
        ms = to_ms(value)
    except DurationError as error:
        raise UsageError(f"Retry({option}=…): {error}") from None
    if ms == 0:
        raise UsageError(f"Retry({option}=…) must be longer than zero")
    return ms
