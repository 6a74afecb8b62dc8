"""`stepwell runs pull` and `step`: a run with its journal as a file, and today's code over it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell_server.cli.failures import Exit, Failure, UsageFailure
from stepwell_server.cli.options import DEFAULT_ADDRESS, Environment
from stepwell_server.cli.transfer import From

if TYPE_CHECKING:
    from stepwell.function import Function
    from stepwell.v1 import step_pb2

_ROOTS = ("data", "metadata", "output")


def add_to(runs: typer.Typer) -> None:
    """Adds `pull` and `step`."""
    runs.command()(pull)
    runs.command()(step)


def pull(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")],
    redact: Annotated[
        list[str] | None,
        typer.Option(
            "--redact", metavar="PATH[=drop]", help="Mask what stands there: data… of events, output… of steps."
        ),
    ] = None,
    address: From = DEFAULT_ADDRESS,
    environment: Environment = "",
) -> None:
    """Write a run, what started it, and its journal in order, as lines of JSON; for `stepwell runs step`."""
    from stepwell_server.cli import redaction

    rules = redaction.parse(redact or (), _ROOTS)
    from stepwell.v1 import run_pb2

    from stepwell_server.cli import recorded
    from stepwell_server.cli.connection import CALL_TIMEOUT_S, connect, pages
    from stepwell_server.cli.output import one_line_json, write

    with connect(address) as stubs:
        request = run_pb2.GetRunRequest(environment=environment, run_id=run_id, with_event=True)
        answer = stubs.runs.GetRun(request, timeout=CALL_TIMEOUT_S)
        for line in (recorded.run_line(answer.run), recorded.event_line(answer.event)):
            redaction.redact(rules, next(iter(line.values())))
            write(one_line_json(line))
        wanted = run_pb2.GetJournalRequest(environment=environment, run_id=run_id)
        for entry in pages(stubs.runs.GetJournal, wanted, "entries", 20_000):
            line = recorded.entry_line(entry)
            redaction.redact(rules, line["entry"])
            if entry.kind == "EVENT" and isinstance(line["entry"].get("output"), dict):
                redaction.redact(rules, line["entry"]["output"])
            write(one_line_json(line))
    for rule in rules:
        if not rule.hits:
            print(f"--redact {rule.text}: nothing stood there", file=sys.stderr)


def step(
    recording: Annotated[Path, typer.Argument(metavar="RUN.NDJSON", help="What `runs pull` wrote.")],
    app: Annotated[Path, typer.Argument(metavar="APP.PY", help="The file of the app, as it is today.")],
) -> None:
    """Run today's code over the journal of a run: what it would do next, or where it differs. Nothing is executed."""
    from stepwell.stepping import step_through

    from stepwell_server.cli import recorded
    from stepwell_server.cli.output import clean, write

    try:
        with recording.open("rb") as lines:
            run = recorded.read(lines)
    except OSError as error:
        raise UsageFailure(f"cannot read {recording}: {error.strerror}") from None
    except recorded.RecordingError as error:
        raise UsageFailure(f"{recording}: {error}") from None
    function = _function(app, run.assign.function_id)
    stepped = step_through(function, run.assign)
    for outcome in run.assign.journal:
        if outcome.key not in stepped.unasked:
            write(clean(f"{outcome.number:>4}  {outcome.key}  {_kind(outcome)}  {_result(outcome)}"))
    if stepped.difference is not None:
        one = stepped.difference
        write(clean(f"step {one.key} differs at {one.line}"))
        write(clean(f"  the journal holds  {one.recorded}\n  the code asks for  {one.asked}"))
        raise Failure("the code no longer fits the journal of this run", Exit.FAILED)
    for key in stepped.unasked:
        write(clean(f"step {key} is in the journal, and the code did not ask for it"))
    for what in stepped.next:
        write(clean(f"next: {what}"))
    write(clean(f"recorded: {run.status}"))


def _kind(outcome: step_pb2.Outcome) -> str:
    from stepwell.journal import words

    return words(outcome.kind, outcome.target) if outcome.kind else "cancel"


def _result(outcome: step_pb2.Outcome) -> str:
    from stepwell.errors import describe, innermost

    if outcome.HasField("failure"):
        return f"failed: {describe(innermost(outcome.failure))}"
    text = outcome.output.data.decode("utf-8", "replace") or "nothing"
    return text if len(text) <= 60 else text[:59] + "…"


def _function(path: Path, function_id: str) -> Function[Any, Any]:
    """The function of an app's file, which is run as a module: what stands under `__name__ == "__main__"` is not."""
    import runpy

    from stepwell import App

    if not path.is_file():
        raise UsageFailure(f"cannot read {path}: there is no such file")
    sys.path.insert(0, str(path.absolute().parent))
    try:
        names = runpy.run_path(str(path), run_name="stepwell_stepped")
    except Exception as error:
        raise Failure(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    apps = {id(value): value for value in names.values() if isinstance(value, App)}
    known = {one.id: one for found in apps.values() for one in found.functions.values()}
    if function_id not in known:
        have = ", ".join(sorted(known)) or "none"
        raise Failure(f"{path} has no function {function_id}; it has {have}", Exit.NOT_FOUND)
    return known[function_id]
