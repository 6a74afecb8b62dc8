"""`stepwell health`: for the probes of containers and balancers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stepwell_server.cli.failures import Exit, Failure
from stepwell_server.cli.options import DEFAULT_ADDRESS, Address, Format, Output

_PROBE_S = 5.0


def add_to(root: typer.Typer) -> None:
    """Adds `health`."""
    root.command()(health)


def health(
    ready: Annotated[
        bool, typer.Option("--ready", help="Also ask whether it serves: it holds the database, which answers.")
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    output: Output = Format.TABLE,
) -> None:
    """Whether a server lives, and with --ready whether it serves. Ends with code 0, or 4 if not."""
    from grpc_health.v1 import health_pb2
    from stepwell.v1 import admin_pb2

    from stepwell_server.cli.connection import connect
    from stepwell_server.cli.output import one_line_json, write

    with connect(address) as stubs:
        asked = health_pb2.HealthCheckRequest(service="ready" if ready else "")
        check: Any = stubs.health  # its stubs know no methods
        found = check.Check(asked, timeout=_PROBE_S).status
        if found != health_pb2.HealthCheckResponse.SERVING:
            # A server that stands by has nothing but this to say: its refusal says why.
            info = stubs.admin.GetServerInfo(admin_pb2.GetServerInfoRequest(), timeout=_PROBE_S)
            raise Failure(f"not ready: {info.not_ready}", Exit.UNAVAILABLE)
    word = "ready" if ready else "alive"
    write(one_line_json({"status": word}) if output is Format.JSON else word)
