"""Stepwell: durable functions. Importing this package does no work; names are loaded when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.client import Client as Client
    from stepwell.context import StepContext as StepContext
    from stepwell.context import current_step as current_step
    from stepwell.errors import Fenced as Fenced
    from stepwell.errors import Interrupted as Interrupted
    from stepwell.errors import InvokeError as InvokeError
    from stepwell.errors import InvokeTimeoutError as InvokeTimeoutError
    from stepwell.errors import LimitError as LimitError
    from stepwell.errors import NondeterminismError as NondeterminismError
    from stepwell.errors import NonRetriableError as NonRetriableError
    from stepwell.errors import OutsideStepError as OutsideStepError
    from stepwell.errors import ProtocolError as ProtocolError
    from stepwell.errors import RegistrationError as RegistrationError
    from stepwell.errors import RetryAfterError as RetryAfterError
    from stepwell.errors import RunCancelledError as RunCancelledError
    from stepwell.errors import RunFailedError as RunFailedError
    from stepwell.errors import RunTimedOutError as RunTimedOutError
    from stepwell.errors import SerializationError as SerializationError
    from stepwell.errors import StepError as StepError
    from stepwell.errors import StepTimeoutError as StepTimeoutError
    from stepwell.errors import StepwellError as StepwellError
    from stepwell.errors import UsageError as UsageError
    from stepwell.event import Event as Event
    from stepwell.event import NewEvent as NewEvent
    from stepwell.flow import Batch as Batch
    from stepwell.flow import Concurrency as Concurrency
    from stepwell.flow import Debounce as Debounce
    from stepwell.flow import RateLimit as RateLimit
    from stepwell.flow import Singleton as Singleton
    from stepwell.flow import Throttle as Throttle
    from stepwell.function import App as App
    from stepwell.function import Function as Function
    from stepwell.function import Trigger as Trigger
    from stepwell.retry import Retry as Retry
    from stepwell.step import Step as Step
    from stepwell.sync_step import SyncStep as SyncStep

_HOMES = {
    "client": ("Client",),
    "context": ("StepContext", "current_step"),
    "errors": (
        "Fenced", "Interrupted", "InvokeError", "InvokeTimeoutError", "LimitError", "NonRetriableError",
        "NondeterminismError", "OutsideStepError", "ProtocolError", "RegistrationError", "RetryAfterError",
        "RunCancelledError", "RunFailedError", "RunTimedOutError", "SerializationError", "StepError",
        "StepTimeoutError", "StepwellError", "UsageError",
    ),
    "event": ("Event", "NewEvent"),
    "flow": ("Batch", "Concurrency", "Debounce", "RateLimit", "Singleton", "Throttle"),
    "function": ("App", "Function", "Trigger"),
    "retry": ("Retry",),
    "step": ("Step",),
    "sync_step": ("SyncStep",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
