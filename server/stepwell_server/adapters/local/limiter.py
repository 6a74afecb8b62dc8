"""The limiter of a node that is alone: it answers at once."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from stepwell_server.model.pace import NS, Pace, free_ms, started
from stepwell_server.ports.limiter import Ask, Freed, Held, Slot, Then, Use

_MOMENTS = 10_000


class _Limit:
    """Who holds a slot; and of a pace, its moment."""

    __slots__ = ("bound", "holders", "moment_ns", "pace")

    def __init__(self) -> None:
        self.holders: set[str] = set()
        self.bound = 0
        self.moment_ns = 0
        self.pace: Pace | None = None


class LocalLimiter:
    """Limiter in memory (see ports/limiter.py). A limit that nobody uses is not kept."""

    def __init__(self) -> None:
        self._limits: dict[str, _Limit] = {}
        self._freed: Freed = lambda limit: None
        self._sweep_at = _MOMENTS

    def listen(self, freed: Freed) -> None:
        self._freed = freed

    def acquire(self, asks: Sequence[Ask], now_ms: int, then: Then) -> None:
        for ask in asks:
            held = self._held(ask, now_ms)
            if held is None:
                self.count(ask.run_id, ask.slots)
                if ask.pace is not None:
                    self._start(ask.pace, now_ms)
            then(ask, held)

    def _held(self, ask: Ask, now_ms: int) -> Held | None:
        full = ""
        spare: list[str] = []
        for slot in ask.slots:
            limit = self._limits.get(slot.limit)
            if limit is not None:
                limit.bound = slot.bound
            if limit is None or ask.run_id in limit.holders or len(limit.holders) < slot.bound:
                spare.append(slot.limit)
            elif not full:
                full = slot.limit
        if full:
            return Held(full, 0, tuple(spare))
        pace = ask.pace
        if pace is not None and (limit := self._limits.get(pace.limit)) is not None:
            limit.pace, limit.bound = pace, pace.starts
            if (free := free_ms(limit.moment_ns, pace)) > now_ms:
                return Held(pace.limit, free, tuple(spare))
        return None

    def _start(self, pace: Pace, now_ms: int) -> None:
        if len(self._limits) >= self._sweep_at:
            self._sweep(now_ms)
        limit = self._limits.setdefault(pace.limit, _Limit())
        limit.pace, limit.bound = pace, pace.starts
        limit.moment_ns = started(limit.moment_ns, pace, now_ms)

    def _sweep(self, now_ms: int) -> None:
        """A moment that has passed says nothing."""
        gone = [id_ for id_, limit in self._limits.items() if not limit.holders and limit.moment_ns <= now_ms * NS]
        for id_ in gone:
            del self._limits[id_]
        self._sweep_at = max(_MOMENTS, 2 * len(self._limits))

    def count(self, run_id: str, slots: Sequence[Slot]) -> None:
        for slot in slots:
            limit = self._limits.get(slot.limit)
            if limit is None:
                limit = self._limits[slot.limit] = _Limit()
            limit.bound = slot.bound
            limit.holders.add(run_id)

    def release(self, run_id: str, limits: Sequence[str]) -> None:
        for id_ in limits:
            limit = self._limits.get(id_)
            if limit is not None and run_id in limit.holders:
                limit.holders.remove(run_id)
                if not limit.holders and limit.pace is None:
                    del self._limits[id_]
                self._freed(id_)

    def use(self, limits: Sequence[str]) -> list[Use]:
        return [self._use(id_, self._limits.get(id_) or _Limit()) for id_ in limits]

    def page(self, prefix: str, after: str, limit: int) -> list[Use]:
        found: Iterator[str] = (id_ for id_ in self._limits if id_ > after and id_.startswith(prefix))
        return [self._use(id_, self._limits[id_]) for id_ in heapq.nsmallest(limit, found)]

    def _use(self, id_: str, limit: _Limit) -> Use:
        free = free_ms(limit.moment_ns, limit.pace) if limit.pace is not None else 0
        return Use(id_, len(limit.holders), limit.bound, max(free, 0))
