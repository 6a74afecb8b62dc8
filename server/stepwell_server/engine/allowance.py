"""How many starts a rate limit allows now. Pure.

The promise is exact: in no span of a period's length are there more starts than the limit. Every start is kept with
its time until it is a period old; those of a limit above 100 are kept by hundredths of the period, each as if it were
at the end of its own, so they count a little longer and never shorter.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson

from stepwell_server.model.flow import RateLimit

_EXACT_MAX = 100


class Allowed(NamedTuple):
    """passing: so many may start now. value: the starts that count, with these. until_ms: when the last one no longer
    does. free_ms: when the next one may start, if none of these may."""

    passing: int
    value: str
    until_ms: int
    free_ms: int


def allow(limit: RateLimit, value: str, now_ms: int, wanted: int) -> Allowed:
    """Which of so many starts fit. value: what the last call answered; empty at first."""
    grain = 1 if limit.limit <= _EXACT_MAX else -(-limit.period_ms // _EXACT_MAX)
    starts: list[list[int]] = [start for start in orjson.loads(value or "[]") if start[0] + limit.period_ms > now_ms]
    passing = max(0, min(wanted, limit.limit - sum(count for _, count in starts)))
    if passing:
        at = -(-now_ms // grain) * grain
        if starts and starts[-1][0] >= at:
            starts[-1][1] += passing
        else:
            starts.append([at, passing])
    until = starts[-1][0] + limit.period_ms if starts else now_ms
    free = starts[0][0] + limit.period_ms if starts else now_ms
    return Allowed(passing, orjson.dumps(starts).decode(), until, free)
