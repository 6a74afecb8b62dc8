"""The machine's clock, which a dev server can move ahead."""

from __future__ import annotations

import time


class SystemClock:
    """Implements ports/clock.py. offset_ms: how far the engine's time is ahead of the machine's."""

    def __init__(self, offset_ms: int = 0) -> None:
        self.offset_ms = offset_ms
        self._last = 0

    def now_ms(self) -> int:
        now = time.time_ns() // 1_000_000 + self.offset_ms
        if now > self._last:
            self._last = now
        return self._last

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000
