"""Errors of calls to the server: one class for each status code a caller may want to tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from stepwell.errors import StepwellError

#   ApiError                      a StepwellError
#   ├── InvalidArgumentError      the request is wrong; see violations
#   ├── NotFoundError
#   ├── AlreadyExistsError
#   ├── FailedPreconditionError   the state does not allow it
#   ├── AbortedError              somebody else was faster
#   ├── ResourceExhaustedError    a limit; see retry_after_s
#   ├── PermissionDeniedError     not signed in, or not allowed
#   ├── DeadlineExceededError
#   └── UnavailableError          the server cannot be reached


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that the server refused."""

    field: str
    description: str


_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@dataclass
class ApiError(StepwellError):
    """A call failed. `reason` is the machine-readable cause in UPPER_SNAKE; empty if the server gave none."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        super().__init__(self.message)

    @property
    def retriable(self) -> bool:
        """The same call may succeed later without anybody's doing.

        CANCELLED comes from a server that stops: a call that is cancelled here raises CancelledError.
        """
        return self.code in _PASSING or self.retry_after_s is not None

    def __str__(self) -> str:
        said = self.reason or self.code.name
        fields = "".join(f"; {one.field}: {one.description}" for one in self.violations)
        return f"{said}: {self.message}{fields}"

    __hash__ = Exception.__hash__
    __eq__ = Exception.__eq__


class InvalidArgumentError(ApiError):
    """The request is wrong."""


class NotFoundError(ApiError):
    """There is no such thing."""


class AlreadyExistsError(ApiError):
    """The id is taken by something else."""


class FailedPreconditionError(ApiError):
    """The state of the thing does not allow it."""


class AbortedError(ApiError):
    """Somebody else was faster."""


class ResourceExhaustedError(ApiError):
    """A limit was reached."""


class PermissionDeniedError(ApiError):
    """The caller is unknown, or may not do this."""


class DeadlineExceededError(ApiError):
    """The call took longer than allowed; what it asked for may have happened."""


class UnavailableError(ApiError):
    """The server cannot be reached."""


_CLASSES: dict[grpc.StatusCode, type[ApiError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDeniedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
}


def from_rpc_error(error: grpc.aio.AioRpcError) -> ApiError:
    """The error of a call with the details that the server attached to it."""
    reason = ""
    metadata: dict[str, str] = {}
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None
    for detail in _details(error):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            reason, metadata = detail.reason, dict(detail.metadata)
        elif isinstance(detail, error_details_pb2.BadRequest):
            violations = tuple(FieldViolation(one.field, one.description) for one in detail.field_violations)
        elif isinstance(detail, error_details_pb2.RetryInfo):
            retry_after_s = detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9
    code = error.code()
    return _CLASSES.get(code, ApiError)(code, error.details() or "", reason, metadata, violations, retry_after_s)


_DETAILS: tuple[Any, ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
)


def _details(error: grpc.aio.AioRpcError) -> list[Message]:
    found: list[Message] = []
    metadata: Any = error.trailing_metadata()
    for key, value in metadata or ():
        if key != "grpc-status-details-bin":
            continue
        try:
            status = status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode())
            for packed in status.details:
                for kind in _DETAILS:
                    if packed.Is(kind.DESCRIPTOR):
                        detail = kind()
                        packed.Unpack(detail)
                        found.append(detail)
        except DecodeError:
            continue  # the code and the message stand without them
    return found
