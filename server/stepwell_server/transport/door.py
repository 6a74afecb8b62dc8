"""Registers services so that bytes which are no message of a call get a typed error, as every other bad input does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from stepwell_server.model.errors import InvalidError
from stepwell_server.transport import status


class Door:
    """Stands in for a grpc.aio server where the generated code adds a service to it."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Nothing: they come with the next call."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds the methods of a service."""
        typed = {name: _typed(handler) for name, handler in handlers.items()}
        server: Any = self._server
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, typed),))
        server.add_registered_method_handlers(service, typed)


def _typed(handler: Any) -> Any:
    """A stream of requests is read by its own handler, which sees what cannot be decoded."""
    if handler.request_streaming:
        return handler
    decode = handler.request_deserializer
    kind = "unary_stream" if handler.response_streaming else "unary_unary"
    answer = getattr(handler, kind)

    def decoded(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError as error:
            return error

    async def answered(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if isinstance(request, DecodeError):
            await status.abort(context, unreadable(request))
        return await answer(request, context)

    async def streamed(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if isinstance(request, DecodeError):
            await status.abort(context, unreadable(request))
        async for item in answer(request, context):
            yield item

    serve = streamed if handler.response_streaming else answered
    return handler._replace(request_deserializer=decoded, **{kind: serve})


def unreadable(error: DecodeError) -> InvalidError:
    """What a client hears whose bytes are no message."""
    return InvalidError("BAD_MESSAGE", f"these bytes are no message of this call: {error}")
