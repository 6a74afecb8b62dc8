"""`stepwell events`: send events, and see which came."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell_server.cli import transfer
from stepwell_server.cli.failures import Exit, Failure
from stepwell_server.cli.options import (
    DEFAULT_ADDRESS,
    Address,
    Data,
    Environment,
    Filter,
    Format,
    Limit,
    Output,
    json_bytes,
)

commands = typer.Typer(help="Send events, and see which came.", no_args_is_help=True, rich_markup_mode=None)

transfer.add_to(commands)

_COLUMNS = ("id", "accepted", "name", "data")


@commands.command()
def send(
    name: Annotated[str, typer.Argument(help="Name, for example user/signed.up.")],
    data: Data = "{}",
    id: Annotated[str, typer.Option("--id", help="Your own id: the same id within 24 hours is the same event.")] = "",
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """Send one event; prints the server's id of it."""
    body = json_bytes(data, "--data", "event_bytes")
    from uuid import uuid4

    from stepwell.v1 import event_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect
    from stepwell_server.cli.output import enum_name, one_line_json, plain, write

    event = event_pb2.NewEvent(name=name, id=id)
    event.data.data = body
    request = event_pb2.SendEventsRequest(environment=environment, request_id=uuid4().hex, events=[event])
    with connect(address) as stubs:
        status = stubs.events.SendEvents(request, timeout=CALL_TIMEOUT_S, wait_for_ready=False).statuses[0]
    outcome = enum_name(event_pb2.EventStatus.Outcome.Name(status.outcome), "Outcome")
    if outcome == "refused":
        raise Failure(f"{status.message or 'the event was refused'} [{status.reason}]", Exit.USAGE)
    if output is Format.JSON:
        write(one_line_json(plain(status)))
    else:
        write(f"{status.event_id}  {outcome}")


@commands.command("list")
def list_(
    name: Annotated[str, typer.Option("--name", help="Only this name; a trailing * matches any rest.")] = "",
    filter: Filter = "",
    limit: Limit = 20,
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """Events, newest first."""
    from stepwell.v1 import event_pb2

    from stepwell_server.cli.connection import connect, pages
    from stepwell_server.cli.output import rows

    request = event_pb2.ListEventsRequest(environment=environment, name=name, condition=filter)
    with connect(address) as stubs:
        rows(output, pages(stubs.events.ListEvents, request, "events", limit), _COLUMNS, _cells)


@commands.command()
def watch(
    name: Annotated[str, typer.Option("--name", help="Only this name; a trailing * matches any rest.")] = "",
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """Events as they are accepted, until interrupted."""
    from stepwell.v1 import event_pb2

    from stepwell_server.cli.connection import connect
    from stepwell_server.cli.output import clean, one_line_json, plain, write

    request = event_pb2.WatchEventsRequest(environment=environment, name=name)
    with connect(address) as stubs:
        for response in stubs.events.WatchEvents(request):
            for event in response.events:
                write(one_line_json(plain(event)) if output is Format.JSON else clean("  ".join(_cells(event))))
    raise Failure("the server ended the stream", Exit.UNAVAILABLE)


@commands.command()
def get(
    event_id: Annotated[str, typer.Argument(help="The server's id.")],
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """One event, and the runs that it started."""
    from stepwell.v1 import event_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect
    from stepwell_server.cli.output import clock_time, facts, one_line_json, payload

    request = event_pb2.GetEventRequest(environment=environment, event_id=event_id)
    with connect(address) as stubs:
        response = stubs.events.GetEvent(request, timeout=CALL_TIMEOUT_S)
    event = response.event
    pairs = [
        ("id", event.id),
        ("name", event.name),
        ("sender id", event.sender_id),
        ("accepted", clock_time(event.accepted_ms)),
        ("happened", clock_time(event.time_ms)),
        ("metadata", one_line_json(dict(event.metadata)) if event.metadata else ""),
        ("data", one_line_json(payload(event.data))),
        ("runs", "\n      ".join(response.run_ids) or "none: no function has a trigger that fits"),
    ]
    facts(output, response, pairs)


def _cells(event: object) -> tuple[str, ...]:
    from stepwell.v1 import event_pb2

    from stepwell_server.cli.output import clock_time, payload, short

    assert isinstance(event, event_pb2.Event)
    return event.id, clock_time(event.accepted_ms), event.name, short(payload(event.data))
