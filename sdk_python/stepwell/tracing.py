"""Whether this process traces, asked without importing OpenTelemetry: who uses it has imported it."""

from __future__ import annotations

import sys
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepwell.spans import Tracing


def traced() -> bool:
    """Whether OpenTelemetry is loaded: without it there is no span that could be current."""
    return "opentelemetry.trace" in sys.modules


def carry_current(metadata: MutableMapping[str, str]) -> None:
    """Writes the current span, if there is one, into the metadata of what is sent."""
    from stepwell.spans import carry

    carry(metadata)


def tracing(now_ns: Callable[[], int]) -> Tracing | None:
    """What makes the spans of a worker; None unless a tracer provider was set before the worker started."""
    if not traced():
        return None
    from stepwell.spans import Tracing

    return Tracing.of_provider(now_ns)
