"""When a failed body is tried again."""

from __future__ import annotations

from stepwell_server.model.function import RetryPolicy
from stepwell_server.model.limits import LIMITS

ATTEMPTS_MAX = 100
FACTOR_MAX = 1_000.0


def bounded(policy: RetryPolicy) -> RetryPolicy:
    """A step's policy within what a registration may say: a worker's command is not checked at the door."""
    return RetryPolicy(
        min(max(policy.max_attempts, 1), ATTEMPTS_MAX),
        min(policy.initial_ms, LIMITS.wait_ms),
        min(max(policy.factor, 1.0), FACTOR_MAX),
        min(policy.max_ms, LIMITS.wait_ms),
        policy.jitter,
    )


def next_delay_ms(
    policy: RetryPolicy, attempt: int, retry_after_ms: int | None, non_retriable: bool, chance: float
) -> int | None:
    """Delay before attempt + 1, or None if there is none.

    attempt: the one that failed, from 1. chance: a random number in [0, 1) for full jitter.
    """
    if non_retriable or attempt >= policy.max_attempts:
        return None
    if retry_after_ms is not None:
        return min(max(retry_after_ms, 0), LIMITS.wait_ms)
    exponent = min(attempt - 1, 64)
    delay = min(policy.initial_ms * policy.factor**exponent, policy.max_ms)
    return int(delay * chance) if policy.jitter else int(delay)
