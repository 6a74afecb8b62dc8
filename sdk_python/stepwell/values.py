"""What the server says of events, functions, runs and workers, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from stepwell import codec
from stepwell.event import Event, from_unix_ms
from stepwell.v1 import admin_pb2, common_pb2, event_pb2, function_pb2, run_pb2


class RunStatus(Enum):
    """Where a run stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PARKED = "PARKED"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    SKIPPED = "SKIPPED"
    UNKNOWN = "UNSPECIFIED"
    """A status that this version of the library does not know."""

    @property
    def ended(self) -> bool:
        """The run will not change any more."""
        return self in _ENDS

    def to_message(self) -> run_pb2.RunStatus:
        """The status on the wire."""
        return run_pb2.RunStatus.Value(f"RUN_STATUS_{self.value}")  # pyright: ignore[reportReturnType]

    @classmethod
    def from_message(cls, status: int) -> RunStatus:
        """The status from the wire."""
        return _STATUSES.get(status, cls.UNKNOWN)


_ENDS = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT, RunStatus.SKIPPED})
_STATUSES: dict[int, RunStatus] = {status.to_message(): status for status in RunStatus}


class EventOutcome(Enum):
    """What became of a sent event."""

    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class EventStatus:
    """What became of one event of a batch. `event_id` names the stored event; for a duplicate, the earlier one."""

    event_id: str
    outcome: EventOutcome
    reason: str = ""
    message: str = ""

    @classmethod
    def from_message(cls, message: event_pb2.EventStatus) -> EventStatus:
        """From the wire."""
        name = event_pb2.EventStatus.Outcome.Name(message.outcome).removeprefix("OUTCOME_")
        return cls(message.event_id, EventOutcome(name), message.reason, message.message)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as the server keeps it, and the runs that it started, if it was asked for by its id."""

    event: Event[Any]
    accepted: datetime
    run_ids: tuple[str, ...] = ()

    @classmethod
    def from_message(cls, message: event_pb2.Event, run_ids: tuple[str, ...] = ()) -> StoredEvent:
        """From the wire."""
        data = _value(message.data, f"the data of event {message.id}")
        event = Event(
            message.id,
            message.name,
            {} if data is None else data,
            from_unix_ms(message.time_ms),
            dict(message.metadata),
            message.sender_id,
        )
        return cls(event, from_unix_ms(message.accepted_ms), run_ids)


@dataclass(frozen=True, slots=True)
class Trigger:
    """What starts a function."""

    event: str
    condition: str = ""


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """A registered function. `workers` counts the connected ones that serve it. A time-out is None if there is none.

    `unjudged` says, in words, which condition took more than its budget at which event; empty if none did. The JSON
    Schemas of input and output are None where the function says nothing of them.
    """

    id: str
    app: str
    deployment: str
    name: str
    triggers: tuple[Trigger, ...]
    workers: int
    strict: bool = False
    timeout: timedelta | None = None
    start_timeout: timedelta | None = None
    unjudged: str = ""
    input_schema: Any = None
    output_schema: Any = None

    @classmethod
    def from_message(cls, message: function_pb2.Function) -> FunctionInfo:
        """From the wire."""
        spec = message.spec
        return cls(
            message.id,
            message.app,
            message.deployment,
            spec.name,
            tuple(Trigger(one.event, one.condition) for one in spec.triggers),
            message.workers,
            spec.strict,
            timedelta(milliseconds=spec.timeout_ms) if spec.timeout_ms else None,
            timedelta(milliseconds=spec.start_timeout_ms) if spec.start_timeout_ms else None,
            message.unjudged,
            codec.decode(spec.input_schema or b"null", None, "a schema"),
            codec.decode(spec.output_schema or b"null", None, "a schema"),
        )


@dataclass(frozen=True, slots=True)
class FailureInfo:
    """What went wrong, in whatever language. `reason` is set where Stepwell made the failure."""

    type: str
    message: str
    reason: str = ""
    stack: str = ""
    non_retriable: bool = False
    details: Any = None
    cause: FailureInfo | None = None

    @classmethod
    def from_message(cls, message: common_pb2.Failure) -> FailureInfo:
        """From the wire."""
        return cls(
            message.type,
            message.message,
            message.reason,
            message.stack,
            message.non_retriable,
            _value(message.details, "the details of a failure"),
            cls.from_message(message.cause) if message.HasField("cause") else None,
        )


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """One thing that a run waits for. `kind` is SLEEP, EVENT, CHILD, RETRY, NO_WORKER, CAPACITY, …

    `cut_after` is the event after which a wait stopped looking back, if there were too many.
    """

    kind: str
    message: str
    key: str = ""
    event: str = ""
    match: str = ""
    until: datetime | None = None
    run_id: str = ""
    cut_after: str = ""

    @classmethod
    def from_message(cls, message: run_pb2.WaitingFor) -> WaitingFor:
        """From the wire."""
        kind = run_pb2.WaitingFor.Kind.Name(message.kind).removeprefix("KIND_")
        return cls(
            kind,
            message.message,
            message.key,
            message.event,
            message.match,
            _time(message.until_ms),
            message.run_id,
            message.cut_after,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A run. `output` is decoded JSON, once COMPLETED.

    Where one run was asked for, `waiting_for` says why it has not ended, and `deadline` when its time-out will be over.
    """

    id: str
    function_id: str
    status: RunStatus
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    paused_reason: str = ""
    event_id: str = ""
    parent_run_id: str = ""
    parent_key: str = ""
    deployment: str = ""
    turn: int = 0
    cancel_requested: bool = False
    output: Any = None
    failure: FailureInfo | None = None
    waiting_for: tuple[WaitingFor, ...] = ()
    deadline: datetime | None = None

    @classmethod
    def from_message(cls, message: run_pb2.Run, waiting_for: tuple[WaitingFor, ...] = ()) -> Run:
        """From the wire."""
        paused = run_pb2.PausedReason.Name(message.paused_reason).removeprefix("PAUSED_REASON_")
        return cls(
            id=message.id,
            function_id=message.function_id,
            status=RunStatus.from_message(message.status),
            created=from_unix_ms(message.created_ms),
            started=_time(message.started_ms),
            ended=_time(message.ended_ms),
            paused_reason="" if paused == "UNSPECIFIED" else paused,
            event_id=message.event_id,
            parent_run_id=message.parent_run_id,
            parent_key=message.parent_key,
            deployment=message.deployment,
            turn=message.turn,
            cancel_requested=message.cancel_requested,
            output=_value(message.output, f"the output of {message.id}"),
            failure=FailureInfo.from_message(message.failure) if message.HasField("failure") else None,
            waiting_for=waiting_for,
            deadline=_time(message.deadline_ms),
        )


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Runs of one function that failed in the same way. `run_id` is the last one.

    In `message` stands a placeholder for what differs from run to run; `frame` is the place in the user's code as
    "function (file)", and `key` the step that it came from; both may be empty.
    """

    fingerprint: str
    function_id: str
    statuses: tuple[RunStatus, ...]
    count: int
    first_seen: datetime
    last_seen: datetime
    run_id: str
    type: str
    reason: str
    message: str
    frame: str
    key: str

    @classmethod
    def from_message(cls, message: run_pb2.FailureGroup) -> FailureGroup:
        """From the wire."""
        return cls(
            message.fingerprint,
            message.function_id,
            tuple(RunStatus.from_message(one) for one in message.statuses),
            message.count,
            from_unix_ms(message.first_seen_ms),
            from_unix_ms(message.last_seen_ms),
            message.run_id,
            message.type,
            message.reason,
            message.message,
            message.frame,
            message.key,
        )


@dataclass(frozen=True, slots=True)
class FailurePage:
    """Failures among the runs looked at, those seen last first. `scanned_to`: no run with an older id was looked at.

    It is None, and `next_page_token` empty, where all were.
    """

    groups: tuple[FailureGroup, ...]
    next_page_token: str
    scanned: int
    scanned_to: datetime | None

    @classmethod
    def from_message(cls, message: run_pb2.ListFailuresResponse) -> FailurePage:
        """From the wire."""
        groups = tuple(FailureGroup.from_message(one) for one in message.groups)
        return cls(groups, message.next_page_token, message.scanned, _time(message.scanned_to_ms))


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One entry of a run's journal. `number` is its place in what the code saw; 0 while it has not seen it."""

    key: str
    kind: str
    target: str
    number: int
    attempt: int
    started: datetime | None
    ended: datetime | None
    until: datetime | None
    output: Any
    failure: FailureInfo | None
    run_id: str

    @classmethod
    def from_message(cls, message: run_pb2.JournalEntry) -> JournalEntry:
        """From the wire."""
        return cls(
            message.key,
            message.kind,
            message.target,
            message.number,
            message.attempt,
            _time(message.started_ms),
            _time(message.ended_ms),
            _time(message.until_ms),
            _value(message.output, f"the result of {message.key}"),
            FailureInfo.from_message(message.failure) if message.HasField("failure") else None,
            message.run_id,
        )


@dataclass(frozen=True, slots=True)
class RunChange:
    """A run as it is now, and the journal entries that are new or changed."""

    run: Run
    entries: tuple[JournalEntry, ...]


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker's session. `silent` is the time since the server heard of it."""

    session_id: str
    app: str
    deployment: str
    instance: str
    sdk: str
    connected: bool
    draining: bool
    capacity: int
    executing: int
    parked: int
    opened: datetime
    function_ids: tuple[str, ...]
    silent: timedelta
    labels: Mapping[str, str]

    @classmethod
    def from_message(cls, message: admin_pb2.Worker) -> WorkerInfo:
        """From the wire."""
        return cls(
            message.session_id,
            message.app,
            message.deployment,
            message.instance,
            message.sdk,
            message.connected,
            message.draining,
            message.capacity,
            message.executing,
            message.parked,
            from_unix_ms(message.opened_ms),
            tuple(message.function_ids),
            timedelta(milliseconds=message.silent_ms),
            dict(message.labels),
        )


@dataclass(frozen=True, slots=True)
class ClockAdvance:
    """Where a dev server's clock stopped. `complete` is False if the deadline came first."""

    now: datetime
    offset: timedelta
    complete: bool
    fired: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server is."""

    version: str
    profile: str
    default_environment: str
    database: str
    now: datetime


def _time(ms: int) -> datetime | None:
    return from_unix_ms(ms) if ms else None


def _value(payload: common_pb2.Payload, what: str) -> Any:
    """Decoded JSON; the bytes themselves if another encoding was used."""
    if payload.encoding not in ("", "json"):
        return payload.data
    return codec.decode(payload.data, None, what) if payload.data else None
