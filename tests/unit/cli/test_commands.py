"""The commands against a server that answers from a table: what they print, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from stepwell.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    function_pb2,
    function_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
)

T = 1_700_000_000_000
Run = Callable[..., subprocess.CompletedProcess[str]]


def a_run(run_id: str) -> run_pb2.Run:
    """A run whose id says how it stands: run_completed, run_failed, run_parked."""
    run = run_pb2.Run(id=run_id, function_id="shop/f", created_ms=T, started_ms=T + 5, event_id="evt_1", turn=1)
    run.status = run_pb2.RunStatus.Value("RUN_STATUS_" + run_id.removeprefix("run_").upper())
    if run_id == "run_parked":
        return run
    run.ended_ms = T + 100
    if run_id == "run_failed":
        run.failure.type, run.failure.message = "ValueError", "no such sku"
    else:
        run.output.data = b'{"booked":7}'
    return run


def refuse(context: Any, code: grpc.StatusCode, reason: str, message: str, field: str = "") -> None:
    details = [error_details_pb2.ErrorInfo(reason=reason)]
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description="is empty")
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    packed = [any_pb2.Any() for _ in details]
    for one, detail in zip(packed, details, strict=True):
        one.Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


class Events(event_pb2_grpc.EventServiceServicer):
    def SendEvents(self, request: Any, context: Any) -> Any:
        (event,) = request.events
        if not event.name:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "BAD_NAME", "the event has no name", "events[0].name")
        status = event_pb2.EventStatus(event_id="evt_1", outcome=1)
        if event.name == "bad":
            status = event_pb2.EventStatus(outcome=3, reason="TOO_LARGE", message="data has 2 MiB, the limit is 1 MiB")
        return event_pb2.SendEventsResponse(statuses=[status])

    def ListEvents(self, request: Any, context: Any) -> Any:
        first = 2 if request.page_token else 0
        events = [event_pb2.Event(id=f"evt_{n}", name="user/signed.up", accepted_ms=T) for n in (first, first + 1)]
        for event in events:
            event.data.data = b'{"user_id":7}'
        return event_pb2.ListEventsResponse(events=events, next_page_token="" if first else "2")


class Functions(function_pb2_grpc.FunctionServiceServicer):
    def Invoke(self, request: Any, context: Any) -> Any:
        if request.function_id != "shop/f":
            refuse(context, grpc.StatusCode.NOT_FOUND, "FUNCTION_NOT_FOUND", f"no function {request.function_id}")
        return function_pb2.InvokeResponse(run=a_run("run_parked"))


class Runs(run_pb2_grpc.RunServiceServicer):
    def GetRun(self, request: Any, context: Any) -> Any:
        waiting = run_pb2.WaitingFor(kind=run_pb2.WaitingFor.KIND_EVENT, key="booked", event="booking/created")
        waiting.message = "waits for event booking/created"
        run = a_run(request.run_id)
        return run_pb2.GetRunResponse(run=run, waiting_for=[] if run.ended_ms else [waiting])

    def GetJournal(self, request: Any, context: Any) -> Any:
        entry = run_pb2.JournalEntry(key="send_welcome", kind="run", number=1, ended_ms=T + 50, attempt=1)
        return run_pb2.GetJournalResponse(entries=[entry])

    def WaitRun(self, request: Any, context: Any) -> Any:
        time.sleep(min(request.timeout_ms, 50) / 1000)
        return run_pb2.WaitRunResponse(run=a_run(request.run_id))

    def WatchRun(self, request: Any, context: Any) -> Any:
        yield run_pb2.WatchRunResponse(run=a_run("run_parked"))
        yield run_pb2.WatchRunResponse(run=a_run(request.run_id))

    def ListRuns(self, request: Any, context: Any) -> Any:
        names = [run_pb2.RunStatus.Name(status) for status in request.statuses] or ["RUN_STATUS_COMPLETED"]
        return run_pb2.ListRunsResponse(
            runs=[a_run("run_" + name.removeprefix("RUN_STATUS_").lower()) for name in names]
        )


class Admin(admin_pb2_grpc.AdminServiceServicer):
    def GetServerInfo(self, request: Any, context: Any) -> Any:
        return admin_pb2.GetServerInfoResponse(version="9.9", profile="dev", now_ms=T + 1_000)

    def AdvanceClock(self, request: Any, context: Any) -> Any:
        return admin_pb2.AdvanceClockResponse(now_ms=T + request.advance_ms, complete=True, fired=3)


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    event_pb2_grpc.add_EventServiceServicer_to_server(Events(), server)
    function_pb2_grpc.add_FunctionServiceServicer_to_server(Functions(), server)
    run_pb2_grpc.add_RunServiceServicer_to_server(Runs(), server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(Admin(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture
def run(address: str) -> Run:
    def call(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "STEPWELL_ADDRESS": address}
        command = [sys.executable, "-m", "stepwell", *arguments]
        return subprocess.run(command, env=env, input=stdin, capture_output=True, text=True, timeout=30, check=False)

    return call


CASES: list[tuple[list[str], int, str]] = [
    (["events", "send", "user/signed.up", "-d", '{"user_id": 7}'], 0, "evt_1  accepted"),
    (["events", "send", "bad"], 2, "the limit is 1 MiB [TOO_LARGE]"),
    (["events", "send", ""], 2, "the event has no name [BAD_NAME]\n  events[0].name: is empty"),
    (["events", "send", "x", "-d", "{"], 2, "--data is not JSON: Expecting property name"),
    (["events", "send", "x", "-d", '{"a":NaN}'], 2, "NaN is not a JSON number"),
    (["events", "send", "x", "-d", "@/no/such"], 2, "cannot read /no/such: No such file"),
    (["serve"], 2, "serve needs --database"),
    (["serve", "--database", "memory:", "--listen", "1:2:3"], 2, "--listen '1:2:3': expected HOST:PORT"),
    (["serve", "--database", "memory:", "--listen", "::1:7777"], 2, "for example 127.0.0.1:7777 or [::1]:7777"),
    (["runs", "list", "--status", "sleeping"], 2, "--status 'sleeping': expected one of queued"),
    (["runs", "list", "--status", "failed,parked"], 0, "run_parked"),
    (["runs", "get", "run_parked"], 0, "now waits for event booking/created (step booked)"),
    (["runs", "get", "run_failed"], 0, "failure ValueError: no such sku"),
    (["runs", "wait", "run_completed"], 0, '{"booked":7}'),
    (["runs", "wait", "run_failed"], 1, "run run_failed failed: ValueError: no such sku"),
    (["runs", "wait", "run_parked", "--timeout", "100ms"], 5, "has not ended: it is parked"),
    (["runs", "watch", "run_completed"], 0, "completed"),
    (["runs", "journal", "run_parked"], 0, "send_welcome"),
    (["invoke", "shop/f"], 0, "run_parked  parked"),
    (["invoke", "shop/f", "--wait", "100ms"], 5, "has not ended"),
    (["invoke", "shop/g"], 3, "no function shop/g [FUNCTION_NOT_FOUND]"),
    (["clock", "advance", "4d"], 0, "3 timers fired"),
    (["clock", "advance", "soon"], 2, "'soon' is no duration"),
    (["version", "--address", "127.0.0.1:1"], 4, "no server answers at 127.0.0.1:1"),
    (["runs", "list", "--address", "nowhere"], 2, "expected HOST:PORT"),
    (["workers", "list"], 6, "[UNIMPLEMENTED]"),
    (["events", "sned"], 2, "No such command"),
]


@pytest.mark.parametrize(("arguments", "code", "text"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_a_command_says_what_happened_and_ends_with_its_code(
    run: Run, arguments: list[str], code: int, text: str
) -> None:
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert text in (done.stdout if code == 0 else done.stderr)
    assert "Traceback" not in done.stderr
    assert "\x1b[" not in done.stdout  # Not a terminal: no colours.


def test_lists_are_json_lines_over_all_pages(run: Run) -> None:
    lines = run("events", "list", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["evt_0", "evt_1", "evt_2", "evt_3"]
    assert json.loads(lines[0])["data"] == {"user_id": 7}


def test_the_limit_of_a_list_holds_across_pages(run: Run) -> None:
    assert len(run("events", "list", "-o", "json", "--limit", "3").stdout.splitlines()) == 3


def test_a_run_as_json_has_plain_words(run: Run) -> None:
    shown = json.loads(run("runs", "get", "run_completed", "-o", "json").stdout)
    assert shown["run"]["status"] == "completed"
    assert shown["run"]["output"] == {"booked": 7}


def test_data_beyond_a_limit_is_a_usage_error_that_names_it(run: Run) -> None:
    done = run("events", "send", "x", "-d", "-", stdin=json.dumps({"x": "y" * (17 << 20)}))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "event_bytes is 1048576" in done.stderr
    done = run("invoke", "shop/f", "-d", "-", stdin=json.dumps("y" * (17 << 20)))
    assert done.returncode == 2
    assert "result_bytes is 2097152" in done.stderr


def test_data_comes_from_stdin_or_a_file(run: Run, tmp_path: Any) -> None:
    path = tmp_path / "data.json"
    path.write_text('{"a": "é"}')
    assert run("events", "send", "x", "-d", "-", stdin='{"a": 1}').returncode == 0
    assert run("events", "send", "x", "-d", f"@{path}").returncode == 0


def test_help_imports_neither_grpc_nor_rich() -> None:
    code = "import sys\nfrom stepwell.__main__ import main\nsys.argv[1:] = ['--help']\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('grpc', 'rich', 'sqlalchemy', 'asyncio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Exit codes:" in done.stdout
