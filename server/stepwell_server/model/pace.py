"""The pace of starts (GCRA): one moment a limit, the time at which its next start would be on schedule. Pure.

Moments are whole nanoseconds: a thousand starts a millisecond are told apart, and no sum is rounded.
"""

from __future__ import annotations

from typing import NamedTuple

NS = 1_000_000
"""In a millisecond."""


class Pace(NamedTuple):
    """At most so many starts in period_ms, evenly spread, and burst more at once. limit: whose moment it is."""

    limit: str
    starts: int
    period_ms: int
    burst: int

    @property
    def interval_ns(self) -> int:
        """Between two starts; rounded up, so that a period never holds one too many."""
        return -(-self.period_ms * NS // self.starts)


def free_ms(moment_ns: int, pace: Pace) -> int:
    """From when on a start is allowed: in the millisecond of its moment, for that is how finely a clock tells."""
    return (moment_ns - pace.burst * pace.interval_ns) // NS


def started(moment_ns: int, pace: Pace, now_ms: int) -> int:
    """The moment after a start."""
    return max(moment_ns, now_ms * NS) + pace.interval_ns
