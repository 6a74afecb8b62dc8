"""What limits, gathers and orders the runs of a function, as its app says it. Times in milliseconds; keys are CEL."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Scope(IntEnum):
    """Among whose runs a limit counts. The numbers are those of the protocol."""

    FUNCTION = 1
    APP = 2
    ENVIRONMENT = 3


class Hold(IntEnum):
    """For how long a run counts against a limit. The numbers are those of the protocol."""

    EXECUTING = 1
    RUN = 2


class SingletonMode(IntEnum):
    """What becomes of the second run. The numbers are those of the protocol."""

    SKIP = 1
    CANCEL = 2


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most so many runs of one key at once."""

    limit: int
    key: str = ""
    scope: Scope = Scope.FUNCTION
    hold: Hold = Hold.EXECUTING


@dataclass(frozen=True, slots=True)
class Throttle:
    """At most so many starts of one key in a period, evenly spread, and burst more at once; the others wait."""

    limit: int
    period_ms: int
    burst: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most so many runs of one key in any period; the others are skipped."""

    limit: int
    period_ms: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class Debounce:
    """One run for the last event of a flurry. max_wait_ms: 0 for no bound."""

    period_ms: int
    key: str = ""
    max_wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """One run for many events; one that does not fit the condition starts a run alone."""

    max_size: int
    timeout_ms: int
    key: str = ""
    condition: str = ""


@dataclass(frozen=True, slots=True)
class Singleton:
    """One live run of a key at a time."""

    key: str = ""
    mode: SingletonMode = SingletonMode.SKIP


@dataclass(frozen=True, slots=True)
class Flow:
    """All of it for one function; a function without any of it has no Flow. priority: CEL, whole seconds."""

    concurrency: tuple[Concurrency, ...] = ()
    throttle: Throttle | None = None
    rate_limit: RateLimit | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None
    singleton: Singleton | None = None
    priority: str = ""

    @property
    def gated(self) -> bool:
        """Whether an event has to pass a gate before it starts a run."""
        return not (self.rate_limit is None and self.debounce is None and self.batch is None and self.singleton is None)
