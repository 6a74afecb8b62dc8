"""Frames written by hand, wrong in every way: each is refused by name, and the run that it names goes on."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest
from stepwell.client import Client
from stepwell.v1 import function_pb2, step_pb2
from stepwell.values import RunStatus

from tests.e2e.conftest import STORES, Databases
from tests.e2e.raw_worker import RawWorker
from tests.support.servers import Server, ended

NOBODY = f"run_{'0' * 32}"
LONG = 367 * 86_400_000


@pytest.fixture(scope="module", params=STORES)
def place(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[Client, str]]:
    """A server that has no worker but those of the tests: a client, and its address."""
    folder = tmp_path_factory.mktemp(f"frames-{request.param}")
    with Server(databases(request.param, folder), folder) as server:
        yield server.client(), server.address
        assert "Traceback" not in server.text()


@pytest.fixture
def raw(place: tuple[Client, str], request: pytest.FixtureRequest) -> Generator[RawWorker]:
    """A worker of an app of its own, welcomed."""
    with RawWorker(place[1], f"raw-{abs(hash(request.node.name))}") as worker:
        worker.hello()
        yield worker


def assigned(client: Client, raw: RawWorker) -> step_pb2.Assign:
    """A run that this worker holds."""
    handle = client.start(f"{raw.app}/f", {"a": 1})
    return raw.work("assigns", lambda assign: assign.run_id == handle.run_id)


def finish(client: Client, raw: RawWorker, run: step_pb2.Assign, number: int = 1) -> None:
    """Completes a run: it was not harmed."""
    raw.commands(completes=[{"run_id": run.run_id, "turn": run.turn, "number": number, "output": {"data": b"7"}}])
    assert raw.work("acks", lambda ack: ack.run_id == run.run_id and ack.number == number)
    assert ended(client, run.run_id).output == 7


def finish_elsewhere(client: Client, raw: RawWorker, run: step_pb2.Assign) -> None:
    """Completes a run that was taken away for a bad command, in its next turn: nothing of the command was written."""
    again = raw.work("assigns", lambda assign: assign.run_id == run.run_id)
    assert again.turn == run.turn + 1
    assert not again.journal
    assert not again.open
    finish(client, raw, again)


# --- registration ---


def spec(name: str = "f", **given: Any) -> function_pb2.FunctionSpec:
    return function_pb2.FunctionSpec(name=name, **given)


def on(event: str, condition: str = "") -> dict[str, Any]:
    return {"triggers": [{"event": event, "condition": condition}]}


HELLOS: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    ("CEL that is none", {"functions": [spec(**on("a", "event.data.x >"))]}, "BAD_EXPRESSION", ("/f", "if")),
    ("CEL of an unknown name", {"functions": [spec(**on("a", "nothing.x == 1"))]}, "BAD_EXPRESSION", ("/f", "if")),
    ("CEL that is no condition", {"functions": [spec(**on("a", "1 + 1"))]}, "BAD_EXPRESSION", ("/f", "if")),
    ("a pattern that is none", {"functions": [spec(**on("a", "event.name.matches('(')"))]}, "BAD_EXPRESSION", ("if",)),
    ("an unknown jitter", {"functions": [spec(retry={"jitter": 9})]}, "BAD_RETRY", ("/f", "jitter")),
    ("a schema that is a list", {"functions": [spec(input_schema=b"[]")]}, "BAD_SCHEMA", ("/f", "input_schema")),
    ("a schema that is a number", {"functions": [spec(output_schema=b"1")]}, "BAD_SCHEMA", ("/f", "output_schema")),
    ("CEL with NUL", {"functions": [spec(**on("a", "event.data.x == '\0'"))]}, "BAD_EXPRESSION", ("/f", "if")),
    ("CEL too long", {"functions": [spec(**on("a", "true || " * 1_000 + "true"))]}, "BAD_EXPRESSION", ("/f", "if")),
    ("no event", {"functions": [spec(**on(""))]}, "BAD_TRIGGER", ("/f", "on")),
    ("a wildcard in the middle", {"functions": [spec(**on("a/*/b"))]}, "BAD_TRIGGER", ("/f", "on")),
    ("an event with NUL", {"functions": [spec(**on("a\0"))]}, "BAD_TRIGGER", ("/f", "on")),
    ("a reserved event", {"functions": [spec(**on("stepwell/x"))]}, "RESERVED_NAME", ("/f", "on")),
    ("eleven triggers", {"functions": [spec(triggers=[{"event": f"e{n}"} for n in range(11)])]}, "TOO_MANY", ("/f",)),
    ("a delay too long", {"functions": [spec(retry={"initial_ms": LONG})]}, "BAD_RETRY", ("/f", "retry")),
    ("too many attempts", {"functions": [spec(retry={"max_attempts": 101})]}, "BAD_RETRY", ("/f", "max_attempts")),
    ("a factor below one", {"functions": [spec(retry={"factor": 0.5})]}, "BAD_RETRY", ("/f", "factor")),
    ("a factor that is no number", {"functions": [spec(retry={"factor": float("nan")})]}, "BAD_RETRY", ("factor",)),
    ("a time-out too long", {"functions": [spec(timeout_ms=LONG)]}, "BAD_TIMEOUT", ("/f", "timeout")),
    ("a start too late", {"functions": [spec(start_timeout_ms=2**64 - 1)]}, "BAD_TIMEOUT", ("/f", "start_timeout")),
    ("two functions of one id", {"functions": [spec(), spec("g"), spec()]}, "DUPLICATE_FUNCTION", ("/f", "twice")),
    ("a schema that is no JSON", {"functions": [spec(input_schema=b"{")]}, "BAD_SCHEMA", ("/f", "input_schema")),
    (
        "a schema that is none",
        {"functions": [spec(input_schema=b'{"type":"txt"}')]},
        "BAD_SCHEMA",
        ("/f", "input_schema", ".type"),
    ),
    (
        "a schema from elsewhere",
        {"functions": [spec(output_schema=b'{"$ref":"http://127.0.0.1:1/"}')]},
        "BAD_SCHEMA",
        ("/f", "output_schema", "$ref"),
    ),
    (
        "a schema too large",
        {"functions": [spec(input_schema=b'"' + b"x" * 262_144 + b'"')]},
        "TOO_LARGE",
        ("/f", "input_schema"),
    ),
    (
        "a trigger's schema",
        {"functions": [spec(triggers=[{"event": "a", "schema": b"[]"}])]},
        "BAD_SCHEMA",
        ("/f", "on a"),
    ),
    ("a function's name", {"functions": [spec("a/b")]}, "BAD_NAME", ("functions.name",)),
    ("a function's name with NUL", {"functions": [spec("a\0")]}, "BAD_NAME", ("functions.name",)),
    ("a function without a name", {"functions": [spec("")]}, "BAD_NAME", ("functions.name",)),
    ("an app's name", {"app": "a b"}, "BAD_NAME", ("app",)),
    ("an app without a name", {"app": ""}, "BAD_NAME", ("app",)),
    ("a deployment with NUL", {"deployment": "a\0"}, "BAD_NAME", ("deployment",)),
    ("no deployment", {"deployment": ""}, "BAD_NAME", ("deployment",)),
    ("an instance with NUL", {"instance": "a\0"}, "BAD_TEXT", ("instance",)),
    ("a capacity too large", {"capacity": 2**32 - 1}, "BAD_CAPACITY", ("capacity",)),
    ("an environment", {"environment": "nowhere"}, "ENVIRONMENT_NOT_FOUND", ("nowhere",)),
]


@pytest.mark.parametrize(("hello", "reason", "named"), [case[1:] for case in HELLOS], ids=[case[0] for case in HELLOS])
def test_a_bad_registration_is_refused_by_function_and_option(
    place: tuple[Client, str], hello: dict[str, Any], reason: str, named: tuple[str, ...]
) -> None:
    client, address = place
    with RawWorker(address, "refused") as raw:
        answer = raw.refused_hello(**hello)
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", reason), answer
    for name in named:
        assert name in answer.message + " ".join(answer.fields)
    assert client.functions("refused") == [], "nothing changed"


# --- frames out of order ---


def test_the_first_frame_is_hello(place: tuple[Client, str]) -> None:
    for frame in ({"capacity": {"capacity": 1}}, {"commands": {"epoch": 1}}, {"goodbye": {}}):
        with RawWorker(place[1]) as raw:
            raw.send(**frame)
            answer = raw.ended()
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "HELLO_EXPECTED")


def test_hello_comes_once(raw: RawWorker) -> None:
    answer = raw.refused_hello()
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "OUT_OF_ORDER")


def test_a_capacity_out_of_range_is_named(raw: RawWorker) -> None:
    raw.send(capacity={"capacity": 100_001})
    answer = raw.ended()
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_CAPACITY")
    assert "capacity" in " ".join(answer.fields)


def test_an_unknown_frame_is_for_somebody_else(place: tuple[Client, str], raw: RawWorker) -> None:
    raw._out.put(step_pb2.ConnectRequest.FromString(b"\x9a\x06\x03abc"))  # field 99, three bytes
    finish(place[0], raw, assigned(place[0], raw))


@pytest.mark.parametrize("by", [-1, 1])
def test_h8_a_frame_of_another_epoch_ends_the_stream_and_changes_nothing(
    place: tuple[Client, str], raw: RawWorker, by: int
) -> None:
    client, address = place
    run = assigned(client, raw)
    complete = {"run_id": run.run_id, "turn": run.turn, "number": 1, "output": {"data": b"1"}}
    raw.commands(epoch=raw.welcome.epoch + by, completes=[complete])
    answer = raw.ended()
    assert (answer.code, answer.reason) == ("ABORTED", "STALE_EPOCH")
    with RawWorker(address, raw.app) as other:
        other.hello()
        again = other.work("assigns", lambda assign: assign.run_id == run.run_id)
        assert again.turn > run.turn
        finish(client, other, again)


def test_h8_a_session_that_was_taken_up_is_closed_to_its_old_stream(place: tuple[Client, str], raw: RawWorker) -> None:
    client, address = place
    run = assigned(client, raw)
    with RawWorker(address, raw.app) as other:
        held = {"run_id": run.run_id, "turn": run.turn}
        welcome = other.hello(session_id=raw.welcome.session_id, residents=[held])
        assert welcome.session_id == raw.welcome.session_id
        assert welcome.epoch == raw.welcome.epoch + 1
        assert not welcome.refused
        assert raw.ended().reason == "STALE_EPOCH"
        finish(client, other, run)


def test_h10_hello_is_the_truth_missing_runs_move_and_extra_ones_are_refused(
    place: tuple[Client, str], raw: RawWorker
) -> None:
    client, address = place
    run = assigned(client, raw)
    with RawWorker(address, raw.app) as other:
        extra = {"run_id": NOBODY, "turn": 1}
        welcome = other.hello(session_id=raw.welcome.session_id, residents=[extra])
        assert [one.run_id for one in welcome.refused] == [NOBODY]
        again = other.work("assigns", lambda assign: assign.run_id == run.run_id)
        assert again.turn == run.turn + 1
        finish(client, other, again)


def test_h10_a_heartbeat_that_names_other_runs_ends_the_stream(place: tuple[Client, str], raw: RawWorker) -> None:
    assigned(place[0], raw)
    wrong = step_pb2.Heartbeat(epoch=raw.welcome.epoch, residents=3, resident_hash=1, frames_read=raw.frames_read)
    for _ in range(2):  # one difference may be a frame under way
        raw.send(heartbeat=wrong)
    answer = raw.ended()
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "RESIDENTS_DIFFER")


# --- commands ---


def command(run: step_pb2.Assign, **given: Any) -> dict[str, Any]:
    return {"run_id": run.run_id, "turn": run.turn, **given}


COMMANDS: list[tuple[str, str, dict[str, Any], str]] = [
    ("a key with NUL", "results", {"key": "a\0b", "number": 1}, "BAD_TEXT"),
    ("no key", "results", {"key": "", "number": 1}, "MISSING_FIELD"),
    ("a key too long", "results", {"key": "k" * 129, "number": 1}, "TOO_LARGE"),
    ("a key of ours", "results", {"key": "$cancel", "number": 1}, "BAD_COMMAND"),
    ("a result too large", "results", {"key": "k", "number": 1, "output": {"data": b"x" * 2_097_153}}, "TOO_LARGE"),
    ("a sleep with a bad key", "sleeps", {"key": "\n", "duration_ms": 1}, "BAD_TEXT"),
    ("an outcome never sent", "delivered", {"keys": [{"key": "k", "number": 1}]}, "BAD_COMMAND"),
    ("a park on nothing", "parks", {"tree": {"combine": 1, "keys": ["k"]}}, "BAD_PARK"),
    ("an end nobody asked for", "cancelled", {"number": 1}, "BAD_COMMAND"),
]


@pytest.mark.parametrize(("what", "given", "reason"), [c[1:] for c in COMMANDS], ids=[c[0] for c in COMMANDS])
def test_a_bad_command_is_refused_and_its_run_goes_on_elsewhere(
    place: tuple[Client, str], raw: RawWorker, what: str, given: dict[str, Any], reason: str
) -> None:
    run = assigned(place[0], raw)
    raw.commands(**{what: [command(run, **given)]})
    refused = raw.work("refused")
    assert (refused.run_id, refused.turn, refused.reason) == (run.run_id, run.turn, reason), refused
    assert refused.message
    finish_elsewhere(place[0], raw, run)


@pytest.mark.parametrize(
    ("what", "given"),
    [
        ("results", {"key": "k", "number": 1}),
        ("sleeps", {"key": "k", "duration_ms": 1}),
        ("completes", {"number": 1}),
        ("parks", {"tree": {"keys": ["k"]}}),
        ("releases", {}),
        ("abandons", {"key": "k"}),
    ],
)
def test_a_command_for_a_run_that_is_not_held_is_refused(
    place: tuple[Client, str], raw: RawWorker, what: str, given: dict[str, Any]
) -> None:
    run = assigned(place[0], raw)
    for run_id, turn in ((NOBODY, 1), (run.run_id, run.turn + 1), ("'; drop table runs; --\0", 1)):
        raw.commands(**{what: [{"run_id": run_id, "turn": turn, **given}]})
        assert raw.work("refused").reason == "NOT_RESIDENT"
    finish(place[0], raw, run)


@pytest.mark.parametrize("size", [2_097_153, 5 * 1024 * 1024])
def test_a_result_too_large_is_refused_by_name_whoever_holds_the_run(
    place: tuple[Client, str], raw: RawWorker, size: int
) -> None:
    client, address = place
    output = {"data": b"x" * size}

    def refused(run: step_pb2.Assign, number: int) -> str:
        raw.commands(results=[command(run, key="big", number=number, output=output)])
        answer = raw.work("refused", lambda one: one.key == "big")
        assert (answer.run_id, answer.turn) == (run.run_id, run.turn)
        assert "2097152" in answer.message
        return answer.reason

    done = assigned(client, raw)
    finish(client, raw, done)
    assert refused(done, 1) == "TOO_LARGE", "the run has ended here"
    nobodys = step_pb2.Assign(run_id=NOBODY, turn=1)
    assert refused(nobodys, 1) == "TOO_LARGE", "it never was here"
    run = assigned(client, raw)
    raw.commands(results=[command(run, key="k", number=1, output={"data": b"1"})])
    assert raw.work("acks", lambda ack: ack.run_id == run.run_id).number == 1
    assert refused(run, 1) == "TOO_LARGE", "its number came before"
    again = raw.work("assigns", lambda assign: assign.run_id == run.run_id)
    assert refused(run, 2) == "TOO_LARGE", "it is here in a later turn"
    with RawWorker(address, raw.app) as other:
        other.hello()
        raw.send(capacity={"capacity": 0})
        raw.commands(releases=[command(again)])
        moved = other.work("assigns", lambda assign: assign.run_id == run.run_id)
        assert refused(again, 2) == "TOO_LARGE", "another worker has it"
        assert [one.key for one in client.journal(run.run_id)] == ["k"]
        finish(client, other, moved, 2)


def test_a_command_for_a_run_that_was_just_evicted_is_refused(place: tuple[Client, str], raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    for reason in ("BAD_TEXT", "NOT_RESIDENT"):
        raw.commands(results=[command(run, key="a\0b", number=1)])
        assert raw.work("refused").reason == reason
    finish_elsewhere(place[0], raw, run)


def test_a_number_out_of_order_moves_the_run_and_writes_nothing(place: tuple[Client, str], raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    raw.commands(results=[command(run, key="k", number=2, output={"data": b"1"})])
    assert raw.work("refused").reason == "OUT_OF_ORDER"
    finish_elsewhere(place[0], raw, run)


def test_h11_a_command_that_comes_twice_is_acknowledged_twice_and_kept_once(
    place: tuple[Client, str], raw: RawWorker
) -> None:
    run = assigned(place[0], raw)
    for value in (b"1", b"2"):
        raw.commands(results=[command(run, key="k", number=1, output={"data": value})])
        assert raw.work("acks").number == 1
    assert [(one.key, one.output) for one in place[0].journal(run.run_id)] == [("k", 1)]
    finish(place[0], raw, run, 2)
    raw.commands(completes=[command(run, number=2, output={"data": b"9"})])
    assert raw.work("acks").number == 2
    assert place[0].get_run(run.run_id).output == 7


DEEP = b"[" * 300 + b"]" * 300
STEPS: list[tuple[str, str, dict[str, Any], str]] = [
    ("a value too deep", "waits", {"event": "a", "match_path": "data.x", "match_value": DEEP}, "BAD_JSON"),
    ("an event too deep", "sends", {"events": [{"name": "a", "data": {"data": b'{"a":' + DEEP + b"}"}}]}, "BAD_JSON"),
    ("bad CEL", "waits", {"event": "a", "condition": "async."}, "BAD_EXPRESSION"),
    ("a wildcard", "waits", {"event": "a/*"}, "BAD_NAME"),
    ("an event of the server", "waits", {"event": "stepwell/a"}, "RESERVED_NAME"),
    ("a pattern that is none", "waits", {"event": "a", "condition": "async.name.matches('(')"}, "BAD_EXPRESSION"),
    ("no event", "waits", {"event": ""}, "MISSING_FIELD"),
    ("an event with NUL", "waits", {"event": "a\0"}, "BAD_TEXT"),
    ("a value that is no JSON", "waits", {"event": "a", "match_path": "data.x", "match_value": b"{"}, "BAD_JSON"),
    ("a path with NUL", "waits", {"event": "a", "match_path": "data.\0", "match_value": b"1"}, "BAD_TEXT"),
    ("a wait too long", "waits", {"event": "a", "timeout_ms": LONG}, "TOO_LONG"),
    ("a sleep too long", "sleeps", {"duration_ms": 2**64 - 1}, "TOO_LONG"),
    ("a sleep beyond all times", "sleeps", {"until_ms": 2**63 - 1}, "TOO_LONG"),
    ("an unknown function", "invokes", {"function_id": "no/body\0"}, "FUNCTION_NOT_FOUND"),
    ("a nameless event", "sends", {"events": [{"name": ""}]}, "MISSING_FIELD"),
    ("a malformed event", "sends", {"events": [{"name": "a", "data": {"data": b"{"}}]}, "BAD_JSON"),
]


def test_an_invoke_with_too_much_metadata_fails_in_the_code(place: tuple[Client, str], raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    raw.commands(invokes=[command(run, key="k", function_id=f"{raw.app}/f", metadata={"k": "v" * 9_000})])
    outcome = raw.work("outcomes")
    assert (outcome.key, outcome.failure.reason, outcome.failure.non_retriable) == ("k", "TOO_LARGE", True)
    raw.commands(delivered=[command(run, keys=[{"key": "k", "number": 1}])])
    finish(place[0], raw, run, 2)


@pytest.mark.parametrize(("what", "given", "reason"), [c[1:] for c in STEPS], ids=[c[0] for c in STEPS])
def test_a_step_that_can_never_be_right_fails_in_the_code(
    place: tuple[Client, str], raw: RawWorker, what: str, given: dict[str, Any], reason: str
) -> None:
    run = assigned(place[0], raw)
    raw.commands(**{what: [command(run, key="k", **given)]})
    outcome = raw.work("outcomes")
    assert (outcome.key, outcome.failure.reason, outcome.failure.non_retriable) == ("k", reason, True)
    raw.commands(delivered=[command(run, keys=[{"key": "k", "number": 1}])])
    finish(place[0], raw, run, 2)


EXTREMES: list[tuple[str, dict[str, Any]]] = [
    ("failures", {"key": "k", "failure": {"type": "E", "details": {"data": DEEP}}}),
    ("results", {"key": "k", "number": 1, "attempt": 2**32 - 1, "started_ms": -(2**63), "ended_ms": 2**63 - 1}),
    ("results", {"key": "k", "number": 1, "output": {"data": b"\0", "encoding": "\0"}, "input_hash": b"x" * 10_000}),
    ("failures", {"key": "k", "attempt": 2**32 - 1, "retry_after_ms": 2**64 - 1, "ended_ms": 2**63 - 1}),
    ("failures", {"key": "k", "retry_after_ms": 2**64 - 1, "retry": {"factor": float("inf"), "max_ms": 2**64 - 1}}),
    ("failures", {"key": "k", "retry": {"factor": float("nan"), "initial_ms": 2**63, "max_attempts": 2**32 - 1}}),
    ("failures", {"key": "k", "failure": {"type": "\0" * 70_000, "message": "\0", "details": {"data": b"\xff"}}}),
    ("fails", {"number": 1, "attempt": 2**32 - 1, "retry_after_ms": 2**64 - 1, "failure": {"type": "\0"}}),
    ("mismatches", {"key": "\0", "recorded": "\0" * 9, "attempted": "😀" * 100_000, "location": "\n"}),
    ("parks", {"tree": {"combine": 7, "keys": ["\0"], "parts": [{}, {"parts": [{}]}]}, "received": 2**64 - 1}),
    ("delivered", {"keys": [{"key": "\0", "number": 2**64 - 1}]}),
    ("completes", {"number": 1, "output": {"data": b"\xff\0", "encoding": "e\0"}}),
    ("completes", {"number": 2**64 - 1, "output": {"data": b"1"}}),
]


@pytest.mark.parametrize(("what", "given"), EXTREMES, ids=[f"{c[0]}-{n}" for n, c in enumerate(EXTREMES)])
def test_extreme_values_in_any_field_break_nothing(
    place: tuple[Client, str], raw: RawWorker, what: str, given: dict[str, Any]
) -> None:
    client, address = place
    run = assigned(client, raw)
    raw.commands(**{what: [command(run, **given)]})
    raw.close()
    with RawWorker(address, raw.app) as other:
        other.hello()
        finish(client, other, assigned(client, other))
        if not client.get_run(run.run_id).status.ended:
            client.cancel_run(run.run_id)
    assert client.journal(run.run_id) is not None
    assert client.get_run(run.run_id).status is not RunStatus.UNKNOWN


def test_an_oversized_frame_is_refused_and_says_the_limit(place: tuple[Client, str], raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    output = {"data": b"x" * 2_000_000}
    raw.commands(results=[command(run, key=f"k{n}", number=n, output=output) for n in (1, 2, 3)])
    answer = raw.ended()
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "TOO_LARGE")
    assert "4194304" in answer.message
    assert place[0].journal(run.run_id) == []


def test_a_frame_that_no_message_can_hold_is_refused(place: tuple[Client, str], raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    raw.commands(results=[command(run, key="k", number=1, output={"data": b"x" * 9_000_000})])
    assert raw.ended().code == "RESOURCE_EXHAUSTED"


# --- what two workers, two runs or two builds must not do to each other ---


def test_h15_a_deployment_id_stands_for_one_set_of_functions(place: tuple[Client, str], raw: RawWorker) -> None:
    with RawWorker(place[1], raw.app) as other:
        told = other.refused_hello(functions=[spec(), spec("another")])
    assert (told.code, told.reason) == ("FAILED_PRECONDITION", "DEPLOYMENT_CHANGED")
    assert raw.app in told.message


def test_h23_an_event_that_two_runs_send_under_one_id_is_one_event(place: tuple[Client, str], raw: RawWorker) -> None:
    outputs: list[bytes] = []
    for _ in range(2):
        run = assigned(place[0], raw)
        events = [{"name": f"{raw.app}/same", "id": f"{raw.app}-one"}, {"name": f"{raw.app}/plain"}]
        raw.commands(
            sends=[command(run, key="k", events=events)],
            parks=[command(run, tree={"combine": 1, "keys": ["k"]})],
        )
        outputs.append(raw.work("outcomes").output.data)
        raw.commands(delivered=[command(run, keys=[{"key": "k", "number": 1}])])
        finish(place[0], raw, run, 2)
    first, second = (json.loads(output) for output in outputs)
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert [kept.event.id for kept in place[0].list_events(name=f"{raw.app}/same")] == [first[0]]
    assert len(list(place[0].list_events(name=f"{raw.app}/plain"))) == 2


def test_h14_a_frame_that_breaks_gives_back_the_places_it_took(place: tuple[Client, str], raw: RawWorker) -> None:
    with RawWorker(place[1], f"{raw.app}b", capacity=1) as other:
        other.hello()
        run = assigned(place[0], raw)
        tree: dict[str, Any] = {"combine": 1, "keys": ["k"]}
        for _ in range(40):
            tree = {"combine": 1, "parts": [tree]}
        raw.commands(invokes=[command(run, key="k", function_id=f"{other.app}/f")], parks=[command(run, tree=tree)])
        assert raw.ended().reason == "TOO_LARGE"
        handle = place[0].start(f"{other.app}/f", None)
        child = other.work("assigns", lambda assign: assign.run_id == handle.run_id)
        finish(place[0], other, child)


def test_an_end_has_its_open_children_cancelled(place: tuple[Client, str], raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    raw.commands(invokes=[command(run, key="k", function_id=f"{raw.app}/f")])
    child = raw.work("assigns", lambda assign: assign.run_id != run.run_id)
    finish(place[0], raw, run)
    assert raw.work("cancels").run_id == child.run_id
    raw.commands(
        delivered=[command(child, keys=[{"key": "$cancel", "number": 1}])], cancelled=[command(child, number=2)]
    )
    assert ended(place[0], child.run_id).status is RunStatus.CANCELLED
