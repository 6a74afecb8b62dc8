"""Functions as apps register them, and the registry of an environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from stepwell_server.model.flow import Flow


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed body is tried again. Times in milliseconds. Defaults: DESIGN §3."""

    max_attempts: int = 4
    initial_ms: int = 1_000
    factor: float = 2.0
    max_ms: int = 600_000
    jitter: bool = True


@dataclass(frozen=True, slots=True)
class Trigger:
    """Starts a function when an event fits. event: name, or prefix and "*". condition: CEL over `event`, or empty.

    schema: JSON Schema of the data of these events, or empty.
    """

    event: str
    condition: str = ""
    schema: bytes = b""


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """What an app says of one function. id: "app/name".

    timeout_ms: the longest from a run's first assignment to its end. start_timeout_ms: the longest from its creation to
    its first assignment. 0: no limit. flow: None where nothing limits, gathers or orders its runs. labels: those that a
    worker must have to serve it, by name.
    """

    id: str
    app: str
    name: str
    triggers: tuple[Trigger, ...] = ()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    input_schema: bytes = b""
    output_schema: bytes = b""
    strict: bool = False
    deployment: str = ""
    timeout_ms: int = 0
    start_timeout_ms: int = 0
    flow: Flow | None = None
    labels: tuple[tuple[str, str], ...] = ()


class DeploymentRow(NamedTuple):
    """A row of ``deployments``: insert, or nothing if this build was seen before. A new one raises the version.

    spec: JSON of the functions (engine/register.py writes and reads it).
    """

    env: str
    app: str
    id: str
    created_ms: int
    spec: bytes


class ShapeRow(NamedTuple):
    """A row of ``shapes``: a match path in use on an event name; path "" stands for waits by condition only.
    Insert, or nothing; a new one raises the version."""

    env: str
    event: str
    path: str


class Standing(IntEnum):
    """Whether a function's runs are handed out."""

    RUNNING = 1
    KEEP = 2
    """Paused; what has begun goes on."""
    HOLD = 3
    """Paused; what has begun waits too."""
    CANCEL = 4
    """Paused; what has begun is cancelled."""
    SKIPPING = 5
    """Paused until all that waited when it was resumed is skipped; what has begun goes on."""


class SwitchRow(NamedTuple):
    """A row of ``switches``: how a function stands from then on; the last one counts. Insert, or nothing; a new one
    raises the version."""

    env: str
    function_id: str
    at_ms: int
    standing: int


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry rows of one environment at one version. deployments, switches: oldest first."""

    env: str
    version: int
    deployments: tuple[DeploymentRow, ...]
    shapes: tuple[ShapeRow, ...]
    switches: tuple[SwitchRow, ...] = ()
