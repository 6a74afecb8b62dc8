"""grpc.health.v1: "" says that the process lives, "ready" that it serves, "redis" whether that gets through; and who
answers while it stands by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from stepwell_server.model.errors import StateError, UnavailableError
from stepwell_server.transport import status

READY = "ready"
REDIS = "redis"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """What is answered to probes. services: names that are as ready as the server is."""

    def __init__(self, server: grpc.aio.Server, services: Sequence[str]) -> None:
        # The stubs of the health package do not know its aio half.
        self._servicer: Any = getattr(health, "aio").HealthServicer()  # noqa: B009
        self._services = (READY, *services)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def alive(self) -> None:
        """The process lives; it does not serve yet."""
        await self._servicer.set("", SERVING)
        await self.told("starting")

    async def told(self, why_not_ready: str) -> None:
        """ "" means ready."""
        for name in self._services:
            await self._servicer.set(name, NOT_SERVING if why_not_ready else SERVING)

    async def redis(self, trouble: str) -> None:
        """Of a node of many: whether notes get through. Without them work is slower, and the server as ready."""
        await self._servicer.set(REDIS, NOT_SERVING if trouble else SERVING)

    async def leave(self) -> None:
        """Nothing is ready any more, from now on."""
        await self._servicer.enter_graceful_shutdown()


def bind(server: grpc.aio.Server, host: str, port: int) -> int:
    """Has a server listen; the port. Raises StateError (PORT_IN_USE)."""
    try:
        return server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise StateError("PORT_IN_USE", f"cannot listen on {host}:{port}") from error


class StandingBy(grpc.GenericRpcHandler):  # pyright: ignore[reportMissingTypeArgument] (only of the stubs)
    """Holds the address while another server holds the database: alive, not ready; every call is to come again."""

    def __init__(self, options: Sequence[tuple[str, Any]]) -> None:
        self._server = grpc.aio.server(options=options)
        self._health = Health(self._server, ())
        self._server.add_generic_rpc_handlers((self,))

    async def start(self, host: str, port: int) -> None:
        """Listens. Raises StateError (PORT_IN_USE)."""
        bind(self._server, host, port)
        await self._server.start()
        await self._health.alive()

    async def stop(self) -> None:
        """Gives the address up."""
        await self._server.stop(None)

    def service(self, handler_call_details: Any) -> Any:
        """The same answer to calls of every kind."""
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        message = "this server stands by: another one holds the database"
        await status.abort(context, UnavailableError("STANDING_BY", message, retry_ms=1_000))
        yield b""
