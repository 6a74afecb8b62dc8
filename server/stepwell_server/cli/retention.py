"""`stepwell retention`: how long ended runs and events are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell_server.cli.failures import UsageFailure
from stepwell_server.cli.options import DEFAULT_ADDRESS, Address, Environment, Format, Output, duration_ms

if TYPE_CHECKING:
    from stepwell.v1 import admin_pb2

commands = typer.Typer(help="How long ended runs and events are kept.", no_args_is_help=True, rich_markup_mode=None)
FOR_EVER = "forever"


def _option(flag: str, what: str) -> Any:
    return typer.Option(flag, metavar="DURATION", help=f"Keep {what} this long, for example 30d; or {FOR_EVER}.")


@commands.command("set")
def set_(
    completed: Annotated[str, _option("--completed", "runs that completed")] = "",
    failed: Annotated[str, _option("--failed", "runs that failed")] = "",
    cancelled: Annotated[str, _option("--cancelled", "runs that were cancelled")] = "",
    timed_out: Annotated[str, _option("--timed-out", "runs whose time was over")] = "",
    skipped: Annotated[str, _option("--skipped", "runs that never started")] = "",
    events: Annotated[str, _option("--events", "events")] = "",
    address: Address = DEFAULT_ADDRESS,
    environment: Environment = "",
    output: Output = Format.TABLE,
) -> None:
    """Change how long things are kept, at least an hour; what is not named stays as it is."""
    given = (completed, failed, cancelled, timed_out, skipped, events)
    kept = {number: _keep_ms(text) for number, text in enumerate(given, start=1) if text}
    if not kept:
        raise UsageFailure("name at least one of --completed, --failed, --cancelled, --timed-out, --skipped, --events")
    from stepwell.v1 import admin_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect

    rules: list[Any] = [{"kept": number, "keep_ms": keep_ms} for number, keep_ms in kept.items()]
    with connect(address) as stubs:
        request = admin_pb2.SetRetentionRequest(environment=environment, rules=rules)
        _show(stubs.admin.SetRetention(request, timeout=CALL_TIMEOUT_S), output)


@commands.command()
def show(address: Address = DEFAULT_ADDRESS, environment: Environment = "", output: Output = Format.TABLE) -> None:
    """How long things are kept."""
    from stepwell.v1 import admin_pb2

    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect

    with connect(address) as stubs:
        request = admin_pb2.GetRetentionRequest(environment=environment)
        _show(stubs.admin.GetRetention(request, timeout=CALL_TIMEOUT_S), output)


def _keep_ms(text: str) -> int:
    return 0 if text == FOR_EVER else duration_ms(text)


def _show(answer: admin_pb2.GetRetentionResponse | admin_pb2.SetRetentionResponse, output: Format) -> None:
    from stepwell.v1 import admin_pb2

    from stepwell_server.cli.output import facts
    from stepwell_server.cli.timeline import length

    names = {rule.kept: admin_pb2.Kept.Name(rule.kept).removeprefix("KEPT_").lower() for rule in answer.rules}
    pairs = [(names[rule.kept], length(rule.keep_ms) if rule.keep_ms else FOR_EVER) for rule in answer.rules]
    facts(output, answer, pairs)
