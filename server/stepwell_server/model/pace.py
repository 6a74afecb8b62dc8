"""The pace of starts (GCRA): one moment a limit, the time at which its next start would be on schedule. Pure."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple


class Pace(NamedTuple):
    """At most so many starts in period_ms, evenly spread, and burst more at once. limit: whose moment it is."""

    limit: str
    starts: int
    period_ms: int
    burst: int

    @property
    def interval_ms(self) -> float:
        """Between two starts."""
        return self.period_ms / self.starts


def free_ms(moment: float, pace: Pace) -> int:
    """From when on a start is allowed."""
    return ceil(moment - pace.burst * pace.interval_ms)


def started(moment: float, pace: Pace, now_ms: int) -> float:
    """The moment after a start."""
    return max(moment, now_ms) + pace.interval_ms
