"""The CLI's connection to a server: one channel, its stubs, and errors as one line."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from stepwell.v1 import admin_pb2_grpc, event_pb2_grpc, function_pb2_grpc, run_pb2_grpc

from stepwell_server.cli.failures import UsageFailure, from_rpc

CALL_TIMEOUT_S = 30.0
_OPTIONS = [("grpc.max_receive_message_length", 80 * 1024 * 1024), ("grpc.max_send_message_length", 8 * 1024 * 1024)]


@dataclass(frozen=True, slots=True)
class Stubs:
    """The services of a server."""

    events: event_pb2_grpc.EventServiceStub
    functions: function_pb2_grpc.FunctionServiceStub
    runs: run_pb2_grpc.RunServiceStub
    admin: admin_pb2_grpc.AdminServiceStub
    health: health_pb2_grpc.HealthStub


@contextmanager
def connect(address: str) -> Generator[Stubs]:
    """Stubs on a channel, with TLS for https://; an error of any call inside becomes a Failure."""
    tls, target = address.startswith("https://"), address.removeprefix("https://").removeprefix("http://")
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit():
        raise UsageFailure(f"--address {address!r}: expected HOST:PORT")
    if tls:
        opened = grpc.secure_channel(target, grpc.ssl_channel_credentials(), options=_OPTIONS)
    else:
        opened = grpc.insecure_channel(target, options=_OPTIONS)
    with opened as channel:
        try:
            yield Stubs(
                event_pb2_grpc.EventServiceStub(channel),
                function_pb2_grpc.FunctionServiceStub(channel),
                run_pb2_grpc.RunServiceStub(channel),
                admin_pb2_grpc.AdminServiceStub(channel),
                health_pb2_grpc.HealthStub(channel),
            )
        except grpc.RpcError as e:
            raise from_rpc(e, address) from None


def server_ms(stubs: Stubs) -> int:
    """The server's time: the clock of a dev server may be ahead of this machine's."""
    from stepwell.v1 import admin_pb2

    return stubs.admin.GetServerInfo(admin_pb2.GetServerInfoRequest(), timeout=CALL_TIMEOUT_S).now_ms


def pages(call: Callable[..., Any], request: Any, field: str, limit: int) -> Iterator[Any]:
    """Items of a paged listing, at most ``limit``, fetched as they are consumed."""
    left = limit
    while left > 0:
        request.page_size = min(left, 1_000)
        page = call(request, timeout=CALL_TIMEOUT_S)
        for item in list(getattr(page, field))[:left]:
            left -= 1
            yield item
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
