"""A run on the terminal: head, timeline, result, what it waits for; once, or live."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.text import Text
from stepwell.v1 import admin_pb2, run_pb2

from stepwell_server.cli.failures import Exit, Failure
from stepwell_server.cli.options import Format
from stepwell_server.cli.output import clean, clock_time, console, enum_name, one_line_json, payload, plain, write
from stepwell_server.cli.timeline import failure_line, length, render, timeline, waiting_lines

if TYPE_CHECKING:
    from stepwell_server.cli.connection import Stubs

_COLOURS = {"completed": "green", "failed": "red", "timed_out": "red", "paused": "red", "cancelled": "yellow"}


def view(
    run: run_pb2.Run,
    journal: Sequence[run_pb2.JournalEntry],
    waiting: Iterable[run_pb2.WaitingFor],
    now_ms: int,
    width: int,
) -> Text:
    """Everything a person wants to know of a run."""
    status = enum_name(run_pb2.RunStatus.Name(run.status), "RunStatus")
    out = Text(overflow="fold")
    out.append(clean(run.function_id), "bold").append(f"  {run.id}  ")
    out.append(status.replace("_", " "), _COLOURS.get(status, "cyan"))
    if run.paused_reason:
        out.append(f" ({enum_name(run_pb2.PausedReason.Name(run.paused_reason), 'PausedReason')})", "red")
    if run.cancel_requested and not run.ended_ms:
        out.append(" (its end is asked for)", "yellow")
    cause = run.event_id or (f"step {run.parent_key} of {run.parent_run_id}" if run.parent_run_id else "an invoke")
    took = f"took {length(run.ended_ms - run.created_ms)}" if run.ended_ms else f"for {length(now_ms - run.created_ms)}"
    out.append(f"\ncreated {clock_time(run.created_ms)} by {clean(cause)}, {took}, turn {run.turn}", "bright_black")
    if run.deadline_ms:
        what = "times out" if run.started_ms else "must start"
        out.append(f", {what} {length(run.deadline_ms - now_ms)} from now", "bright_black")
    out.append("\n\n")
    out.append_text(render(timeline(run, journal, waiting, now_ms), width))
    if status == "completed":
        out.append("\n\noutput ", "bold").append(_cut(one_line_json(payload(run.output)), 2_000))
    if run.HasField("failure"):
        out.append("\n\nfailure ", "bold red").append(failure_line(run.failure))
        if run.failure.stack:
            out.append("\n" + clean(_cut(run.failure.stack.strip(), 4_000)), "bright_black")
    if not run.ended_ms:
        out.append("\n\nnow ", "bold").append("\n    ".join(waiting_lines(waiting, now_ms)) or "nothing is known")
    return out


def follow(stubs: Stubs, environment: str, run_id: str, output: Format) -> run_pb2.Run:
    """Shows a run until it has ended, and returns it. A terminal is redrawn; a pipe gets a line for each change."""
    request = run_pb2.WatchRunRequest(environment=environment, run_id=run_id)
    if output is Format.JSON:
        run = run_pb2.Run()
        for change in stubs.runs.WatchRun(request):
            run = change.run
            write(one_line_json(plain(change)))
    elif sys.stdout.isatty():
        run = _follow_live(stubs, request)
    else:
        run = _follow_lines(stubs, request)
    if not run.ended_ms:
        raise Failure("the server ended the stream before the run ended", Exit.UNAVAILABLE)
    return run


def _follow_live(stubs: Stubs, request: run_pb2.WatchRunRequest) -> run_pb2.Run:
    from threading import Thread

    from rich.live import Live

    run, waiting, journal = run_pb2.Run(), list[run_pb2.WaitingFor](), dict[str, run_pb2.JournalEntry]()
    errors: list[Exception] = []
    asked = time.monotonic()
    server_ms = stubs.admin.GetServerInfo(admin_pb2.GetServerInfoRequest(), timeout=10).now_ms
    stream = stubs.runs.WatchRun(request)

    def read() -> None:
        nonlocal run, waiting
        try:
            for change in stream:
                run, waiting = change.run, list(change.waiting_for)
                journal.update((entry.key, entry) for entry in change.entries)
        except Exception as e:  # Raised again by the thread that draws.
            errors.append(e)

    reader = Thread(target=read, daemon=True)
    reader.start()
    out = console()
    with Live(console=out, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            reader.join(timeout=0.1)
            now_ms = server_ms + int((time.monotonic() - asked) * 1000)
            if run.id:
                live.update(view(run, list(journal.values()), waiting, now_ms, out.width), refresh=True)
            if not reader.is_alive():
                break
    if errors:
        raise errors[0]
    return run


def _follow_lines(stubs: Stubs, request: run_pb2.WatchRunRequest) -> run_pb2.Run:
    run, last_status = run_pb2.Run(), ""
    for change in stubs.runs.WatchRun(request):
        run = change.run
        status = enum_name(run_pb2.RunStatus.Name(run.status), "RunStatus")
        for entry in change.entries:
            what = failure_line(entry.failure) if entry.HasField("failure") else "done" if entry.ended_ms else "open"
            when = clock_time(entry.ended_ms or entry.started_ms)
            write(clean(f"{when}  {entry.key}  {entry.kind.lower()}  {what}"))
        if status != last_status:
            write(f"{clock_time(run.ended_ms or run.started_ms or run.created_ms)}  {run.id}  {status}")
            last_status = status
    return run


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[:size] + f"… ({len(text):,} characters in all)"
