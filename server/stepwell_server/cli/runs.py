"""`stepwell runs`: which there are, what each did, what it waits for, and how to end one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from stepwell_server.cli import recording
from stepwell_server.cli.failures import Exit, Failure
from stepwell_server.cli.options import (
    DEFAULT_ADDRESS,
    Address,
    Environment,
    Filter,
    Format,
    Limit,
    Output,
    duration_ms,
    status_numbers,
)

if TYPE_CHECKING:
    from stepwell.v1 import run_pb2

    from stepwell_server.cli.connection import Stubs

commands = typer.Typer(help="The runs of functions.", no_args_is_help=True, rich_markup_mode=None)

recording.add_to(commands)

RunId = Annotated[str, typer.Argument(help="Id of the run.")]
_ENDS = frozenset({"completed", "failed", "cancelled", "timed_out", "skipped"})
_STATUSES = ("queued", "running", "parked", "paused", *sorted(_ENDS))


@commands.command("list")
def list_(
    function: Annotated[str, typer.Option("--function", help="Only runs of this function (app/name).")] = "",
    app: Annotated[str, typer.Option("--app", help="Only runs of this app.")] = "",
    status: Annotated[list[str] | None, typer.Option("--status", help=f"Only these: {', '.join(_STATUSES)}.")] = None,
    event: Annotated[str, typer.Option("--event", help="Only runs that this event started.")] = "",
    parent: Annotated[str, typer.Option("--parent", help="Only runs that this run invoked.")] = "",
    since: Annotated[str, typer.Option("--since", metavar="DURATION", help="Only runs created this recently.")] = "",
    filter: Filter = "",
    error: Annotated[str, typer.Option("--error", help="Only runs with an error of this type, or caused by one.")] = "",
    limit: Limit = 20,
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """Runs, newest first. All filters must fit."""
    wanted = status_numbers(status, _STATUSES)
    from_ms = int(time.time() * 1000) - duration_ms(since) if since else 0
    from stepwell.v1 import run_pb2

    from stepwell_server.cli.connection import connect, pages
    from stepwell_server.cli.output import rows

    request = run_pb2.ListRunsRequest(
        environment=environment,
        function_id=function,
        app=app,
        statuses=wanted,
        event_id=event,
        parent_run_id=parent,
        from_ms=from_ms,
        condition=filter,
        error_type=error,
    )
    with connect(address) as stubs:
        found = pages(stubs.runs.ListRuns, request, "runs", limit)
        rows(output, found, ("id", "function", "status", "created", "took", "event"), _cells)


@commands.command()
def get(
    run_id: RunId, address: Address = DEFAULT_ADDRESS, environment: Environment = "", output: Output = Format.TABLE
) -> None:
    """One run: its timeline, its result, and what it waits for."""
    from stepwell.v1 import admin_pb2, run_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect, pages
    from stepwell_server.cli.output import console, one_line_json, plain, write
    from stepwell_server.cli.run_view import view

    with connect(address) as stubs:
        request = run_pb2.GetRunRequest(environment=environment, run_id=run_id)
        answer = stubs.runs.GetRun(request, timeout=CALL_TIMEOUT_S)
        if output is Format.JSON:
            write(one_line_json(plain(answer)))
            return
        wanted = run_pb2.GetJournalRequest(environment=environment, run_id=run_id)
        journal = list(pages(stubs.runs.GetJournal, wanted, "entries", 20_000))
        now_ms = stubs.admin.GetServerInfo(admin_pb2.GetServerInfoRequest(), timeout=CALL_TIMEOUT_S).now_ms
    out = console()
    out.print(view(answer.run, journal, answer.waiting_for, now_ms, out.width))


@commands.command()
def journal(
    run_id: RunId,
    limit: Limit = 10_000,
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """What a run did, entry by entry: seen, on its way (number 0), then open."""
    from stepwell.v1 import run_pb2

    from stepwell_server.cli.connection import connect, pages
    from stepwell_server.cli.output import clock_time, payload, rows, short
    from stepwell_server.cli.timeline import failure_line

    def cells(entry: run_pb2.JournalEntry) -> tuple[object, ...]:
        open_text = f"open, until {clock_time(entry.until_ms)}" if entry.until_ms else "open"
        result = failure_line(entry.failure) if entry.HasField("failure") else short(payload(entry.output))
        shown = result if entry.ended_ms else open_text
        return (
            entry.number,
            entry.key,
            entry.kind.lower(),
            entry.target,
            entry.attempt,
            clock_time(entry.ended_ms),
            shown,
        )

    request = run_pb2.GetJournalRequest(environment=environment, run_id=run_id)
    with connect(address) as stubs:
        found = pages(stubs.runs.GetJournal, request, "entries", limit)
        rows(output, found, ("no", "key", "kind", "target", "attempt", "ended", "result"), cells)


@commands.command()
def watch(
    run_id: RunId, address: Address = DEFAULT_ADDRESS, environment: Environment = "", output: Output = Format.TABLE
) -> None:
    """One run, live, until it has ended. With -o json: a line for each change."""
    from stepwell_server.cli.connection import connect
    from stepwell_server.cli.run_view import follow

    with connect(address) as stubs:
        run = follow(stubs, environment, run_id, output)
    _end_with(run)


@commands.command()
def wait(
    run_id: RunId,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="At most this long.")] = "",
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """Wait for the end of a run; prints its output and ends with its result."""
    limit_s = duration_ms(timeout) / 1000 if timeout else float("inf")
    from stepwell_server.cli.connection import connect

    with connect(address) as stubs:
        run = wait_until(stubs, environment, run_id, time.monotonic() + limit_s)
    show_end(run, output, must_end=True)


@commands.command()
def cancel(
    run_id: RunId,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown with the run.")] = "",
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """Ask a run to end. It may run clean-up steps for 30 s."""
    from stepwell.v1 import run_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect
    from stepwell_server.cli.output import one_line_json, plain, write

    request = run_pb2.CancelRunRequest(environment=environment, run_id=run_id, reason=reason)
    with connect(address) as stubs:
        run = stubs.runs.CancelRun(request, timeout=CALL_TIMEOUT_S).run
    if output is Format.JSON:
        write(one_line_json(plain(run)))
    else:
        status = status_name(run)
        write(f"{run.id}  {status}" + ("" if status in _ENDS else ", its end is asked for"))


def wait_until(stubs: Stubs, environment: str, run_id: str, deadline_s: float) -> run_pb2.Run:
    """The run once it has ended, or as it is at the deadline (of time.monotonic)."""
    from stepwell.v1 import run_pb2

    while True:
        left_ms = max(1, int(min((deadline_s - time.monotonic()) * 1000, 50_000)))
        request = run_pb2.WaitRunRequest(environment=environment, run_id=run_id, timeout_ms=left_ms)
        run = stubs.runs.WaitRun(request, timeout=left_ms / 1000 + 10).run
        if run.ended_ms or time.monotonic() >= deadline_s:
            return run


def show_end(run: run_pb2.Run, output: Format, *, must_end: bool) -> None:
    """Prints a run's output, or the run itself, and ends with the exit code of its result."""
    from stepwell_server.cli.output import one_line_json, payload, plain, write

    status = status_name(run)
    if output is Format.JSON:
        write(one_line_json(plain(run)))
    elif status == "completed" and must_end:
        write(one_line_json(payload(run.output)))
    elif status not in _ENDS:
        write(f"{run.id}  {status}")
    if status in _ENDS:
        _end_with(run)
    elif must_end:
        raise Failure(f"run {run.id} has not ended: it is {status}; see `stepwell runs get {run.id}`", Exit.TIMEOUT)


def status_name(run: run_pb2.Run) -> str:
    """The status in the words of --status."""
    from stepwell.v1 import run_pb2

    return run_pb2.RunStatus.Name(run.status).removeprefix("RUN_STATUS_").lower()


def _end_with(run: run_pb2.Run) -> None:
    from stepwell_server.cli.timeline import failure_line

    status = status_name(run)
    if status in _ENDS and status != "completed":
        why = f": {failure_line(run.failure)}" if run.HasField("failure") else ""
        raise Failure(f"run {run.id} {status.replace('_', ' ')}{why}", Exit.FAILED)


def _cells(run: run_pb2.Run) -> tuple[object, ...]:
    from stepwell_server.cli.output import clock_time
    from stepwell_server.cli.timeline import length

    took = length(run.ended_ms - run.created_ms) if run.ended_ms else ""
    status = status_name(run) + (" (cancelling)" if run.cancel_requested and not run.ended_ms else "")
    return run.id, run.function_id, status, clock_time(run.created_ms), took, run.event_id or run.parent_run_id
