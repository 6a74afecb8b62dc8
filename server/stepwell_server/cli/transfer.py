"""`stepwell events pull` and `push`: history out of one server, and into another."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell_server.cli.failures import Exit, Failure, UsageFailure
from stepwell_server.cli.options import DEFAULT_ADDRESS, Environment, Filter, duration_ms

if TYPE_CHECKING:
    from stepwell_server.cli.lines import Bad, Line

_NO_LIMIT = 10**12

From = Annotated[
    str,
    typer.Option("--from", "--address", envvar="STEPWELL_ADDRESS", metavar="HOST:PORT", help="Server to read from."),
]
To = Annotated[
    str,
    typer.Option("--to", "--address", envvar="STEPWELL_ADDRESS", metavar="HOST:PORT", help="Server to send to."),
]


def add_to(events: typer.Typer) -> None:
    """Adds `pull` and `push`."""
    events.command()(pull)
    events.command()(push)


def pull(
    last: Annotated[str, typer.Option("--last", metavar="DURATION", help="Only events accepted this recently.")] = "",
    name: Annotated[str, typer.Option("--name", help="Only this name; a trailing * matches any rest.")] = "",
    filter: Filter = "",
    after: Annotated[
        str, typer.Option("--after", metavar="EVENT", help="Go on behind this one: the last id that you have.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, show_default=False, help="At most this many.")] = _NO_LIMIT,
    redact: Annotated[
        list[str] | None, typer.Option("--redact", metavar="PATH[=drop]", help="Mask what stands there, or drop it.")
    ] = None,
    address: From = DEFAULT_ADDRESS,
    environment: Environment = "",
) -> None:
    """Write events, oldest first, as lines of JSON, with what --redact names masked."""
    from stepwell_server.cli import redaction

    rules = redaction.parse(redact or ())
    last_ms = duration_ms(last) if last else 0
    from stepwell.v1 import event_pb2

    from stepwell_server.cli.connection import connect, pages, server_ms
    from stepwell_server.cli.lines import from_event
    from stepwell_server.cli.output import one_line_json, write

    written = foreign = 0
    with connect(address) as stubs:
        now_ms = server_ms(stubs)
        request = event_pb2.ListEventsRequest(
            environment=environment,
            name=name,
            condition=filter,
            from_ms=now_ms - last_ms if last else 0,
            until_ms=now_ms,
            page_token=after,
            oldest_first=True,
        )
        for event in pages(stubs.events.ListEvents, request, "events", limit):
            line = from_event(event)
            if line is None:
                foreign += 1
                continue
            redaction.redact(rules, line)
            write(one_line_json(line))
            written += 1
    print(f"{written} events" + (f"; {foreign} left out, their data is not JSON" if foreign else ""), file=sys.stderr)
    for rule in rules:
        if written and not rule.hits:
            print(f"--redact {rule.text}: nothing stood there in any event", file=sys.stderr)


def push(
    keep_ids: Annotated[
        bool, typer.Option("--keep-ids", help="With their ids as sender's ids: one sent before is not stored again.")
    ] = False,
    address: To = DEFAULT_ADDRESS,
    environment: Environment = "",
) -> None:
    """Send the events of stdin, a JSON object a line. Bad lines are named and left out; a repeat doubles nothing."""
    if sys.stdin.isatty():
        raise UsageFailure("push reads lines of JSON from stdin: stepwell events push < events.ndjson")
    from stepwell_server.cli.connection import connect
    from stepwell_server.cli.lines import read

    sums = _Sums()
    with connect(address) as stubs:
        try:
            _push(stubs, environment, sums.good(read(sys.stdin.buffer, keep_ids=keep_ids)), sums)
        finally:
            print(sums.text(), file=sys.stderr)
    if sums.refused:
        raise Failure(f"{sums.refused} lines were refused; the others are stored", Exit.USAGE)


class _Sums:
    """What became of the lines."""

    def __init__(self) -> None:
        self.accepted = 0
        self.duplicates = 0
        self.refused = 0
        self.last = 0
        """Up to this line all are answered."""

    def good(self, lines: Iterable[Line | Bad]) -> Iterator[Line]:
        """The lines that are events; the others are named."""
        from stepwell_server.cli.lines import Bad

        for line in lines:
            if isinstance(line, Bad):
                self.refuse(line.number, line.why)
            else:
                yield line

    def refuse(self, number: int, why: str) -> None:
        """Names a bad line."""
        from stepwell_server.cli.output import clean

        self.refused += 1
        print(clean(f"line {number}: {why}"), file=sys.stderr)

    def text(self) -> str:
        """In words."""
        said = f"{self.accepted} accepted, {self.duplicates} known before, {self.refused} refused"
        return f"{said}; answered up to line {self.last}"


def _push(stubs: Any, environment: str, lines: Iterable[Line], sums: _Sums) -> None:
    from stepwell.v1 import event_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S
    from stepwell_server.cli.lines import batches

    status_of = event_pb2.EventStatus
    for request_id, batch in batches(lines):
        request = event_pb2.SendEventsRequest(
            environment=environment, request_id=request_id, events=[line.event for line in batch]
        )
        answer = stubs.events.SendEvents(request, timeout=CALL_TIMEOUT_S)
        for line, status in zip(batch, answer.statuses, strict=True):
            if status.outcome == status_of.OUTCOME_REFUSED:
                sums.refuse(line.number, f"{status.message} [{status.reason}]")
            elif status.outcome == status_of.OUTCOME_DUPLICATE:
                sums.duplicates += 1
            else:
                sums.accepted += 1
        sums.last = batch[-1].number
