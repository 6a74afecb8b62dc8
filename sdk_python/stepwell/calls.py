"""Unary calls and streams of a client, made on the I/O loop; retried while the server is unreachable."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio

from stepwell import connection
from stepwell.api_errors import from_rpc_error
from stepwell.v1 import admin_pb2_grpc, event_pb2_grpc, function_pb2_grpc, run_pb2_grpc

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 5.0


class Stubs:
    """The generated stubs over one channel. They belong to the I/O loop: use them through `AsyncClient.call`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.events: Any = event_pb2_grpc.EventServiceStub(channel)
        self.functions: Any = function_pb2_grpc.FunctionServiceStub(channel)
        self.runs: Any = run_pb2_grpc.RunServiceStub(channel)
        self.admin: Any = admin_pb2_grpc.AdminServiceStub(channel)


class Calls:
    """The channels of a client: one for each address that was needed. Its methods may be called from any loop."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self._addresses = connection.split_addresses(address)
        self._at = 0
        self._timeout_s = timeout_s
        self._io = connection.io()
        self._opened: dict[str, tuple[grpc.aio.Channel, Stubs]] = {}

    async def open(self) -> Stubs:
        """The stubs of the address in use; opens its channel the first time."""
        return await self._io.run(self._open())

    async def close(self) -> None:
        """Closes the channel; calls under way end as cancelled."""
        await self._io.run(self._close())

    async def unary(
        self,
        method: Callable[[Stubs], Any],
        request: Any,
        *,
        timeout_s: float | None = None,
        repeatable: bool = True,
    ) -> Any:
        """Makes a call. Raises ApiError. One that may safely be made twice is tried again until its time is over."""
        return await self._io.run(self._unary(method, request, timeout_s or self._timeout_s, repeatable))

    async def stream(self, method: Callable[[Stubs], Any], request: Any) -> AsyncIterator[Any]:
        """The responses of a streaming call as they come. Raises ApiError."""
        call = await self._io.run(self._begin(method, request))
        # Not call.read(): once the call's status is there, that one leaves out messages which came before it.
        responses = aiter(call)
        try:
            while (response := await self._io.run(self._read(responses))) is not None:
                yield response
        finally:
            self._io.call(call.cancel)

    # --- on the I/O loop ---

    async def _open(self) -> Stubs:
        address = self._addresses[self._at % len(self._addresses)]
        if address not in self._opened:
            channel = connection.open_channel(address)
            self._opened[address] = channel, Stubs(channel)
        return self._opened[address][1]

    async def _close(self) -> None:
        opened, self._opened = self._opened, {}
        for channel, _ in opened.values():
            await channel.close(None)

    async def _begin(self, method: Callable[[Stubs], Any], request: Any) -> Any:
        return method(await self._open())(request)

    async def _read(self, responses: AsyncIterator[Any]) -> Any:
        try:
            return await anext(responses, None)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def _unary(self, method: Callable[[Stubs], Any], request: Any, timeout_s: float, repeatable: bool) -> Any:
        now = asyncio.get_running_loop().time
        deadline = now() + timeout_s
        failures = 0
        while True:
            at = self._at
            invoke = method(await self._open())
            try:
                return await invoke(request, timeout=max(deadline - now(), 0.001))
            except grpc.aio.AioRpcError as raised:
                error = from_rpc_error(raised)
            if error.retriable and self._at == at:
                self._at += 1  # for whoever asks next
            if not (error.retriable and repeatable):
                raise error
            ceiling = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(failures, 10))
            delay_s = max(error.retry_after_s or 0.0, random.uniform(0, ceiling))
            if now() + delay_s >= deadline:
                raise error
            failures += 1
            await asyncio.sleep(delay_s)
