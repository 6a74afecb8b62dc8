from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kept(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEPT_UNSPECIFIED: _ClassVar[Kept]
    KEPT_COMPLETED: _ClassVar[Kept]
    KEPT_FAILED: _ClassVar[Kept]
    KEPT_CANCELLED: _ClassVar[Kept]
    KEPT_TIMED_OUT: _ClassVar[Kept]
    KEPT_SKIPPED: _ClassVar[Kept]
    KEPT_EVENTS: _ClassVar[Kept]
KEPT_UNSPECIFIED: Kept
KEPT_COMPLETED: Kept
KEPT_FAILED: Kept
KEPT_CANCELLED: Kept
KEPT_TIMED_OUT: Kept
KEPT_SKIPPED: Kept
KEPT_EVENTS: Kept

class RetentionRule(_message.Message):
    __slots__ = ("kept", "keep_ms")
    KEPT_FIELD_NUMBER: _ClassVar[int]
    KEEP_MS_FIELD_NUMBER: _ClassVar[int]
    kept: Kept
    keep_ms: int
    def __init__(self, kept: _Optional[_Union[Kept, str]] = ..., keep_ms: _Optional[int] = ...) -> None: ...

class GetRetentionRequest(_message.Message):
    __slots__ = ("environment",)
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    environment: str
    def __init__(self, environment: _Optional[str] = ...) -> None: ...

class GetRetentionResponse(_message.Message):
    __slots__ = ("rules",)
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[RetentionRule]
    def __init__(self, rules: _Optional[_Iterable[_Union[RetentionRule, _Mapping]]] = ...) -> None: ...

class SetRetentionRequest(_message.Message):
    __slots__ = ("environment", "rules")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    environment: str
    rules: _containers.RepeatedCompositeFieldContainer[RetentionRule]
    def __init__(self, environment: _Optional[str] = ..., rules: _Optional[_Iterable[_Union[RetentionRule, _Mapping]]] = ...) -> None: ...

class SetRetentionResponse(_message.Message):
    __slots__ = ("rules",)
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[RetentionRule]
    def __init__(self, rules: _Optional[_Iterable[_Union[RetentionRule, _Mapping]]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("session_id", "app", "deployment", "instance", "sdk", "connected", "draining", "capacity", "executing", "parked", "opened_ms", "function_ids", "silent_ms", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SDK_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    EXECUTING_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    OPENED_MS_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_IDS_FIELD_NUMBER: _ClassVar[int]
    SILENT_MS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
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
    opened_ms: int
    function_ids: _containers.RepeatedScalarFieldContainer[str]
    silent_ms: int
    labels: _containers.ScalarMap[str, str]
    def __init__(self, session_id: _Optional[str] = ..., app: _Optional[str] = ..., deployment: _Optional[str] = ..., instance: _Optional[str] = ..., sdk: _Optional[str] = ..., connected: bool = ..., draining: bool = ..., capacity: _Optional[int] = ..., executing: _Optional[int] = ..., parked: _Optional[int] = ..., opened_ms: _Optional[int] = ..., function_ids: _Optional[_Iterable[str]] = ..., silent_ms: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Limit(_message.Message):
    __slots__ = ("id", "kind", "name", "function_id", "app", "value", "used", "bound", "waiting", "more", "free_ms")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Limit.Kind]
        KIND_EXECUTING: _ClassVar[Limit.Kind]
        KIND_RUN: _ClassVar[Limit.Kind]
        KIND_THROTTLE: _ClassVar[Limit.Kind]
    KIND_UNSPECIFIED: Limit.Kind
    KIND_EXECUTING: Limit.Kind
    KIND_RUN: Limit.Kind
    KIND_THROTTLE: Limit.Kind
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    FREE_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: Limit.Kind
    name: str
    function_id: str
    app: str
    value: bytes
    used: int
    bound: int
    waiting: int
    more: bool
    free_ms: int
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[_Union[Limit.Kind, str]] = ..., name: _Optional[str] = ..., function_id: _Optional[str] = ..., app: _Optional[str] = ..., value: _Optional[bytes] = ..., used: _Optional[int] = ..., bound: _Optional[int] = ..., waiting: _Optional[int] = ..., more: bool = ..., free_ms: _Optional[int] = ...) -> None: ...

class ListLimitsRequest(_message.Message):
    __slots__ = ("environment", "function_id", "app", "page_size", "page_token")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    environment: str
    function_id: str
    app: str
    page_size: int
    page_token: str
    def __init__(self, environment: _Optional[str] = ..., function_id: _Optional[str] = ..., app: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListLimitsResponse(_message.Message):
    __slots__ = ("limits", "next_page_token")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    limits: _containers.RepeatedCompositeFieldContainer[Limit]
    next_page_token: str
    def __init__(self, limits: _Optional[_Iterable[_Union[Limit, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ("environment",)
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    environment: str
    def __init__(self, environment: _Optional[str] = ...) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class AdvanceClockRequest(_message.Message):
    __slots__ = ("advance_ms", "deadline_ms")
    ADVANCE_MS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    advance_ms: int
    deadline_ms: int
    def __init__(self, advance_ms: _Optional[int] = ..., deadline_ms: _Optional[int] = ...) -> None: ...

class AdvanceClockResponse(_message.Message):
    __slots__ = ("now_ms", "offset_ms", "complete", "fired")
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_MS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    FIRED_FIELD_NUMBER: _ClassVar[int]
    now_ms: int
    offset_ms: int
    complete: bool
    fired: int
    def __init__(self, now_ms: _Optional[int] = ..., offset_ms: _Optional[int] = ..., complete: bool = ..., fired: _Optional[int] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "profile", "default_environment", "database", "now_ms", "ready", "not_ready")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    NOT_READY_FIELD_NUMBER: _ClassVar[int]
    version: str
    profile: str
    default_environment: str
    database: str
    now_ms: int
    ready: bool
    not_ready: str
    def __init__(self, version: _Optional[str] = ..., profile: _Optional[str] = ..., default_environment: _Optional[str] = ..., database: _Optional[str] = ..., now_ms: _Optional[int] = ..., ready: bool = ..., not_ready: _Optional[str] = ...) -> None: ...
