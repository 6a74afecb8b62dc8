"""What proto/README.md says is what the code does: vectors, reasons, limits, links, and a session spoken by hand."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import AsyncGenerator
from hashlib import blake2b
from typing import Any

import grpc
import grpc.aio
import pytest
from stepwell import flow, spans
from stepwell.api_errors import from_rpc_error
from stepwell.canonical import canonical, input_hash
from stepwell.chance import RunRandom, run_uuid
from stepwell.stream import run_digest
from stepwell.v1 import (
    admin_pb2,
    common_pb2,
    event_pb2,
    event_pb2_grpc,
    function_pb2,
    function_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    step_pb2,
    step_pb2_grpc,
)
from stepwell_server.engine import sessions
from stepwell_server.engine.sessions import hash_of
from stepwell_server.main import Server
from stepwell_server.model.limits import LIMITS
from stepwell_server.settings import Settings

from tests.support.servers import ROOT

PAGE = (ROOT / "proto" / "README.md").read_text()
SERVER = ROOT / "server" / "stepwell_server"
_REASON = re.compile(r"[A-Z][A-Z_]*[A-Z]")
_READ_S = 10


# -- the page against the source -----------------------------------------------------------------------------------


def _vectors() -> list[tuple[list[str], int]]:
    table = PAGE.split("<!-- vectors -->")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (.*?) \| `(0x[0-9a-f]{16})` \|$", table, re.M)
    named = [runs.strip("`") for runs, _ in rows if runs.startswith("`")]
    return [(named if runs == "both" else [] if runs == "none" else [runs.strip("`")], int(h, 16)) for runs, h in rows]


@pytest.mark.parametrize(("runs", "expected"), _vectors())
def test_the_vectors_of_the_resident_hash(runs: list[str], expected: int) -> None:
    pairs = [(text.partition(":")[0], int(text.partition(":")[2])) for text in runs]
    assert sum(hash_of(*pair) for pair in pairs) % 2**64 == expected
    assert sum(run_digest(*pair) for pair in pairs) % 2**64 == expected


def _table(name: str) -> list[list[str]]:
    """The rows of the table that follows a mark in the page, without the ticks of code."""
    head, _, *rows = PAGE.split(f"<!-- {name} -->\n")[1].split("\n\n")[0].splitlines()
    cells = [[cell.strip().strip("`") for cell in row.strip("|").split(" | ")] for row in rows]
    assert rows
    assert all(len(row) == head.count("|") - 1 for row in cells)
    return cells


@pytest.mark.parametrize(("run_id", "n", "uuid", "number"), _table("chance"))
def test_the_vectors_of_chance(run_id: str, n: str, uuid: str, number: str) -> None:
    drawn = RunRandom(run_id)
    assert str(run_uuid(run_id, int(n))) == uuid
    assert [drawn.random() for _ in range(int(n) + 1)][-1] == float(number)


@pytest.mark.parametrize(("call", "text", "expected"), _table("input hashes"))
def test_the_vectors_of_the_input_hash(call: str, text: str, expected: str) -> None:
    assert canonical(json.loads(text, parse_int=float)) == text, call
    assert input_hash(json.loads(text), call).hex() == expected


@pytest.mark.parametrize(("run_id", "trace_id", "span_id"), _table("traces"))
def test_the_vectors_of_traces(run_id: str, trace_id: str, span_id: str) -> None:
    assert f"{spans.trace_id_of(run_id):032x}" == trace_id
    assert f"{spans.span_id_of(run_id):016x}" == span_id


def _reasons() -> dict[str, str]:
    """Reasons that the server makes, with a place: of its errors, of Refused, and of the failures it writes."""
    found: dict[str, str] = {}
    for path in SERVER.rglob("*.py"):
        if "cli" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            for text in _texts(node):
                if _REASON.fullmatch(text):
                    found.setdefault(text, f"{path.name}:{node.lineno}")  # pyright: ignore[reportAttributeAccessIssue]
    return found


def _texts(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name.endswith("Error") or name in ("refuse", "_refuse", "close", "fail_now", "Status"):
            return [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    if isinstance(node, ast.Dict):
        return [
            value.value
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant) and key.value == "reason"
            if isinstance(value, ast.Constant) and isinstance(value.value, str)
        ]
    return []


def test_every_reason_of_the_server_is_told() -> None:
    told = set(re.findall(r"`([A-Z][A-Z_]*[A-Z])`", PAGE))
    reasons = _reasons()
    assert len(reasons) > 40
    assert {reason: place for reason, place in reasons.items() if reason not in told} == {}


def test_every_command_and_item_is_told() -> None:
    for message in (step_pb2.Commands, step_pb2.Work):
        for field in message.DESCRIPTOR.fields:
            if field.message_type is None:
                continue
            assert f"`{field.name}`" in PAGE, field.full_name
            if message is step_pb2.Commands:
                assert f"| `{field.message_type.name}` |" in PAGE, field.full_name


def test_the_limits_are_those_of_the_server() -> None:
    for text in (
        f"{LIMITS.result_bytes // 2**20} MiB (`result_bytes`)",
        f"{LIMITS.event_bytes // 2**20} MiB (`event_bytes`)",
        f"{LIMITS.failure_bytes // 2**10} KiB (`failure_bytes`)",
        f"{LIMITS.journal_bytes // 2**20} MiB and {LIMITS.journal_steps:,} steps",
        f"{LIMITS.branches:,} (`branches`)",
        f"| key | {LIMITS.key_bytes} bytes |",
        f"{LIMITS.frame_soft_bytes // 2**10} KiB and {LIMITS.frame_items} items",
    ):
        assert text in PAGE, text


def test_every_part_of_a_flow_is_told_with_its_fields_and_bounds() -> None:
    rows = {part: (fields.replace("`", "").split(), bounds) for part, fields, bounds, _ in _table("flow")}
    flow_parts = function_pb2.Flow.DESCRIPTOR.fields
    assert list(rows) == [part.name for part in flow_parts]
    for part in flow_parts:
        fields, bounds = rows[part.name]
        assert fields == ([field.name for field in part.message_type.fields] if part.message_type else ["none"])
        if "limit" in fields:
            assert f"1 to {flow.COUNT_MAX:,}" in bounds
    assert f"at most {flow.CONCURRENCY_MAX}," in rows["concurrency"][1]
    assert f"2 to {flow.BATCH_MAX:,}" in rows["batch"][1]
    assert f"An expression has at most {flow.KEY_BYTES_MAX:,} bytes" in PAGE
    assert f"At most {flow.LABELS_MAX}; names and values are printable text of at most {flow.LABEL_BYTES_MAX}\n" in PAGE


def test_the_links_lead_somewhere() -> None:
    for name in ("proto/README.md", "docs/guide.md"):
        text = (ROOT / name).read_text()
        headings = {
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, re.M)
        }
        assert {link for link in re.findall(r"\]\(#(.*?)\)", text) if link not in headings} == set(), name


def test_the_service_config_names_what_exists() -> None:
    config = json.loads((ROOT / "proto" / "service_config.json").read_text())
    known = {
        (service.full_name, method.name)
        for module in (event_pb2, function_pb2, run_pb2, step_pb2, admin_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    named = [(name["service"], name["method"]) for entry in config["methodConfig"] for name in entry["name"]]
    assert set(named) <= known
    assert len(set(named)) == len(named)
    channel = grpc.insecure_channel("127.0.0.1:1", options=[("grpc.service_config", json.dumps(config))])
    channel.close()


# -- a session spoken by hand --------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncGenerator[Server]:
    server = Server(Settings(database="memory:", listen="127.0.0.1:0"))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def address(server: Server) -> str:
    return server.address


def json_payload(value: Any) -> common_pb2.Payload:
    return common_pb2.Payload(data=json.dumps(value).encode())


class Stranger:
    """A worker written from the page alone."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)
        self.call: Any = None
        self.welcome = step_pb2.Welcome()
        self.frames_read = 0

    async def __aenter__(self) -> Stranger:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.call is not None:
            self.call.cancel()
        await self.channel.close()

    async def hello(
        self, session_id: str = "", *residents: step_pb2.Resident, timeout_ms: int = 0, **fields: Any
    ) -> step_pb2.Welcome:
        """Says Hello, one resident a frame."""
        self.call = step_pb2_grpc.StepServiceStub(self.channel).Connect()
        retry = common_pb2.RetryPolicy(initial_ms=1)
        spec = function_pb2.FunctionSpec(name="f", retry=retry, timeout_ms=timeout_ms)
        hello = step_pb2.Hello(
            app="raw", deployment="d1", instance="i", sdk="raw", session_id=session_id, functions=[spec], capacity=10
        )
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(hello, name).extend(value)
            else:
                setattr(hello, name, value)
        for at, resident in enumerate(residents):
            hello.residents.append(resident)
            hello.more = at + 1 < len(residents)
            await self.call.write(step_pb2.ConnectRequest(hello=hello))
            hello = step_pb2.Hello()
        if not residents:
            await self.call.write(step_pb2.ConnectRequest(hello=hello))
        frame = await asyncio.wait_for(self.call.read(), _READ_S)
        self.frames_read = 1
        self.welcome = frame.welcome
        return self.welcome

    async def send(self, **lists: Any) -> None:
        commands = step_pb2.Commands(epoch=self.welcome.epoch, **lists)
        await self.call.write(step_pb2.ConnectRequest(commands=commands))

    async def work(self) -> step_pb2.Work:
        """The next frame of work that is not a pulse."""
        while True:
            frame = await asyncio.wait_for(self.call.read(), _READ_S)
            self.frames_read += 1
            if frame.work.ByteSize():
                return frame.work

    async def heartbeat(self, *runs: tuple[str, int]) -> None:
        digests = [blake2b(f"{run}:{turn}".encode(), digest_size=8).digest() for run, turn in runs]
        total = sum(int.from_bytes(digest, "big") for digest in digests) % 2**64
        beat = step_pb2.Heartbeat(
            epoch=self.welcome.epoch, residents=len(runs), resident_hash=total, frames_read=self.frames_read
        )
        await self.call.write(step_pb2.ConnectRequest(heartbeat=beat))

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ended: its code and the reason in ErrorInfo."""
        try:
            while await asyncio.wait_for(self.call.read(), _READ_S):
                pass
        except grpc.aio.AioRpcError as error:
            return error.code(), from_rpc_error(error).reason
        raise AssertionError("the stream ended well")

    async def begin(self, data: Any = None) -> step_pb2.Assign:
        """Starts a run of f and takes its assignment."""
        stub: Any = function_pb2_grpc.FunctionServiceStub(self.channel)
        await stub.Invoke(function_pb2.InvokeRequest(function_id="raw/f", input=json_payload(data)))
        return (await self.work()).assigns[0]

    async def run(self, run_id: str) -> run_pb2.Run:
        stub: Any = run_pb2_grpc.RunServiceStub(self.channel)
        return (await stub.GetRun(run_pb2.GetRunRequest(run_id=run_id))).run


def of(assign: step_pb2.Assign) -> dict[str, Any]:
    return {"run_id": assign.run_id, "turn": assign.turn}


ANY = step_pb2.AwaitTree.COMBINE_ANY


async def test_three_steps(address: str) -> None:
    async with Stranger(address) as worker:
        welcome = await worker.hello()
        assert (welcome.epoch, welcome.lease_ms, welcome.heartbeat_ms) == (1, 10_000, 2_500)
        a = await worker.begin({"n": 1})
        assert (a.event.name, a.event.id, a.event.data.data) == ("stepwell/function.invoked", a.run_id, b'{"n": 1}')
        for number, key in ((1, "a"), (2, "b")):
            await worker.send(results=[step_pb2.StepResult(**of(a), key=key, number=number, output=json_payload(key))])
            assert [ack.number for ack in (await worker.work()).acks] == [number]
        await worker.heartbeat((a.run_id, a.turn))
        await worker.send(
            results=[step_pb2.StepResult(**of(a), key="c", number=3, output=json_payload("c"))],
            completes=[step_pb2.Complete(**of(a), number=4, output=json_payload("abc"))],
        )
        assert [ack.number for ack in (await worker.work()).acks] == [4]
        await worker.heartbeat()
        run = await worker.run(a.run_id)
        assert (run.status, run.output.data) == (run_pb2.RUN_STATUS_COMPLETED, b'"abc"')


async def test_what_is_sent_again_is_recognised_on_the_next_stream(address: str) -> None:
    async with Stranger(address) as first, Stranger(address) as second:
        session = (await first.hello()).session_id
        a = await first.begin()
        result = step_pb2.StepResult(**of(a), key="a", number=1, output=json_payload(1))
        sleep = step_pb2.Sleep(**of(a), key="s", duration_ms=3_600_000)
        await first.send(results=[result], sleeps=[sleep])
        await first.work()
        stranger = step_pb2.Resident(run_id="run_" + "0" * 32, turn=1)
        welcome = await second.hello(session, step_pb2.Resident(**of(a)), stranger)
        assert (welcome.session_id, welcome.epoch) == (session, 2)
        assert [one.run_id for one in welcome.refused] == [stranger.run_id]
        assert await first.end() == (grpc.StatusCode.ABORTED, "STALE_EPOCH")
        park = step_pb2.Park(**of(a), tree=step_pb2.AwaitTree(combine=ANY, keys=["s"]))
        await second.send(results=[result], sleeps=[sleep], parks=[park])
        assert [ack.number for ack in (await second.work()).acks] == [1]
        assert (await second.run(a.run_id)).status == run_pb2.RUN_STATUS_PARKED


async def test_a_run_that_hello_does_not_name_is_assigned_anew(address: str) -> None:
    async with Stranger(address) as first, Stranger(address) as second:
        session = (await first.hello()).session_id
        a = await first.begin()
        result = step_pb2.StepResult(**of(a), key="a", number=1, output=json_payload(1))
        await first.send(results=[result], sleeps=[step_pb2.Sleep(**of(a), key="s", duration_ms=3_600_000)])
        await first.work()
        await second.hello(session)
        again = (await second.work()).assigns[0]
        assert (again.run_id, again.turn) == (a.run_id, 2)
        assert [(one.key, one.number, one.output.data) for one in again.journal] == [("a", 1, b"1")]
        assert [(one.key, one.kind) for one in again.open] == [("s", step_pb2.STEP_KIND_SLEEP)]


async def test_a_retry_of_a_step_and_of_the_function(address: str) -> None:
    async with Stranger(address) as worker:
        await worker.hello()
        a = await worker.begin()
        failure = common_pb2.Failure(type="ValueError", message="no")
        await worker.send(
            failures=[
                step_pb2.StepFailure(
                    **of(a), key="charge", attempt=1, failure=failure, retry=common_pb2.RetryPolicy(initial_ms=1)
                )
            ],
            parks=[step_pb2.Park(**of(a), tree=step_pb2.AwaitTree(combine=ANY, keys=["charge#2"]))],
        )
        (leave,) = (await worker.work()).outcomes
        assert (leave.key, leave.kind, leave.attempt, leave.number) == ("charge#2", step_pb2.STEP_KIND_RETRY, 2, 0)
        assert leave.failure.message == "no"
        await worker.send(
            delivered=[step_pb2.Delivered(**of(a), keys=[step_pb2.DeliveredKey(key="charge#2", number=1)])],
            results=[step_pb2.StepResult(**of(a), key="charge", number=2, attempt=2, output=json_payload(1))],
            fails=[step_pb2.Fail(**of(a), number=3, failure=failure, attempt=1)],
        )
        acked: list[int] = []
        again: step_pb2.Assign | None = None
        while again is None:
            work = await worker.work()
            acked += [ack.number for ack in work.acks]
            again = work.assigns[0] if work.assigns else None
        assert acked[-1] == 3
        assert again.turn == 2
        seen = [(one.key, one.number) for one in again.journal]
        assert seen == [("charge#2", 1), ("charge", 2), ("$run#2", 0)]
        await worker.send(
            delivered=[step_pb2.Delivered(**of(again), keys=[step_pb2.DeliveredKey(key="$run#2", number=3)])],
            completes=[step_pb2.Complete(**of(again), number=4, output=json_payload(2))],
        )
        assert [ack.number for ack in (await worker.work()).acks] == [4]


async def test_a_cancel_is_numbered_and_ends_as_cancelled(address: str) -> None:
    async with Stranger(address) as worker:
        await worker.hello()
        a = await worker.begin()
        stub: Any = run_pb2_grpc.RunServiceStub(worker.channel)
        await stub.CancelRun(run_pb2.CancelRunRequest(run_id=a.run_id))
        assert [one.run_id for one in (await worker.work()).cancels] == [a.run_id]
        await worker.send(
            delivered=[step_pb2.Delivered(**of(a), keys=[step_pb2.DeliveredKey(key="$cancel", number=1)])],
            cancelled=[step_pb2.Cancelled(**of(a), number=2)],
        )
        assert [ack.number for ack in (await worker.work()).acks] == [2]
        assert (await worker.run(a.run_id)).status == run_pb2.RUN_STATUS_CANCELLED


async def test_a_time_out_is_told_like_a_cancel_with_its_reason(address: str) -> None:
    async with Stranger(address) as first:
        await first.hello(timeout_ms=300)
        a = await first.begin()
        (cancel,) = (await first.work()).cancels
        assert (cancel.run_id, cancel.turn, cancel.failure.reason) == (a.run_id, 1, "TIMED_OUT")
        assert cancel.failure.message == "the run had not ended 300ms after its start (timeout)"
    async with Stranger(address) as second:  # the first is gone before its code has seen that
        await second.hello(timeout_ms=300)
        (again,) = (await second.work()).assigns
        assert (again.run_id, again.turn, again.cancelled) == (a.run_id, 2, True)
        assert again.cancel_failure == cancel.failure
        await second.send(
            delivered=[step_pb2.Delivered(**of(again), keys=[step_pb2.DeliveredKey(key="$cancel", number=1)])],
            cancelled=[step_pb2.Cancelled(**of(again), number=2)],
        )
        assert [ack.number for ack in (await second.work()).acks] == [2]
        run = await second.run(a.run_id)
        assert (run.status, run.failure) == (run_pb2.RUN_STATUS_TIMED_OUT, cancel.failure)


async def test_a_completion_that_was_on_its_way_is_kept(address: str) -> None:
    async with Stranger(address) as worker:
        await worker.hello(timeout_ms=300)
        a = await worker.begin()
        assert (await worker.work()).cancels
        await worker.send(completes=[step_pb2.Complete(**of(a), number=1, output=json_payload(7))])
        assert [ack.number for ack in (await worker.work()).acks] == [1]
        assert (await worker.run(a.run_id)).status == run_pb2.RUN_STATUS_COMPLETED


async def test_a_server_that_leaves_says_drain_and_takes_nothing_new(server: Server) -> None:
    async with Stranger(server.address) as worker, Stranger(server.address) as late:
        await worker.hello()
        a = await worker.begin()
        draining = asyncio.ensure_future(server.drain())
        frame = await asyncio.wait_for(worker.call.read(), _READ_S)
        assert frame.drain.reconnect_after_ms >= server.node.tuning.drain_ms
        assert frame.drain.reason
        await worker.send(completes=[step_pb2.Complete(**of(a), number=1, output=json_payload(1))])
        assert [ack.number for ack in (await worker.work()).acks] == [1], "what is on its way is finished"
        await draining
        functions: Any = function_pb2_grpc.FunctionServiceStub(worker.channel)
        events: Any = event_pb2_grpc.EventServiceStub(worker.channel)
        for call, request in (
            (functions.Invoke, function_pb2.InvokeRequest(function_id="raw/f")),
            (events.SendEvents, event_pb2.SendEventsRequest(events=[event_pb2.NewEvent(name="a")])),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(request)
            error = from_rpc_error(refused.value)
            assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
            assert error.retry_after_s is not None
        with pytest.raises(grpc.aio.AioRpcError):
            await late.hello()
        assert await late.end() == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
        assert (await worker.run(a.run_id)).status == run_pb2.RUN_STATUS_COMPLETED, "what is, can still be asked for"


def _bad(name: str, a: step_pb2.Assign) -> dict[str, Any]:
    sleep, number = step_pb2.Sleep, step_pb2.DeliveredKey
    return {
        "turn": {"sleeps": [sleep(run_id=a.run_id, turn=9, key="s", duration_ms=1)]},
        "gap": {"results": [step_pb2.StepResult(**of(a), key="a", number=2)]},
        "own": {"sleeps": [sleep(**of(a), key="$s", duration_ms=1)]},
        "unsent": {"delivered": [step_pb2.Delivered(**of(a), keys=[number(key="x", number=1)])]},
        "park": {"parks": [step_pb2.Park(**of(a), tree=step_pb2.AwaitTree(combine=ANY, keys=["x"]))]},
        "long key": {"sleeps": [sleep(**of(a), key="k" * 129, duration_ms=1)]},
        "no key": {"sleeps": [sleep(**of(a), duration_ms=1)]},
        "control": {"sleeps": [sleep(**of(a), key="a\1", duration_ms=1)]},
        "large": {
            "results": [step_pb2.StepResult(**of(a), key="a", number=1, output={"data": b"1" * (2**21 + 1)})],
        },
    }[name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("turn", "NOT_RESIDENT"),
        ("gap", "OUT_OF_ORDER"),
        ("own", "BAD_COMMAND"),
        ("unsent", "BAD_COMMAND"),
        ("park", "BAD_PARK"),
        ("long key", "TOO_LARGE"),
        ("no key", "MISSING_FIELD"),
        ("control", "BAD_TEXT"),
        ("large", "TOO_LARGE"),
    ],
)
async def test_a_bad_command_is_refused_by_name(address: str, name: str, reason: str) -> None:
    async with Stranger(address) as worker:
        await worker.hello()
        a = await worker.begin()
        await worker.send(**_bad(name, a))
        work = await worker.work()
        assert [one.reason for one in work.refused] == [reason]
        assert [one.run_id for one in work.evicts] == ([] if reason == "NOT_RESIDENT" else [a.run_id])


async def test_a_bad_hello_ends_the_stream(address: str) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"app": "not a name"}, "BAD_NAME"),
        ({"deployment": ""}, "BAD_NAME"),
        ({"capacity": 100_001}, "BAD_CAPACITY"),
        ({"environment": "nowhere"}, "ENVIRONMENT_NOT_FOUND"),
    )
    for fields, expected in cases:
        async with Stranger(address) as worker:
            with pytest.raises(grpc.aio.AioRpcError):
                await worker.hello(**fields)
            assert await worker.end() == (grpc.StatusCode.INVALID_ARGUMENT, expected)


async def test_capabilities_are_named_and_unknown_ones_ignored(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Stranger(address) as worker:
        welcome = await worker.hello(capabilities=["telepathy"])
        assert list(welcome.capabilities) == ["flow", "timeouts"]
    monkeypatch.setattr(sessions, "NEEDED", frozenset({"patience", "timeouts"}))
    async with Stranger(address) as worker:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await worker.hello(capabilities=["timeouts"])
        error = from_rpc_error(refused.value)
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CAPABILITY_MISSING")
        assert "patience" in error.message
        assert "timeouts" not in error.message
    async with Stranger(address) as worker:
        assert await worker.hello(capabilities=["timeouts", "patience"])


async def test_hello_is_bounded(address: str) -> None:
    resident = step_pb2.Resident(run_id="run_" + "0" * 32, turn=1)
    schema = function_pb2.FunctionSpec(name="g", input_schema=b'"' + b"x" * 900_000 + b'"')
    for hello, reason in (
        (step_pb2.Hello(functions=[schema] * 5), "TOO_LARGE"),
        (step_pb2.Hello(residents=[step_pb2.Resident(run_id="x" * 200)]), "TOO_LARGE"),
        (step_pb2.Hello(residents=[resident] * 50_000, more=True), "TOO_MANY"),
    ):
        async with Stranger(address) as worker:
            worker.call = step_pb2_grpc.StepServiceStub(worker.channel).Connect()
            hello.app, hello.deployment = "raw", "d1"
            for _ in range(4 if hello.more else 1):
                await worker.call.write(step_pb2.ConnectRequest(hello=hello))
            assert await worker.end() == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    async with Stranger(address) as worker:
        welcome = await worker.hello("", *[resident] * 3)
        assert [one.run_id for one in welcome.refused] == [resident.run_id] * 3, "one that fits is answered"


async def test_two_heartbeats_that_differ_end_the_stream(address: str) -> None:
    async with Stranger(address) as worker:
        await worker.hello()
        await worker.heartbeat(("run_" + "0" * 32, 1))
        await worker.heartbeat(("run_" + "0" * 32, 1))
        assert await worker.end() == (grpc.StatusCode.FAILED_PRECONDITION, "RESIDENTS_DIFFER")


async def test_a_heartbeat_may_cross_the_acknowledgement_of_an_end(address: str) -> None:
    async with Stranger(address) as worker:
        await worker.hello()
        a = await worker.begin()
        await worker.send(completes=[step_pb2.Complete(**of(a), number=1, output=json_payload(1))])
        while (await worker.run(a.run_id)).status != run_pb2.RUN_STATUS_COMPLETED:
            pass
        for _ in range(3):
            await worker.heartbeat((a.run_id, a.turn))  # the acknowledgement is there, and not read yet
        assert [ack.number for ack in (await worker.work()).acks] == [1]
        await worker.heartbeat()
        assert (await worker.begin()).turn == 1
