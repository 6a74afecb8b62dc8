from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NewEvent(_message.Message):
    __slots__ = ("name", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class SendEventsRequest(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[NewEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[NewEvent, _Mapping]]] = ...) -> None: ...

class SendEventsResponse(_message.Message):
    __slots__ = ("event_ids",)
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, event_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class WaitRunRequest(_message.Message):
    __slots__ = ("event_id",)
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    def __init__(self, event_id: _Optional[str] = ...) -> None: ...

class WaitRunResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StepResult(_message.Message):
    __slots__ = ("run_id", "key", "number", "output", "started_ms", "ended_ms", "last", "run_output")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    RUN_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    key: str
    number: int
    output: bytes
    started_ms: int
    ended_ms: int
    last: bool
    run_output: bytes
    def __init__(self, run_id: _Optional[str] = ..., key: _Optional[str] = ..., number: _Optional[int] = ..., output: _Optional[bytes] = ..., started_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., last: bool = ..., run_output: _Optional[bytes] = ...) -> None: ...

class WorkerFrame(_message.Message):
    __slots__ = ("capacity", "results")
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    capacity: int
    results: _containers.RepeatedCompositeFieldContainer[StepResult]
    def __init__(self, capacity: _Optional[int] = ..., results: _Optional[_Iterable[_Union[StepResult, _Mapping]]] = ...) -> None: ...

class Assign(_message.Message):
    __slots__ = ("run_id", "event_id", "name", "data")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    event_id: str
    name: str
    data: bytes
    def __init__(self, run_id: _Optional[str] = ..., event_id: _Optional[str] = ..., name: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("run_id", "number")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    number: int
    def __init__(self, run_id: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class ServerFrame(_message.Message):
    __slots__ = ("acks", "assigns")
    ACKS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNS_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[Ack]
    assigns: _containers.RepeatedCompositeFieldContainer[Assign]
    def __init__(self, acks: _Optional[_Iterable[_Union[Ack, _Mapping]]] = ..., assigns: _Optional[_Iterable[_Union[Assign, _Mapping]]] = ...) -> None: ...
