"""Errors become gRPC statuses with details, in one place."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from stepwell_server.model.errors import (
    CorruptError,
    ExhaustedError,
    ExistsError,
    FencedError,
    InvalidError,
    NotFoundError,
    ServerError,
    StateError,
    UnavailableError,
)

log = logging.getLogger("stepwell.transport")
DOMAIN = "stepwell"

CODES: dict[type[ServerError], grpc.StatusCode] = {
    InvalidError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    ExistsError: grpc.StatusCode.ALREADY_EXISTS,
    StateError: grpc.StatusCode.FAILED_PRECONDITION,
    FencedError: grpc.StatusCode.ABORTED,
    ExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    CorruptError: grpc.StatusCode.DATA_LOSS,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
}

Answer = TypeVar("Answer")


def status_of(error: ServerError) -> status_pb2.Status:
    """The rich status of an error: ErrorInfo always, BadRequest for fields, RetryInfo where a retry can help."""
    code: Any = CODES[type(error)]
    details: list[any_pb2.Any] = [_pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))]
    if error.fields:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=text) for field, text in error.fields
        ]
        details.append(_pack(error_details_pb2.BadRequest(field_violations=violations)))
    retry_ms = error.retry_ms
    if retry_ms is None and type(error) is UnavailableError:
        retry_ms = 1_000
    if retry_ms is not None:
        delay = duration_pb2.Duration(seconds=retry_ms // 1000, nanos=retry_ms % 1000 * 1_000_000)
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code.value[0], message=error.message, details=details)


def _pack(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: ServerError) -> NoReturn:
    """Ends a call with an error."""
    ending: Any = context  # the stubs do not know abort_with_status
    await ending.abort_with_status(rpc_status.to_status(status_of(error)))
    raise AssertionError("abort_with_status raises")


async def answered(context: grpc.aio.ServicerContext[Any, Any], work: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer of a unary call, or its typed error."""
    try:
        return await work()
    except ServerError as error:
        await abort(context, error)
    except grpc.aio.AbortError:
        raise
    except Exception:
        log.exception("a call failed")
        await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log has it")
    raise AssertionError("abort raises")
