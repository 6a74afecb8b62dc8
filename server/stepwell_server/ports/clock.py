"""Time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Wall time in Unix milliseconds (it can be ahead of the machine's in dev), and a monotonic one for leases."""

    def now_ms(self) -> int:
        """The engine's time. Never goes back within a process."""
        ...

    def monotonic_ms(self) -> int:
        """Real elapsed time; not moved by a dev clock."""
        ...
