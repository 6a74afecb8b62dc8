from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Payload(_message.Message):
    __slots__ = ("data", "encoding")
    DATA_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    encoding: str
    def __init__(self, data: _Optional[bytes] = ..., encoding: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("type", "message", "reason", "stack", "non_retriable", "details", "cause")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    NON_RETRIABLE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    type: str
    message: str
    reason: str
    stack: str
    non_retriable: bool
    details: Payload
    cause: Failure
    def __init__(self, type: _Optional[str] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ..., stack: _Optional[str] = ..., non_retriable: bool = ..., details: _Optional[_Union[Payload, _Mapping]] = ..., cause: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class RetryPolicy(_message.Message):
    __slots__ = ("max_attempts", "initial_ms", "factor", "max_ms", "jitter")
    class Jitter(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        JITTER_UNSPECIFIED: _ClassVar[RetryPolicy.Jitter]
        JITTER_FULL: _ClassVar[RetryPolicy.Jitter]
        JITTER_NONE: _ClassVar[RetryPolicy.Jitter]
    JITTER_UNSPECIFIED: RetryPolicy.Jitter
    JITTER_FULL: RetryPolicy.Jitter
    JITTER_NONE: RetryPolicy.Jitter
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_MS_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    MAX_MS_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    max_attempts: int
    initial_ms: int
    factor: float
    max_ms: int
    jitter: RetryPolicy.Jitter
    def __init__(self, max_attempts: _Optional[int] = ..., initial_ms: _Optional[int] = ..., factor: _Optional[float] = ..., max_ms: _Optional[int] = ..., jitter: _Optional[_Union[RetryPolicy.Jitter, str]] = ...) -> None: ...
