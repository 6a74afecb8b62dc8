"""When a failed body is tried again."""

from __future__ import annotations

from stepwell_server.model.function import RetryPolicy
from stepwell_server.model.limits import DAY_MS


def next_delay_ms(
    policy: RetryPolicy, attempt: int, retry_after_ms: int | None, non_retriable: bool, chance: float
) -> int | None:
    """Delay before attempt + 1, or None if there is none.

    attempt: the one that failed, from 1. chance: a random number in [0, 1) for full jitter.
    """
    if non_retriable or attempt >= policy.max_attempts:
        return None
    if retry_after_ms is not None:
        return min(max(retry_after_ms, 0), 366 * DAY_MS)
    exponent = min(attempt - 1, 64)
    delay = min(policy.initial_ms * policy.factor**exponent, policy.max_ms)
    return int(delay * chance) if policy.jitter else int(delay)
