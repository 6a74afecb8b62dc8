"""`stepwell workers`, `limits`, `clock` and `version`: for whoever operates a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stepwell_server.cli.failures import Exit, Failure
from stepwell_server.cli.options import DEFAULT_ADDRESS, Address, Environment, Format, Output, duration_ms

if TYPE_CHECKING:
    from stepwell.v1 import admin_pb2

workers = typer.Typer(help="The worker processes.", no_args_is_help=True, rich_markup_mode=None)
clock = typer.Typer(help="The clock of a dev server.", no_args_is_help=True, rich_markup_mode=None)
_LIMITS_MOST = 10_000


def add_to(root: typer.Typer) -> None:
    """Adds the groups and `version`."""
    root.add_typer(workers, name="workers")
    root.add_typer(clock, name="clock")
    root.command()(version)
    root.command()(limits)


@workers.command("list")
def list_(address: Address = DEFAULT_ADDRESS, environment: Environment = "", output: Output = Format.TABLE) -> None:
    """Workers that are connected, or were until just now."""
    from stepwell.v1 import admin_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect
    from stepwell_server.cli.output import rows

    with connect(address) as stubs:
        request = admin_pb2.ListWorkersRequest(environment=environment)
        found = stubs.admin.ListWorkers(request, timeout=CALL_TIMEOUT_S).workers
    columns = ("app", "instance", "state", "executing", "parked", "deployment", "labels", "sdk", "since")
    rows(output, found, columns, _cells)


@clock.command()
def advance(
    by: Annotated[str, typer.Argument(metavar="DURATION", help="For example 4d or 1h30m.")],
    timeout: Annotated[str, typer.Option("--timeout", help="Stop after this much real time.")] = "60s",
    address: Address = DEFAULT_ADDRESS,
    output: Output = Format.TABLE,
) -> None:
    """Move the clock of a dev server forward; everything that becomes due on the way happens, in order."""
    advance_ms, deadline_ms = duration_ms(by), min(duration_ms(timeout), 600_000)
    from stepwell.v1 import admin_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect
    from stepwell_server.cli.output import clock_time, one_line_json, plain, write

    with connect(address) as stubs:
        request = admin_pb2.AdvanceClockRequest(advance_ms=advance_ms, deadline_ms=deadline_ms)
        answer = stubs.admin.AdvanceClock(request, timeout=deadline_ms / 1000 + CALL_TIMEOUT_S)
    if output is Format.JSON:
        write(one_line_json(plain(answer)))
    else:
        write(f"it is now {clock_time(answer.now_ms)}; {answer.fired} timers fired")
    if not answer.complete:
        raise Failure("the time was over before the whole advance was made", Exit.TIMEOUT)


def limits(
    function: Annotated[str, typer.Option("--function", help="Only those of this function: app/name.")] = "",
    app: Annotated[str, typer.Option("--app", help="Only those of this app and of its functions.")] = "",
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """Limits that runs use now or wait for: how many slots are in use, and who waits."""
    from stepwell.v1 import admin_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect
    from stepwell_server.cli.output import rows

    found: list[admin_pb2.Limit] = []
    with connect(address) as stubs:
        token = ""
        while True:
            request = admin_pb2.ListLimitsRequest(
                environment=environment, function_id=function, app=app, page_size=1_000, page_token=token
            )
            response = stubs.admin.ListLimits(request, timeout=CALL_TIMEOUT_S)
            found.extend(response.limits)
            token = response.next_page_token
            if not token or len(found) >= _LIMITS_MOST:
                break
    rows(output, found, ("limit", "of", "counts", "used", "waiting", "next start"), _limit_cells)
    if token:
        typer.echo(f"these are the first {len(found)}: ask for those of one function", err=True)


def version(
    address: Annotated[
        str, typer.Option("--address", metavar="HOST:PORT", help="Also ask this server for its version.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """The version of this program, and of a server if --address names one."""
    from importlib import metadata

    own = metadata.version("stepwell")
    if not address:
        typer.echo(f'{{"version":"{own}"}}' if output is Format.JSON else f"stepwell {own}")
        return
    from stepwell.v1 import admin_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect
    from stepwell_server.cli.output import clock_time, facts

    with connect(address) as stubs:
        info = stubs.admin.GetServerInfo(admin_pb2.GetServerInfoRequest(), timeout=CALL_TIMEOUT_S)
    pairs = [
        ("stepwell", own),
        ("server", info.version),
        ("profile", info.profile),
        ("database", info.database),
        ("environment", info.default_environment),
        ("its time", clock_time(info.now_ms)),
        ("ready", info.not_ready and f"no: {info.not_ready}"),
    ]
    facts(output, info, pairs)


def _limit_cells(limit: admin_pb2.Limit) -> tuple[object, ...]:
    from stepwell.v1 import admin_pb2

    from stepwell_server.cli.output import clock_time

    kinds = {
        admin_pb2.Limit.KIND_EXECUTING: ("executing", f"{limit.used} of {limit.bound}"),
        admin_pb2.Limit.KIND_RUN: ("runs", f"{limit.used} of {limit.bound}"),
        admin_pb2.Limit.KIND_THROTTLE: ("starts", ""),
    }
    counts, used = kinds.get(limit.kind, ("", ""))
    waiting = f"{limit.waiting}{' or more' if limit.more else ''}"
    owner = limit.function_id or limit.app or "environment"
    return limit.name, owner, counts, used, waiting, clock_time(limit.free_ms) if limit.free_ms else ""


def _cells(worker: admin_pb2.Worker) -> tuple[object, ...]:
    from stepwell_server.cli.output import clock_time
    from stepwell_server.cli.timeline import length

    state = "draining" if worker.draining else "connected" if worker.connected else f"lost {length(worker.silent_ms)}"
    executing = f"{worker.executing} of {worker.capacity}"
    sdk = worker.sdk
    return (
        worker.app,
        worker.instance,
        state,
        executing,
        worker.parked,
        worker.deployment,
        " ".join(f"{name}={value}" for name, value in sorted(worker.labels.items())),
        sdk,
        clock_time(worker.opened_ms),
    )
