from stepwell.v1 import common_pb2 as _common_pb2
from stepwell.v1 import run_pb2 as _run_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FunctionSpec(_message.Message):
    __slots__ = ("name", "triggers", "retry", "input_schema", "output_schema", "strict", "timeout_ms", "start_timeout_ms", "flow", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TRIGGERS_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    INPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    START_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    FLOW_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    triggers: _containers.RepeatedCompositeFieldContainer[Trigger]
    retry: _common_pb2.RetryPolicy
    input_schema: bytes
    output_schema: bytes
    strict: bool
    timeout_ms: int
    start_timeout_ms: int
    flow: Flow
    labels: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., triggers: _Optional[_Iterable[_Union[Trigger, _Mapping]]] = ..., retry: _Optional[_Union[_common_pb2.RetryPolicy, _Mapping]] = ..., input_schema: _Optional[bytes] = ..., output_schema: _Optional[bytes] = ..., strict: bool = ..., timeout_ms: _Optional[int] = ..., start_timeout_ms: _Optional[int] = ..., flow: _Optional[_Union[Flow, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Flow(_message.Message):
    __slots__ = ("concurrency", "throttle", "rate_limit", "debounce", "batch", "singleton", "priority")
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_FIELD_NUMBER: _ClassVar[int]
    RATE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    DEBOUNCE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    SINGLETON_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    concurrency: _containers.RepeatedCompositeFieldContainer[Concurrency]
    throttle: Throttle
    rate_limit: RateLimit
    debounce: Debounce
    batch: Batch
    singleton: Singleton
    priority: str
    def __init__(self, concurrency: _Optional[_Iterable[_Union[Concurrency, _Mapping]]] = ..., throttle: _Optional[_Union[Throttle, _Mapping]] = ..., rate_limit: _Optional[_Union[RateLimit, _Mapping]] = ..., debounce: _Optional[_Union[Debounce, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., singleton: _Optional[_Union[Singleton, _Mapping]] = ..., priority: _Optional[str] = ...) -> None: ...

class Concurrency(_message.Message):
    __slots__ = ("limit", "key", "scope", "hold")
    class Scope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SCOPE_UNSPECIFIED: _ClassVar[Concurrency.Scope]
        SCOPE_FUNCTION: _ClassVar[Concurrency.Scope]
        SCOPE_APP: _ClassVar[Concurrency.Scope]
        SCOPE_ENVIRONMENT: _ClassVar[Concurrency.Scope]
    SCOPE_UNSPECIFIED: Concurrency.Scope
    SCOPE_FUNCTION: Concurrency.Scope
    SCOPE_APP: Concurrency.Scope
    SCOPE_ENVIRONMENT: Concurrency.Scope
    class Hold(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        HOLD_UNSPECIFIED: _ClassVar[Concurrency.Hold]
        HOLD_EXECUTING: _ClassVar[Concurrency.Hold]
        HOLD_RUN: _ClassVar[Concurrency.Hold]
    HOLD_UNSPECIFIED: Concurrency.Hold
    HOLD_EXECUTING: Concurrency.Hold
    HOLD_RUN: Concurrency.Hold
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    limit: int
    key: str
    scope: Concurrency.Scope
    hold: Concurrency.Hold
    def __init__(self, limit: _Optional[int] = ..., key: _Optional[str] = ..., scope: _Optional[_Union[Concurrency.Scope, str]] = ..., hold: _Optional[_Union[Concurrency.Hold, str]] = ...) -> None: ...

class Throttle(_message.Message):
    __slots__ = ("limit", "period_ms", "burst", "key")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PERIOD_MS_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    limit: int
    period_ms: int
    burst: int
    key: str
    def __init__(self, limit: _Optional[int] = ..., period_ms: _Optional[int] = ..., burst: _Optional[int] = ..., key: _Optional[str] = ...) -> None: ...

class RateLimit(_message.Message):
    __slots__ = ("limit", "period_ms", "key")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PERIOD_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    limit: int
    period_ms: int
    key: str
    def __init__(self, limit: _Optional[int] = ..., period_ms: _Optional[int] = ..., key: _Optional[str] = ...) -> None: ...

class Debounce(_message.Message):
    __slots__ = ("period_ms", "key", "max_wait_ms")
    PERIOD_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    period_ms: int
    key: str
    max_wait_ms: int
    def __init__(self, period_ms: _Optional[int] = ..., key: _Optional[str] = ..., max_wait_ms: _Optional[int] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("max_size", "timeout_ms", "key", "condition")
    MAX_SIZE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    max_size: int
    timeout_ms: int
    key: str
    condition: str
    def __init__(self, max_size: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., key: _Optional[str] = ..., condition: _Optional[str] = ...) -> None: ...

class Singleton(_message.Message):
    __slots__ = ("key", "mode")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[Singleton.Mode]
        MODE_SKIP: _ClassVar[Singleton.Mode]
        MODE_CANCEL: _ClassVar[Singleton.Mode]
    MODE_UNSPECIFIED: Singleton.Mode
    MODE_SKIP: Singleton.Mode
    MODE_CANCEL: Singleton.Mode
    KEY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    key: str
    mode: Singleton.Mode
    def __init__(self, key: _Optional[str] = ..., mode: _Optional[_Union[Singleton.Mode, str]] = ...) -> None: ...

class Trigger(_message.Message):
    __slots__ = ("event", "condition", "schema")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    event: str
    condition: str
    schema: bytes
    def __init__(self, event: _Optional[str] = ..., condition: _Optional[str] = ..., schema: _Optional[bytes] = ...) -> None: ...

class Function(_message.Message):
    __slots__ = ("id", "app", "deployment", "spec", "workers", "unjudged", "pause")
    ID_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    UNJUDGED_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    id: str
    app: str
    deployment: str
    spec: FunctionSpec
    workers: int
    unjudged: str
    pause: Pause
    def __init__(self, id: _Optional[str] = ..., app: _Optional[str] = ..., deployment: _Optional[str] = ..., spec: _Optional[_Union[FunctionSpec, _Mapping]] = ..., workers: _Optional[int] = ..., unjudged: _Optional[str] = ..., pause: _Optional[_Union[Pause, _Mapping]] = ...) -> None: ...

class Pause(_message.Message):
    __slots__ = ("since_ms", "running", "resuming")
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    RESUMING_FIELD_NUMBER: _ClassVar[int]
    since_ms: int
    running: PauseFunctionRequest.Running
    resuming: bool
    def __init__(self, since_ms: _Optional[int] = ..., running: _Optional[_Union[PauseFunctionRequest.Running, str]] = ..., resuming: bool = ...) -> None: ...

class ListFunctionsRequest(_message.Message):
    __slots__ = ("environment", "app")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    environment: str
    app: str
    def __init__(self, environment: _Optional[str] = ..., app: _Optional[str] = ...) -> None: ...

class ListFunctionsResponse(_message.Message):
    __slots__ = ("functions",)
    FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    functions: _containers.RepeatedCompositeFieldContainer[Function]
    def __init__(self, functions: _Optional[_Iterable[_Union[Function, _Mapping]]] = ...) -> None: ...

class GetFunctionRequest(_message.Message):
    __slots__ = ("environment", "function_id")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    environment: str
    function_id: str
    def __init__(self, environment: _Optional[str] = ..., function_id: _Optional[str] = ...) -> None: ...

class GetFunctionResponse(_message.Message):
    __slots__ = ("function",)
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    function: Function
    def __init__(self, function: _Optional[_Union[Function, _Mapping]] = ...) -> None: ...

class InvokeRequest(_message.Message):
    __slots__ = ("environment", "function_id", "input", "request_id", "wait_ms", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    environment: str
    function_id: str
    input: _common_pb2.Payload
    request_id: str
    wait_ms: int
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, environment: _Optional[str] = ..., function_id: _Optional[str] = ..., input: _Optional[_Union[_common_pb2.Payload, _Mapping]] = ..., request_id: _Optional[str] = ..., wait_ms: _Optional[int] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class InvokeResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: _run_pb2.Run
    def __init__(self, run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ...) -> None: ...

class PauseFunctionRequest(_message.Message):
    __slots__ = ("environment", "function_id", "running")
    class Running(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RUNNING_UNSPECIFIED: _ClassVar[PauseFunctionRequest.Running]
        RUNNING_KEEP: _ClassVar[PauseFunctionRequest.Running]
        RUNNING_HOLD: _ClassVar[PauseFunctionRequest.Running]
        RUNNING_CANCEL: _ClassVar[PauseFunctionRequest.Running]
    RUNNING_UNSPECIFIED: PauseFunctionRequest.Running
    RUNNING_KEEP: PauseFunctionRequest.Running
    RUNNING_HOLD: PauseFunctionRequest.Running
    RUNNING_CANCEL: PauseFunctionRequest.Running
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    environment: str
    function_id: str
    running: PauseFunctionRequest.Running
    def __init__(self, environment: _Optional[str] = ..., function_id: _Optional[str] = ..., running: _Optional[_Union[PauseFunctionRequest.Running, str]] = ...) -> None: ...

class PauseFunctionResponse(_message.Message):
    __slots__ = ("function",)
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    function: Function
    def __init__(self, function: _Optional[_Union[Function, _Mapping]] = ...) -> None: ...

class ResumeFunctionRequest(_message.Message):
    __slots__ = ("environment", "function_id", "waiting")
    class Waiting(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        WAITING_UNSPECIFIED: _ClassVar[ResumeFunctionRequest.Waiting]
        WAITING_RELEASE: _ClassVar[ResumeFunctionRequest.Waiting]
        WAITING_SKIP: _ClassVar[ResumeFunctionRequest.Waiting]
    WAITING_UNSPECIFIED: ResumeFunctionRequest.Waiting
    WAITING_RELEASE: ResumeFunctionRequest.Waiting
    WAITING_SKIP: ResumeFunctionRequest.Waiting
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    environment: str
    function_id: str
    waiting: ResumeFunctionRequest.Waiting
    def __init__(self, environment: _Optional[str] = ..., function_id: _Optional[str] = ..., waiting: _Optional[_Union[ResumeFunctionRequest.Waiting, str]] = ...) -> None: ...

class ResumeFunctionResponse(_message.Message):
    __slots__ = ("function",)
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    function: Function
    def __init__(self, function: _Optional[_Union[Function, _Mapping]] = ...) -> None: ...
