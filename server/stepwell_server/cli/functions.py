"""`stepwell functions` and `stepwell invoke`: what apps registered, and starting it by hand."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell_server.cli.options import (
    DEFAULT_ADDRESS,
    Address,
    Data,
    Environment,
    Format,
    Output,
    duration_ms,
    json_bytes,
)

if TYPE_CHECKING:
    from stepwell.v1 import function_pb2


class Running(StrEnum):
    """What becomes of the runs that have begun, when their function is paused."""

    KEEP = "keep"
    HOLD = "hold"
    CANCEL = "cancel"


class Waiting(StrEnum):
    """What becomes of the runs that wait, when their function is resumed."""

    RELEASE = "release"
    SKIP = "skip"


commands = typer.Typer(help="What apps registered.", no_args_is_help=True, rich_markup_mode=None)


def add_to(root: typer.Typer) -> None:
    """Adds `invoke`."""
    root.command()(invoke)


@commands.command("list")
def list_(
    app: Annotated[str, typer.Option("--app", help="Only functions of this app.")] = "",
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """All functions of the apps' current deployments."""
    from stepwell.v1 import function_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect
    from stepwell_server.cli.output import rows

    request = function_pb2.ListFunctionsRequest(environment=environment, app=app)
    with connect(address) as stubs:
        found = stubs.functions.ListFunctions(request, timeout=CALL_TIMEOUT_S).functions
    rows(output, found, ("id", "on", "workers", "deployment"), _cells)


@commands.command()
def get(
    function_id: Annotated[str, typer.Argument(help="app/name.")],
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """One function."""
    from stepwell.v1 import function_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect

    request = function_pb2.GetFunctionRequest(environment=environment, function_id=function_id)
    with connect(address) as stubs:
        _show(output, stubs.functions.GetFunction(request, timeout=CALL_TIMEOUT_S).function)


def _show(output: Format, f: function_pb2.Function) -> None:
    from stepwell_server.cli.output import facts
    from stepwell_server.cli.timeline import length

    pairs = [
        ("id", f.id),
        ("app", f.app),
        ("on", _on(f) or "nothing: it is only invoked"),
        ("deployment", f.deployment),
        ("workers", f.workers or "none connected"),
        ("paused", _paused(f)),
        ("attempts", f.spec.retry.max_attempts),
        ("input", f.spec.input_schema.decode("utf-8", "replace")),
        ("output", f.spec.output_schema.decode("utf-8", "replace")),
        ("strict", "yes" if f.spec.strict else ""),
        ("timeout", length(f.spec.timeout_ms) if f.spec.timeout_ms else ""),
        ("unjudged", f.unjudged),
        ("start timeout", length(f.spec.start_timeout_ms) if f.spec.start_timeout_ms else ""),
    ]
    facts(output, f, pairs)


@commands.command()
def pause(
    function_id: Annotated[str, typer.Argument(help="app/name.")],
    running: Annotated[Running, typer.Option("--running", help="What becomes of runs that have begun.")] = Running.KEEP,
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """Hold a function's new runs back until it is resumed; events go on to queue them."""
    from stepwell.v1 import function_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect

    kept: Any = function_pb2.PauseFunctionRequest.Running.Value(f"RUNNING_{running.name}")
    request = function_pb2.PauseFunctionRequest(environment=environment, function_id=function_id, running=kept)
    with connect(address) as stubs:
        _show(output, stubs.functions.PauseFunction(request, timeout=CALL_TIMEOUT_S).function)


@commands.command()
def resume(
    function_id: Annotated[str, typer.Argument(help="app/name.")],
    waiting: Annotated[Waiting, typer.Option("--waiting", help="What becomes of what waits.")] = Waiting.RELEASE,
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """Hand out the runs of a paused function again, or skip those that wait."""
    from stepwell.v1 import function_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect

    kept: Any = function_pb2.ResumeFunctionRequest.Waiting.Value(f"WAITING_{waiting.name}")
    request = function_pb2.ResumeFunctionRequest(environment=environment, function_id=function_id, waiting=kept)
    with connect(address) as stubs:
        _show(output, stubs.functions.ResumeFunction(request, timeout=CALL_TIMEOUT_S).function)


def invoke(
    function_id: Annotated[str, typer.Argument(metavar="FUNCTION", help="app/name.")],
    data: Data = "null",
    wait: Annotated[str, typer.Option("--wait", metavar="DURATION", help="Wait this long for the end, e.g. 30s.")] = "",
    id: Annotated[str, typer.Option("--id", help="Your own id: the same id within 24 hours is the same run.")] = "",
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """Start a run of a function; with --wait, print its output and end with its result."""
    body, wait_ms = json_bytes(data, "--data", "result_bytes"), duration_ms(wait) if wait else 0
    from uuid import uuid4

    from stepwell.v1 import function_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect
    from stepwell_server.cli.runs import show_end, wait_until

    request = function_pb2.InvokeRequest(environment=environment, function_id=function_id, request_id=id or uuid4().hex)
    request.input.data = body
    deadline = time.monotonic() + wait_ms / 1000
    with connect(address) as stubs:
        run = stubs.functions.Invoke(request, timeout=CALL_TIMEOUT_S).run
        if wait_ms:
            run = wait_until(stubs, environment, run.id, deadline)
    show_end(run, output, must_end=bool(wait_ms))


def _paused(function: function_pb2.Function) -> str:
    from stepwell.v1 import function_pb2

    from stepwell_server.cli.output import clock_time

    if not function.HasField("pause"):
        return ""
    pause = function.pause
    if pause.resuming:
        return "until what waits is skipped"
    kept = {
        function_pb2.PauseFunctionRequest.RUNNING_HOLD: "runs that have begun wait too",
        function_pb2.PauseFunctionRequest.RUNNING_CANCEL: "runs that have begun are cancelled",
    }
    return f"since {clock_time(pause.since_ms)}; {kept.get(pause.running, 'runs that have begun go on')}"


def _on(function: function_pb2.Function) -> str:
    return ", ".join(t.event + (f" if {t.condition}" if t.condition else "") for t in function.spec.triggers)


def _cells(function: function_pb2.Function) -> tuple[object, ...]:
    on = _on(function) + (" (could not be judged: see functions get)" if function.unjudged else "")
    return function.id, on, "paused" if function.HasField("pause") else function.workers, function.deployment
