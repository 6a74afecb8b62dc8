"""`stepwell failures`: runs that came to grief, gathered by function and error."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from stepwell_server.cli.options import (
    DEFAULT_ADDRESS,
    Address,
    Environment,
    Format,
    Limit,
    Output,
    duration_ms,
    status_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stepwell.v1 import run_pb2

STATUSES = ("failed", "timed_out", "cancelled", "paused", "skipped")


def add_to(root: typer.Typer) -> None:
    """Adds `failures`."""
    root.command()(failures)


def failures(
    function: Annotated[list[str] | None, typer.Option("--function", help="Only of this function (app/name).")] = None,
    app: Annotated[str, typer.Option("--app", help="Only of this app.")] = "",
    last: Annotated[
        str, typer.Option("--last", metavar="DURATION", help="Only of runs that ended this recently.")
    ] = "",
    status: Annotated[
        list[str] | None,
        typer.Option("--status", help=f"Only these: {', '.join(STATUSES)}. Without it: failed and timed_out."),
    ] = None,
    limit: Limit = 20,
    within: Annotated[str, typer.Option("--within", metavar="DURATION", help="Look for at most this long.")] = "10s",
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """What fails, in groups of one function and error each; the one seen last comes first."""
    wanted = status_numbers(status, STATUSES)
    last_ms, within_ms = duration_ms(last) if last else 0, duration_ms(within)
    from stepwell.v1 import run_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect, server_ms
    from stepwell_server.cli.output import clean, clock_time, rows

    deadline_s = time.monotonic() + within_ms / 1000
    groups: dict[tuple[str, str], run_pb2.FailureGroup] = {}
    scanned = 0
    with connect(address) as stubs:
        request = run_pb2.ListFailuresRequest(
            environment=environment,
            function_ids=function or (),
            app=app,
            statuses=wanted,
            from_ms=server_ms(stubs) - last_ms if last else 0,
            page_size=1_000,
        )
        while True:
            page = stubs.runs.ListFailures(request, timeout=CALL_TIMEOUT_S)
            merge(groups, page.groups)
            scanned += page.scanned
            request.page_token = page.next_page_token
            if not page.next_page_token or time.monotonic() >= deadline_s:
                break
    ordered = sorted(groups.values(), key=lambda group: -group.last_seen_ms)
    rows(output, ordered[:limit], ("count", "last seen", "function", "run", "error"), _cells)
    if ordered and output is Format.TABLE:
        print(clean(f"stepwell runs get {ordered[0].run_id}  shows the last one"), file=sys.stderr)
    if len(ordered) > limit:
        print(f"{len(ordered) - limit} more groups: see --limit", file=sys.stderr)
    if request.page_token:
        until = clock_time(page.scanned_to_ms)
        print(f"{scanned} runs were looked at, none older than {until}: see --within", file=sys.stderr)


def merge(groups: dict[tuple[str, str], run_pb2.FailureGroup], page: Iterable[run_pb2.FailureGroup]) -> None:
    """Adds the groups of a page to those of the pages before."""
    for group in page:
        known = groups.setdefault((group.function_id, group.fingerprint), group)
        if known is group:
            continue
        newer, older = (group, known) if group.last_seen_ms > known.last_seen_ms else (known, group)
        newer.count += older.count
        newer.first_seen_ms = min(newer.first_seen_ms, older.first_seen_ms)
        newer.statuses.extend(sorted(set(older.statuses) - set(newer.statuses)))
        groups[group.function_id, group.fingerprint] = newer


def _cells(group: run_pb2.FailureGroup) -> tuple[object, ...]:
    from stepwell_server.cli.output import clock_time

    said = ": ".join(filter(None, (group.type or group.reason, group.message)))
    where = ", ".join(filter(None, (group.key and f"step {group.key}", group.frame and f"in {group.frame}")))
    return (
        group.count,
        clock_time(group.last_seen_ms),
        group.function_id,
        group.run_id,
        said + (f" ({where})" if where else ""),
    )
