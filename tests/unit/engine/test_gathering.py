"""What joins a batch or a debounce: tables of single events."""

from __future__ import annotations

import pytest
from stepwell_server.engine import gathering
from stepwell_server.model.claim import ClaimRow
from stepwell_server.model.event import EventRow
from stepwell_server.model.flow import Batch, Debounce
from stepwell_server.model.limits import LIMITS, MIB

NOW = 1_800_000_000_000


def event(n: int, time_ms: int = NOW, size: int = 2) -> EventRow:
    return EventRow("dev", f"evt_{n}", "e", b"x" * size, "", "", time_ms, NOW, b"")


def test_a_batch_is_full_with_so_many_events_and_due_so_long_after_the_first() -> None:
    batch = Batch(3, 5_000)
    first = gathering.join(batch, None, event(1), "run_1", NOW)
    assert (first.run_id, first.events, first.due_ms) == ("run_1", 1, NOW + 5_000)
    second = gathering.join(batch, first, event(2), "run_2", NOW + 4_000)
    assert (second.run_id, second.events, second.due_ms) == ("run_1", 2, NOW + 5_000)
    assert not gathering.is_full(batch, second)
    assert gathering.is_full(batch, gathering.join(batch, second, event(3), "run_3", NOW + 4_000))


def test_a_batch_has_room_for_so_many_bytes_and_at_least_one_event() -> None:
    batch = Batch(1_000, 5_000)
    one = gathering.join(batch, None, event(1, size=MIB), "run_1", NOW)
    assert gathering.fits(one, event(2, size=LIMITS.batch_bytes - MIB - 1_000))
    assert not gathering.fits(one, event(2, size=MIB))
    assert not gathering.is_full(batch, one)
    full = gathering.join(batch, one, event(2, size=LIMITS.batch_bytes - MIB), "run_2", NOW)
    assert gathering.is_full(batch, full)


@pytest.mark.parametrize(
    ("time_ms", "came_ms", "last", "due_ms"),
    [
        (NOW + 1, NOW + 600, "evt_2", NOW + 1_600),
        (NOW, NOW + 600, "evt_2", NOW + 1_600),
        (NOW - 1, NOW + 600, "evt_1", NOW + 1_000),
        (NOW + 9_000, NOW + 1_900, "evt_2", NOW + 2_500),
    ],
    ids=["later", "equal", "an older one changes nothing", "no longer than max_wait"],
)
def test_the_last_event_by_its_own_time_counts_and_puts_the_run_off(
    time_ms: int, came_ms: int, last: str, due_ms: int
) -> None:
    debounce = Debounce(1_000, "", 2_500)
    first = gathering.settle(debounce, None, event(1), "run_1", NOW)
    assert (first.event_id, first.due_ms) == ("evt_1", NOW + 1_000)
    second = gathering.settle(debounce, first, event(2, time_ms), "run_2", came_ms)
    assert (second.run_id, second.event_id, second.due_ms) == ("run_1", last, due_ms)


def test_without_max_wait_nothing_bounds_how_long_a_run_is_put_off() -> None:
    debounce, held = Debounce(1_000), None
    for n in range(100):
        held = gathering.settle(debounce, held, event(n, NOW + n), "run", NOW + n * 999)
    assert held is not None
    assert held.due_ms == NOW + 99 * 999 + 1_000


def test_what_is_gathered_is_read_back_from_its_claim() -> None:
    held = gathering.join(Batch(3, 5_000), None, event(1), "run_1", NOW)
    assert gathering.of_claim(ClaimRow("dev", "k", 1, "run_1", gathering.value_of(held), NOW)) == held
    assert gathering.of_claim(ClaimRow("dev", "k", 2, "", "", NOW)) is None
    assert gathering.of_claim(None) is None
