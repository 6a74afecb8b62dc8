"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from stepwell.duration import DURATION_MS_MAX, Duration, DurationError, to_ms


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("4d", 345_600_000),
        ("90s", 90_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("250ms", 250),
        ("1.5s", 1_500),
        ("2w", 1_209_600_000),
        (0, 0),
        (30, 30_000),
        (0.1 + 0.2, 300),
        (0.0001, 1),
        (timedelta(minutes=1, microseconds=1), 60_001),
        ("366d", DURATION_MS_MAX),
    ],
)
def test_it_reads(written: Duration, ms: int) -> None:
    assert to_ms(written) == ms


@pytest.mark.parametrize(
    "written",
    [
        "",
        "4",
        "d",
        "4x",
        "-4d",
        "4 d x",
        "٤d",
        -1,
        timedelta(seconds=-1),
        float("nan"),
        float("inf"),
        True,
        None,
        "367d",
    ],
)
def test_it_refuses(written: Duration) -> None:
    with pytest.raises(DurationError):
        to_ms(written)
