from stepwell.v1 import common_pb2 as _common_pb2
from stepwell.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATUS_UNSPECIFIED: _ClassVar[RunStatus]
    RUN_STATUS_QUEUED: _ClassVar[RunStatus]
    RUN_STATUS_RUNNING: _ClassVar[RunStatus]
    RUN_STATUS_PARKED: _ClassVar[RunStatus]
    RUN_STATUS_PAUSED: _ClassVar[RunStatus]
    RUN_STATUS_COMPLETED: _ClassVar[RunStatus]
    RUN_STATUS_FAILED: _ClassVar[RunStatus]
    RUN_STATUS_CANCELLED: _ClassVar[RunStatus]
    RUN_STATUS_TIMED_OUT: _ClassVar[RunStatus]
    RUN_STATUS_SKIPPED: _ClassVar[RunStatus]

class PausedReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAUSED_REASON_UNSPECIFIED: _ClassVar[PausedReason]
    PAUSED_REASON_NONDETERMINISTIC: _ClassVar[PausedReason]
    PAUSED_REASON_WORKER_LOST: _ClassVar[PausedReason]
    PAUSED_REASON_FUNCTION_PAUSED: _ClassVar[PausedReason]
    PAUSED_REASON_OPERATOR: _ClassVar[PausedReason]
RUN_STATUS_UNSPECIFIED: RunStatus
RUN_STATUS_QUEUED: RunStatus
RUN_STATUS_RUNNING: RunStatus
RUN_STATUS_PARKED: RunStatus
RUN_STATUS_PAUSED: RunStatus
RUN_STATUS_COMPLETED: RunStatus
RUN_STATUS_FAILED: RunStatus
RUN_STATUS_CANCELLED: RunStatus
RUN_STATUS_TIMED_OUT: RunStatus
RUN_STATUS_SKIPPED: RunStatus
PAUSED_REASON_UNSPECIFIED: PausedReason
PAUSED_REASON_NONDETERMINISTIC: PausedReason
PAUSED_REASON_WORKER_LOST: PausedReason
PAUSED_REASON_FUNCTION_PAUSED: PausedReason
PAUSED_REASON_OPERATOR: PausedReason

class Run(_message.Message):
    __slots__ = ("id", "function_id", "status", "paused_reason", "event_id", "parent_run_id", "parent_key", "deployment", "turn", "created_ms", "started_ms", "ended_ms", "cancel_requested", "output", "failure", "deadline_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_REASON_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_KEY_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    function_id: str
    status: RunStatus
    paused_reason: PausedReason
    event_id: str
    parent_run_id: str
    parent_key: str
    deployment: str
    turn: int
    created_ms: int
    started_ms: int
    ended_ms: int
    cancel_requested: bool
    output: _common_pb2.Payload
    failure: _common_pb2.Failure
    deadline_ms: int
    def __init__(self, id: _Optional[str] = ..., function_id: _Optional[str] = ..., status: _Optional[_Union[RunStatus, str]] = ..., paused_reason: _Optional[_Union[PausedReason, str]] = ..., event_id: _Optional[str] = ..., parent_run_id: _Optional[str] = ..., parent_key: _Optional[str] = ..., deployment: _Optional[str] = ..., turn: _Optional[int] = ..., created_ms: _Optional[int] = ..., started_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., cancel_requested: bool = ..., output: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ..., failure: _Optional[_Union[_common_pb2.Failure, _Mapping]] = ..., deadline_ms: _Optional[int] = ...) -> None: ...

class WaitingFor(_message.Message):
    __slots__ = ("kind", "key", "message", "event", "match", "until_ms", "run_id", "cut_after")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[WaitingFor.Kind]
        KIND_SLEEP: _ClassVar[WaitingFor.Kind]
        KIND_EVENT: _ClassVar[WaitingFor.Kind]
        KIND_CHILD: _ClassVar[WaitingFor.Kind]
        KIND_RETRY: _ClassVar[WaitingFor.Kind]
        KIND_NO_WORKER: _ClassVar[WaitingFor.Kind]
        KIND_CAPACITY: _ClassVar[WaitingFor.Kind]
        KIND_EXECUTING: _ClassVar[WaitingFor.Kind]
        KIND_LEASE: _ClassVar[WaitingFor.Kind]
        KIND_PAUSED: _ClassVar[WaitingFor.Kind]
        KIND_LIMIT: _ClassVar[WaitingFor.Kind]
        KIND_GATHERING: _ClassVar[WaitingFor.Kind]
        KIND_FUNCTION_PAUSED: _ClassVar[WaitingFor.Kind]
    KIND_UNSPECIFIED: WaitingFor.Kind
    KIND_SLEEP: WaitingFor.Kind
    KIND_EVENT: WaitingFor.Kind
    KIND_CHILD: WaitingFor.Kind
    KIND_RETRY: WaitingFor.Kind
    KIND_NO_WORKER: WaitingFor.Kind
    KIND_CAPACITY: WaitingFor.Kind
    KIND_EXECUTING: WaitingFor.Kind
    KIND_LEASE: WaitingFor.Kind
    KIND_PAUSED: WaitingFor.Kind
    KIND_LIMIT: WaitingFor.Kind
    KIND_GATHERING: WaitingFor.Kind
    KIND_FUNCTION_PAUSED: WaitingFor.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CUT_AFTER_FIELD_NUMBER: _ClassVar[int]
    kind: WaitingFor.Kind
    key: str
    message: str
    event: str
    match: str
    until_ms: int
    run_id: str
    cut_after: str
    def __init__(self, kind: _Optional[_Union[WaitingFor.Kind, str]] = ..., key: _Optional[str] = ..., message: _Optional[str] = ..., event: _Optional[str] = ..., match: _Optional[str] = ..., until_ms: _Optional[int] = ..., run_id: _Optional[str] = ..., cut_after: _Optional[str] = ...) -> None: ...

class JournalEntry(_message.Message):
    __slots__ = ("key", "kind", "target", "number", "attempt", "started_ms", "ended_ms", "until_ms", "output", "failure", "run_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    key: str
    kind: str
    target: str
    number: int
    attempt: int
    started_ms: int
    ended_ms: int
    until_ms: int
    output: _common_pb2.Payload
    failure: _common_pb2.Failure
    run_id: str
    def __init__(self, key: _Optional[str] = ..., kind: _Optional[str] = ..., target: _Optional[str] = ..., number: _Optional[int] = ..., attempt: _Optional[int] = ..., started_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., until_ms: _Optional[int] = ..., output: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ..., failure: _Optional[_Union[_common_pb2.Failure, _Mapping]] = ..., run_id: _Optional[str] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("environment", "run_id", "with_event")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    WITH_EVENT_FIELD_NUMBER: _ClassVar[int]
    environment: str
    run_id: str
    with_event: bool
    def __init__(self, environment: _Optional[str] = ..., run_id: _Optional[str] = ..., with_event: bool = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run", "waiting_for", "event")
    RUN_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    run: Run
    waiting_for: _containers.RepeatedCompositeFieldContainer[WaitingFor]
    event: _event_pb2.Event
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., waiting_for: _Optional[_Iterable[_Union[WaitingFor, _Mapping]]] = ..., event: _Optional[_Union[_event_pb2.Event, _Mapping]] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("environment", "function_id", "app", "statuses", "event_id", "parent_run_id", "from_ms", "until_ms", "page_size", "page_token", "condition", "error_type")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    environment: str
    function_id: str
    app: str
    statuses: _containers.RepeatedScalarFieldContainer[RunStatus]
    event_id: str
    parent_run_id: str
    from_ms: int
    until_ms: int
    page_size: int
    page_token: str
    condition: str
    error_type: str
    def __init__(self, environment: _Optional[str] = ..., function_id: _Optional[str] = ..., app: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[RunStatus, str]]] = ..., event_id: _Optional[str] = ..., parent_run_id: _Optional[str] = ..., from_ms: _Optional[int] = ..., until_ms: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., condition: _Optional[str] = ..., error_type: _Optional[str] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token", "scanned", "unjudged")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SCANNED_FIELD_NUMBER: _ClassVar[int]
    UNJUDGED_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    next_page_token: str
    scanned: int
    unjudged: int
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., scanned: _Optional[int] = ..., unjudged: _Optional[int] = ...) -> None: ...

class ListFailuresRequest(_message.Message):
    __slots__ = ("environment", "function_ids", "app", "statuses", "from_ms", "until_ms", "page_size", "page_token")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_IDS_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    FROM_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    environment: str
    function_ids: _containers.RepeatedScalarFieldContainer[str]
    app: str
    statuses: _containers.RepeatedScalarFieldContainer[RunStatus]
    from_ms: int
    until_ms: int
    page_size: int
    page_token: str
    def __init__(self, environment: _Optional[str] = ..., function_ids: _Optional[_Iterable[str]] = ..., app: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[RunStatus, str]]] = ..., from_ms: _Optional[int] = ..., until_ms: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class FailureGroup(_message.Message):
    __slots__ = ("fingerprint", "function_id", "statuses", "count", "first_seen_ms", "last_seen_ms", "run_id", "type", "reason", "message", "frame", "key")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEEN_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_MS_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    function_id: str
    statuses: _containers.RepeatedScalarFieldContainer[RunStatus]
    count: int
    first_seen_ms: int
    last_seen_ms: int
    run_id: str
    type: str
    reason: str
    message: str
    frame: str
    key: str
    def __init__(self, fingerprint: _Optional[str] = ..., function_id: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[RunStatus, str]]] = ..., count: _Optional[int] = ..., first_seen_ms: _Optional[int] = ..., last_seen_ms: _Optional[int] = ..., run_id: _Optional[str] = ..., type: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., frame: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

class ListFailuresResponse(_message.Message):
    __slots__ = ("groups", "next_page_token", "scanned", "scanned_to_ms")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SCANNED_FIELD_NUMBER: _ClassVar[int]
    SCANNED_TO_MS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[FailureGroup]
    next_page_token: str
    scanned: int
    scanned_to_ms: int
    def __init__(self, groups: _Optional[_Iterable[_Union[FailureGroup, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., scanned: _Optional[int] = ..., scanned_to_ms: _Optional[int] = ...) -> None: ...

class GetJournalRequest(_message.Message):
    __slots__ = ("environment", "run_id", "page_size", "page_token")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    environment: str
    run_id: str
    page_size: int
    page_token: str
    def __init__(self, environment: _Optional[str] = ..., run_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetJournalResponse(_message.Message):
    __slots__ = ("entries", "next_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[JournalEntry]
    next_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[JournalEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WaitRunRequest(_message.Message):
    __slots__ = ("environment", "run_id", "timeout_ms")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    environment: str
    run_id: str
    timeout_ms: int
    def __init__(self, environment: _Optional[str] = ..., run_id: _Optional[str] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class WaitRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("environment", "run_id")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    environment: str
    run_id: str
    def __init__(self, environment: _Optional[str] = ..., run_id: _Optional[str] = ...) -> None: ...

class WatchRunResponse(_message.Message):
    __slots__ = ("run", "waiting_for", "entries")
    RUN_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    run: Run
    waiting_for: _containers.RepeatedCompositeFieldContainer[WaitingFor]
    entries: _containers.RepeatedCompositeFieldContainer[JournalEntry]
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., waiting_for: _Optional[_Iterable[_Union[WaitingFor, _Mapping]]] = ..., entries: _Optional[_Iterable[_Union[JournalEntry, _Mapping]]] = ...) -> None: ...

class CancelRunRequest(_message.Message):
    __slots__ = ("environment", "run_id", "reason")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    environment: str
    run_id: str
    reason: str
    def __init__(self, environment: _Optional[str] = ..., run_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...
