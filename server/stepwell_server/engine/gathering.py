"""What joins a batch or a debounce, and when it is full or due. Pure."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from stepwell_server.model.claim import ClaimRow
from stepwell_server.model.event import EventRow
from stepwell_server.model.flow import Batch, Debounce
from stepwell_server.model.limits import LIMITS

_EVENT_BYTES = 256


class Gathering(NamedTuple):
    """What has come for a run so far. events: how many. size: their bytes, of a batch. event_id, time_ms: of the last
    event, of a debounce. first_ms: when the first one came. due_ms: when it starts, if nothing else comes."""

    run_id: str
    events: int
    size: int
    event_id: str
    time_ms: int
    first_ms: int
    due_ms: int


def of_claim(row: ClaimRow | None) -> Gathering | None:
    """What a claim gathers; None where it gathers nothing."""
    return Gathering(row.run_id, *orjson.loads(row.value)) if row is not None and row.run_id else None


def value_of(gathering: Gathering) -> str:
    """As a claim's value."""
    return orjson.dumps(gathering[1:]).decode()


def size_of(event: EventRow) -> int:
    """Bytes of an event on its way to a worker."""
    return len(event.data) + len(event.metadata) + len(event.name) + _EVENT_BYTES


def fits(gathering: Gathering, event: EventRow) -> bool:
    """Whether a batch has room for the bytes of one more event."""
    return gathering.size + size_of(event) <= LIMITS.batch_bytes


def join(batch: Batch, gathering: Gathering | None, event: EventRow, run_id: str, now_ms: int) -> Gathering:
    """A batch with one more event. run_id: of the run that it is for, where it is the first one."""
    if gathering is None:
        due = now_ms + batch.timeout_ms
        return Gathering(run_id, 1, size_of(event), event.id, event.time_ms, now_ms, due)
    return gathering._replace(events=gathering.events + 1, size=gathering.size + size_of(event))


def is_full(batch: Batch, gathering: Gathering) -> bool:
    """Whether a batch starts at once."""
    return gathering.events >= batch.max_size or gathering.size >= LIMITS.batch_bytes


def settle(debounce: Debounce, gathering: Gathering | None, event: EventRow, run_id: str, now_ms: int) -> Gathering:
    """A debounce after one more event: the last one by its own time counts, and an older one changes nothing."""
    due = now_ms + debounce.period_ms
    if gathering is None:
        return Gathering(run_id, 1, 0, event.id, event.time_ms, now_ms, due)
    if event.time_ms < gathering.time_ms:
        return gathering
    if debounce.max_wait_ms:
        due = min(due, gathering.first_ms + debounce.max_wait_ms)
    return gathering._replace(event_id=event.id, time_ms=event.time_ms, due_ms=due, events=gathering.events + 1)
