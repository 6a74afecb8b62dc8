"""The simulated network: worker streams and unary calls with latency, breaks and partitions; frames travel as bytes."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from stepwell.v1 import step_pb2

from tests.simulation.loop import Process, SimLoop, current_process

EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009
_UNARY_TIMEOUT_S = 5.0


def rpc_error(code: grpc.StatusCode, details: str, trailing: Any = ()) -> grpc.aio.AioRpcError:
    """A call's end, as a client sees it."""
    metadata = grpc.aio.Metadata(*((key, value) for key, value in trailing or ()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details)


class Network:
    """Who listens, who is connected, who is cut off. latency_s: mean one-way latency."""

    def __init__(self, loop: SimLoop, rng: random.Random, latency_s: float) -> None:
        self.loop = loop
        self.rng = rng
        self.latency_s = latency_s
        self.jitter = 1.0
        self.listening: list[tuple[Process, Any]] = []  # processes that listen, each with its services by name
        self.streams: list[StreamCall] = []
        self.cut: set[Process] = set()
        self.loss = 0.0  # chance that the answer of a unary call is lost

    def latency(self) -> float:
        """One way; now and then much longer than usual."""
        base = self.latency_s * self.rng.uniform(0.2, 1.8)
        return base * (self.rng.choice((10, 50)) if self.rng.random() < 0.02 * self.jitter else 1.0)

    def later(self, delay: float, act: Callable[..., object], *args: Any) -> None:
        """Something happens on the wire, whoever lives."""
        self.loop.call_at(self.loop.now + delay, act, *args, context=self.loop.world.context)

    @property
    def server(self) -> tuple[Process, Any] | None:
        """A server that listens: whichever, where there are several."""
        self.listening = [one for one in self.listening if one[0].alive]
        if len(self.listening) > 1:
            return self.rng.choice(self.listening)
        return self.listening[0] if self.listening else None

    def silence(self, process: Process) -> None:
        """Nobody finds this server any more."""
        self.listening = [one for one in self.listening if one[0] is not process]

    def reaches(self, process: Process) -> bool:
        """Whether a process and a server can talk."""
        return any(one.alive for one, _ in self.listening) and process.alive and process not in self.cut

    def of(self, process: Process) -> list[StreamCall]:
        """Streams that live and that a process is an end of."""
        self.streams = [stream for stream in self.streams if not stream.over]
        return [stream for stream in self.streams if process in (stream.client, stream.server)]

    async def unary(self, service: str, method: str, request: Any) -> Any:
        """A unary call by the current process. Raises AioRpcError; its outcome may then be unknown."""
        process = current_process()
        assert process is not None
        answer: asyncio.Future[Any] = self.loop.create_future()
        self.later(self.latency(), self._unary_arrived, process, service, method, request, answer)
        try:
            return await asyncio.wait_for(answer, _UNARY_TIMEOUT_S)
        except TimeoutError:
            raise rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer") from None

    def _unary_arrived(self, client: Process, service: str, method: str, request: Any, answer: Any) -> None:
        def reply(kind: str, value: Any) -> None:
            if client not in self.cut and not answer.done() and client.alive and self.rng.random() >= self.loss:
                if kind == "answer":
                    answer.set_result(value)
                else:
                    answer.set_exception(value)

        if not self.reaches(client):
            if client not in self.cut:
                reply("error", rpc_error(grpc.StatusCode.UNAVAILABLE, "connection refused"))
            return
        found = self.server
        assert found is not None
        process, services = found
        context = UnaryContext()

        async def serve() -> None:
            try:
                value = await getattr(services[service], method)(request, context)
                if process.alive:
                    self.later(self.latency(), reply, "answer", value)
            except grpc.aio.AbortError:
                self.later(self.latency(), reply, "error", context.error)

        process.spawn(serve())


class UnaryContext:
    """What a unary handler gets."""

    error: Exception | None = None

    async def abort_with_status(self, status: Any) -> None:
        self.error = rpc_error(status.code, status.details, status.trailing_metadata)
        raise grpc.aio.AbortError

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        self.error = rpc_error(code, details, trailing_metadata)
        raise grpc.aio.AbortError


class End:
    """One end of a stream: what has arrived and is not yet read."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.items: deque[Any] = deque()
        self.waiter: Any = None
        self.last_at = 0.0

    def put(self, item: Any) -> None:
        self.items.append(item)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def get(self) -> Any:
        """The next item; a final one (an exception or EOF) stays."""
        while not self.items:
            self.waiter = self.loop.create_future()
            await self.waiter
        item = self.items[0]
        if isinstance(item, bytes):
            self.items.popleft()
            return item
        if isinstance(item, BaseException):
            raise item
        return item


class StreamCall:
    """A call of Connect: the client's object, which also carries both ends."""

    def __init__(self, network: Network) -> None:
        process = current_process()
        assert process is not None
        self.network = network
        self.client = process
        self.server: Process | None = None
        self.to_client = End(network.loop)
        self.to_server = End(network.loop)
        self.broken = False
        self.over = False
        self.handler: asyncio.Task[Any] | None = None
        network.streams.append(self)
        network.later(network.latency(), self._arrive)

    # -- the client's side ---------------------------------------------------------------------------------------

    async def write(self, frame: step_pb2.ConnectRequest) -> None:
        self._raise_if_over()
        self._send(self.to_server, frame.SerializeToString())
        await asyncio.sleep(0)

    async def read(self) -> Any:
        item = await self.to_client.get()
        if item is EOF:
            return EOF
        self.network.loop.note("to worker", self.client.name, item)
        return step_pb2.ConnectResponse.FromString(item)

    def __aiter__(self) -> StreamCall:
        return self

    async def __anext__(self) -> step_pb2.ConnectResponse:
        frame = await self.read()
        if frame is EOF:
            raise StopAsyncIteration
        return frame

    async def done_writing(self) -> None:
        self._send(self.to_server, EOF)

    def cancel(self) -> bool:
        if self.over:
            return False
        self.over = True
        self.to_client.items.clear()
        self.to_client.put(asyncio.CancelledError())
        self.network.later(self.network.latency(), self._server_learns)
        return True

    def _raise_if_over(self) -> None:
        if self.to_client.items and isinstance(self.to_client.items[-1], BaseException):
            raise self.to_client.items[-1]

    # -- the wire ------------------------------------------------------------------------------------------------

    def _send(self, end: End, item: Any) -> None:
        """In order; lost if the stream breaks on the way."""
        end.last_at = max(end.last_at, self.network.loop.now + self.network.latency())
        self.network.later(end.last_at - self.network.loop.now, self._deliver, end, item)

    def _deliver(self, end: End, item: Any) -> None:
        if not self.broken and self.client not in self.network.cut:
            end.put(item)

    def _arrive(self) -> None:
        network = self.network
        if self.over:
            return
        if not network.reaches(self.client):
            if self.client in network.cut:
                network.later(network.rng.uniform(1, 20), self._client_learns)
            else:
                self._client_learns()
            return
        found = network.server
        assert found is not None
        self.server, services = found
        self.handler = self.server.spawn(self._handle(services["StepService"]))

    async def _handle(self, service: Any) -> None:
        context = StreamContext(self)
        try:
            await service.Connect(None, context)
            self._send(self.to_client, EOF)
        except grpc.aio.AbortError:
            self._send(self.to_client, context.error)
        except asyncio.CancelledError:
            self._send(self.to_client, rpc_error(grpc.StatusCode.CANCELLED, "the server cancelled the call"))
        except Exception as error:
            self.network.loop.troubles.append(f"Connect raised {error!r}")
            self._send(self.to_client, rpc_error(grpc.StatusCode.UNKNOWN, repr(error)))

    def break_off(self, client_after_s: float, server_after_s: float) -> None:
        """The connection dies: what is on the way is lost, and each side learns of it when it does."""
        if self.broken:
            return
        self.broken = True
        self.network.later(client_after_s, self._client_learns)
        self.network.later(server_after_s, self._server_learns)

    def _client_learns(self) -> None:
        if not self.over:
            self.over = True
            self.to_client.put(rpc_error(grpc.StatusCode.UNAVAILABLE, "Socket closed"))

    def _server_learns(self) -> None:
        if self.handler is None or self.handler.done() or self.server is None or not self.server.alive:
            return
        self.over = True
        if self.network.rng.random() < 0.5:
            self.to_server.put(EOF)
        else:
            self.handler.cancel()


class StreamContext:
    """What the handler of Connect gets."""

    def __init__(self, call: StreamCall) -> None:
        self._call = call
        self.error: Exception | None = None

    async def read(self) -> Any:
        item = await self._call.to_server.get()
        if item is EOF:
            return EOF
        assert self._call.server is not None
        self._call.network.loop.note("to server", self._call.server.name, item)
        return step_pb2.ConnectRequest.FromString(item)

    async def write(self, frame: step_pb2.ConnectResponse) -> None:
        call = self._call
        if call.handler is None or call.handler.done():
            raise grpc.aio.UsageError("the call is over")
        call._send(call.to_client, frame.SerializeToString())
        await asyncio.sleep(0)

    async def abort_with_status(self, status: Any) -> None:
        self.error = rpc_error(status.code, status.details, status.trailing_metadata)
        raise grpc.aio.AbortError

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        self.error = rpc_error(code, details, trailing_metadata)
        raise grpc.aio.AbortError


class Channel:
    """What `open_channel` returns to the SDK's stream."""

    async def close(self, grace: float | None = None) -> None:
        return None


class Stubs:
    """Stands in for step_pb2_grpc in the SDK's stream."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def StepServiceStub(self, channel: Channel) -> Any:
        network = self._network

        class Stub:
            def Connect(self) -> StreamCall:
                return StreamCall(network)

        return Stub()
