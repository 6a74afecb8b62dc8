"""Durations as people write them ("4d", "1h30m", timedelta, seconds), in milliseconds."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TypeAlias

Duration: TypeAlias = str | timedelta | int | float

DURATION_MS_MAX = 366 * 24 * 3600 * 1000

_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern}\s*)+", re.ASCII)


class DurationError(ValueError):
    """The value is no duration, or out of range."""


def to_ms(value: Duration, *, max_ms: int = DURATION_MS_MAX) -> int:
    """Milliseconds, rounded up so that a wait is never shorter than asked for.

    Numbers are seconds. Raises DurationError for anything else than a duration between zero and max_ms.
    """
    ms = _parse(value)
    if ms < 0:
        raise DurationError(f"{value!r} is negative")
    if ms > max_ms:
        raise DurationError(f"{value!r} is longer than {max_ms / 86_400_000:g} days")
    return ms


def _parse(value: object) -> int:
    if isinstance(value, str):
        text = value.strip()
        if not _WHOLE.fullmatch(text):
            raise DurationError(f"{value!r} is no duration; write for example '90s', '1h30m' or '4d'")
        return math.ceil(sum(float(number) * _UNIT_MS[unit] for number, unit in _PART.findall(text)))
    if isinstance(value, timedelta):
        return -((-value) // timedelta(milliseconds=1))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DurationError(f"{value!r} is no duration; use text like '4d', a timedelta, or seconds")
    if not math.isfinite(value):
        raise DurationError(f"{value!r} is no duration")
    # Rounding to microseconds first keeps 0.1 + 0.2 from becoming 301 ms.
    return math.ceil(round(value * 1000, 3))
