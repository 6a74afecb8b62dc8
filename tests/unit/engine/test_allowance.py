"""A rate limit's arithmetic: no span of a period's length holds more starts than the limit says."""

from __future__ import annotations

from random import Random

import pytest
from stepwell_server.engine.allowance import allow
from stepwell_server.model.flow import RateLimit

NOW = 1_800_000_000_000


def test_a_limit_lets_so_many_pass_and_frees_each_a_period_later() -> None:
    limit = RateLimit(2, 10_000)
    first = allow(limit, "", NOW, 1)
    assert (first.passing, first.until_ms) == (1, NOW + 10_000)
    second = allow(limit, first.value, NOW + 4_000, 3)
    assert (second.passing, second.until_ms, second.free_ms) == (1, NOW + 14_000, NOW + 10_000)
    assert allow(limit, second.value, NOW + 9_999, 5).passing == 0
    third = allow(limit, second.value, NOW + 10_000, 5)
    assert (third.passing, third.free_ms) == (1, NOW + 14_000)
    assert allow(limit, third.value, NOW + 24_000, 5).passing == 2


def test_what_does_not_pass_does_not_count() -> None:
    limit = RateLimit(1, 1_000)
    full = allow(limit, "", NOW, 9)
    assert allow(limit, full.value, NOW + 999, 9) == full._replace(passing=0)
    assert allow(limit, full.value, NOW + 1_000, 9).passing == 1


def test_a_clock_that_stands_behind_frees_nothing_early() -> None:
    limit = RateLimit(1, 1_000)
    full = allow(limit, "", NOW, 1)
    assert allow(limit, full.value, NOW - 500, 1).passing == 0


@pytest.mark.parametrize(
    "limit", [RateLimit(3, 7_000), RateLimit(100, 5_000), RateLimit(101, 5_000), RateLimit(950, 1_000)]
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_span_of_a_periods_length_has_more_starts_than_the_limit(limit: RateLimit, seed: int) -> None:
    rng, now, value = Random(seed), NOW, ""
    starts: list[int] = []
    most = 0
    for _ in range(2_000):
        now += rng.choice((0, 0, 1, limit.period_ms // (4 * limit.limit), limit.period_ms // 50))
        allowed = allow(limit, value, now, rng.choice((1, 1, 2, limit.limit // 3 + 1)))
        value = allowed.value if allowed.passing else value
        starts += [now] * allowed.passing
        starts = [start for start in starts if start + limit.period_ms > now]
        assert len(starts) <= limit.limit
        most = max(most, len(starts))
        assert len(value) < 101 * 24
    assert most == limit.limit
