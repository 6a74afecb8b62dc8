"""A worker that keeps to no rule: its frames change nothing, each is answered by name, and others are served on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import Any

import grpc
import pytest
from stepwell.client import Client
from stepwell.v1 import step_pb2
from stepwell.values import RunStatus

from tests.e2e.conftest import STORES, Databases
from tests.e2e.raw_worker import WAIT_S, RawWorker, Told, told
from tests.support.servers import Server, ended, reached

Place = tuple[Client, str]


@pytest.fixture(scope="module", params=STORES)
def place(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Place]:
    folder = tmp_path_factory.mktemp(f"hostile-{request.param}")
    with Server(databases(request.param, folder), folder) as server:
        yield server.client(), server.address
        assert "Traceback" not in server.text()


@pytest.fixture
def raw(place: Place, request: pytest.FixtureRequest) -> Generator[RawWorker]:
    """A worker of an app of its own, welcomed."""
    with RawWorker(place[1], f"hostile-{abs(hash(request.node.name))}") as worker:
        worker.hello()
        yield worker


@pytest.fixture(autouse=True)
def others_are_served(place: Place) -> Generator[None]:
    """Whatever a test does, another worker's run completes after it."""
    yield
    client, address = place
    with RawWorker(address, "innocent") as worker:
        worker.hello()
        run = assigned(client, worker)
        worker.commands(completes=[command(run, number=1, output={"data": b"1"})])
        assert ended(client, run.run_id).output == 1


def assigned(client: Client, raw: RawWorker) -> step_pb2.Assign:
    """A run that this worker holds."""
    handle = client.start(f"{raw.app}/f", {"a": 1})
    return raw.work("assigns", lambda assign: assign.run_id == handle.run_id)


def command(run: step_pb2.Assign, **given: Any) -> dict[str, Any]:
    return {"run_id": run.run_id, "turn": run.turn, **given}


def result(run: step_pb2.Assign, key: str, number: int, **given: Any) -> dict[str, Any]:
    return command(run, key=key, number=number, **{"output": {"data": b"1"}, **given})


def park(run: step_pb2.Assign, *keys: str, **given: Any) -> dict[str, Any]:
    return command(run, tree={"combine": 1, "keys": keys}, **given)


def refused(client: Client, raw: RawWorker, run: step_pb2.Assign, reason: str, journal: list[str]) -> None:
    """The frame is refused by name, nothing of it is kept, and the run goes on in its next turn."""
    answer = raw.work("refused", lambda one: one.run_id == run.run_id)
    assert (answer.turn, answer.reason) == (run.turn, reason), answer
    assert answer.message
    again = raw.work("assigns", lambda assign: assign.run_id == run.run_id)
    assert again.turn == run.turn + 1
    kept = [entry.key for entry in client.journal(run.run_id)]
    assert kept == journal
    number = len([one for one in again.journal if one.number]) + 1
    raw.commands(completes=[command(again, number=number, output={"data": b"7"})])
    assert raw.work("acks", lambda ack: ack.run_id == run.run_id and ack.turn == again.turn)
    assert ended(client, run.run_id).output == 7


# --- keys that come twice, or mean two things ---


def test_a_second_result_of_a_key_is_refused(place: Place, raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    raw.commands(results=[result(run, "k", 1)])
    raw.work("acks")
    raw.commands(results=[result(run, "k", 2, output={"data": b"2"})])
    refused(place[0], raw, run, "BAD_COMMAND", ["k"])
    assert [one.output for one in place[0].journal(run.run_id)] == [1]


def test_a_key_that_comes_twice_in_a_frame_is_refused(place: Place, raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    raw.commands(results=[result(run, "k", 1), result(run, "k", 2)])
    refused(place[0], raw, run, "BAD_COMMAND", [])


@pytest.mark.parametrize(
    ("what", "given"),
    [
        ("sleeps", {"duration_ms": 3_600_000}),
        ("waits", {"event": "never/comes"}),
        ("invokes", {"function_id": "nobody-serves/f"}),
        ("sends", {"events": [{"name": "somebody/else"}]}),
    ],
)
def test_a_result_for_a_key_of_another_kind_is_refused(
    place: Place, raw: RawWorker, what: str, given: dict[str, Any]
) -> None:
    run = assigned(place[0], raw)
    raw.commands(**{what: [command(run, key="k", **given)]})
    reached(place[0], run.run_id, lambda _: bool(place[0].journal(run.run_id)))
    raw.commands(results=[result(run, "k", 1)])
    refused(place[0], raw, run, "BAD_COMMAND", ["k"])


@pytest.mark.parametrize(
    ("what", "given"),
    [
        ("sleeps", {"duration_ms": 1}),
        ("waits", {"event": "some/thing"}),
        ("invokes", {"function_id": "some/body"}),
        ("sends", {"events": [{"name": "somebody/else"}]}),
        ("failures", {"failure": {"type": "E"}}),
    ],
)
def test_what_begins_a_key_that_has_its_outcome_changes_nothing(
    place: Place, raw: RawWorker, what: str, given: dict[str, Any]
) -> None:
    """It may have been sent again; but nothing could wake a run that waits for such a key."""
    run = assigned(place[0], raw)
    raw.commands(results=[result(run, "k", 1)])
    raw.work("acks")
    raw.commands(**{what: [command(run, key="k", **given)]}, results=[result(run, "l", 2)])
    assert raw.work("acks").number == 2
    assert [(one.key, one.output) for one in place[0].journal(run.run_id)] == [("k", 1), ("l", 1)]
    raw.commands(parks=[park(run, "k")])
    refused(place[0], raw, run, "BAD_PARK", ["k", "l"])


# --- numbers ---


@pytest.mark.parametrize("number", [0, 2, 3, 2**32, 2**63, 2**64 - 1])
def test_a_number_that_is_not_the_next_one_is_refused(place: Place, raw: RawWorker, number: int) -> None:
    run = assigned(place[0], raw)
    raw.commands(results=[result(run, "k", number)])
    refused(place[0], raw, run, "MISSING_FIELD" if number == 0 else "OUT_OF_ORDER", [])


def test_numbers_that_leave_a_gap_in_a_frame_are_refused_whole(place: Place, raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    raw.commands(results=[result(run, "a", 1), result(run, "b", 3)])
    refused(place[0], raw, run, "OUT_OF_ORDER", [])


def test_one_number_for_two_results_is_refused(place: Place, raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    raw.commands(results=[result(run, "a", 1), result(run, "b", 1)])
    refused(place[0], raw, run, "OUT_OF_ORDER", [])


@pytest.mark.parametrize("what", ["completes", "fails", "delivered"])
def test_an_end_or_a_delivery_without_a_number_is_refused(place: Place, raw: RawWorker, what: str) -> None:
    run = assigned(place[0], raw)
    given: dict[str, Any] = {"keys": [{"key": "k"}]} if what == "delivered" else {}
    raw.commands(**{what: [command(run, **given)]})
    refused(place[0], raw, run, "MISSING_FIELD", [])


# --- ends ---


@pytest.mark.parametrize("second", ["completes", "fails"])
def test_a_run_ends_once_in_a_frame(place: Place, raw: RawWorker, second: str) -> None:
    run = assigned(place[0], raw)
    frame: dict[str, list[Any]] = {"completes": [command(run, number=1, output={"data": b"1"})]}
    frame.setdefault(second, []).append(command(run, number=2))
    raw.commands(**frame)
    refused(place[0], raw, run, "BAD_COMMAND", [])


@pytest.mark.parametrize(
    ("first", "second"), [("mismatches", "completes"), ("mismatches", "releases"), ("completes", "releases")]
)
def test_a_run_that_ends_or_does_not_fit_does_nothing_else_in_the_frame(
    place: Place, raw: RawWorker, first: str, second: str
) -> None:
    run = assigned(place[0], raw)
    given = {
        "mismatches": command(run, key="k", recorded="a", attempted="b"),
        "completes": command(run, number=1, output={"data": b"1"}),
        "releases": command(run),
    }
    raw.commands(**{name: [given[name]] for name in (first, second)})
    refused(place[0], raw, run, "BAD_COMMAND", [])


def test_nothing_is_written_for_a_run_after_its_end(place: Place, raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    raw.commands(completes=[command(run, number=1, output={"data": b"1"})])
    raw.commands(results=[result(run, "late", 2)])
    raw.commands(sleeps=[command(run, key="later", duration_ms=1)])
    assert raw.work("acks").number == 1
    assert ended(place[0], run.run_id).output == 1
    finish = assigned(place[0], raw)  # by now the frames before it have been applied
    raw.commands(completes=[command(finish, number=1)])
    ended(place[0], finish.run_id)
    assert place[0].journal(run.run_id) == []


# --- what is the server's own ---


@pytest.mark.parametrize("key", ["$grace", "$cancel", "$ask", "$run"])
def test_keys_of_the_server_cannot_be_given_up(place: Place, raw: RawWorker, key: str) -> None:
    """A worker that gave its grace up could live on for ever after a cancel."""
    client = place[0]
    run = assigned(client, raw)
    client.cancel_run(run.run_id)
    raw.work("cancels")
    raw.commands(abandons=[command(run, key=key)])
    answer = raw.work("refused")
    assert (answer.run_id, answer.reason) == (run.run_id, "BAD_COMMAND")
    again = raw.work("assigns", lambda assign: assign.run_id == run.run_id)
    assert again.cancelled
    raw.commands(
        delivered=[command(again, keys=[{"key": "$cancel", "number": 1}])], cancelled=[command(again, number=2)]
    )
    assert ended(client, run.run_id).status is RunStatus.CANCELLED


def test_a_cancelled_run_cannot_park_on_its_grace(place: Place, raw: RawWorker) -> None:
    client = place[0]
    run = assigned(client, raw)
    client.cancel_run(run.run_id)
    raw.work("cancels")
    raw.commands(parks=[park(run, "$grace")])
    assert raw.work("refused").reason == "BAD_PARK"


# --- order in a frame ---


def test_a_park_on_a_key_that_the_same_frame_gives_up_is_refused(place: Place, raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    raw.commands(
        sleeps=[command(run, key="k", duration_ms=3_600_000)], abandons=[command(run, key="k")], parks=[park(run, "k")]
    )
    refused(place[0], raw, run, "BAD_PARK", [])


@pytest.mark.parametrize(
    "tree",
    [
        None,
        {},
        {"combine": 1},
        {"combine": 0, "keys": ["k"]},
        {"combine": 7, "keys": ["k"]},
        {"combine": 1, "parts": [{"combine": 7, "keys": ["k"]}]},
    ],
)
def test_a_park_on_nothing_or_in_no_known_way_is_refused(
    place: Place, raw: RawWorker, tree: dict[str, Any] | None
) -> None:
    run = assigned(place[0], raw)
    sleeping = {"sleeps": [command(run, key="k", duration_ms=50)]}
    raw.commands(**sleeping, parks=[command(run, **({} if tree is None else {"tree": tree}))])
    refused(place[0], raw, run, "BAD_PARK", [])


def test_a_journal_has_an_end(place: Place, raw: RawWorker) -> None:
    """The limit is the server's, whatever the worker was told."""
    run = assigned(place[0], raw)
    for first in range(1, 10_002, 1_000):
        last = min(first + 1_000, 10_002)
        raw.commands(results=[result(run, f"k{number}", number, output={}) for number in range(first, last)])
    raw.work("evicts", lambda one: one.run_id == run.run_id)
    failed = ended(place[0], run.run_id)
    assert failed.status is RunStatus.FAILED
    assert failed.failure is not None
    assert failed.failure.reason == "JOURNAL_FULL"


def test_a_run_has_an_end_of_open_keys(place: Place, raw: RawWorker) -> None:
    run = assigned(place[0], raw)
    raw.commands(sleeps=[command(run, key=f"k{number}", duration_ms=3_600_000) for number in range(1_001)])
    outcome = raw.work("outcomes")
    assert (outcome.key, outcome.failure.reason) == ("k1000", "TOO_MANY")
    raw.commands(delivered=[command(run, keys=[{"key": "k1000", "number": 1}])])
    raw.commands(completes=[command(run, number=2, output={"data": b"7"})])
    assert ended(place[0], run.run_id).output == 7


def test_h34_a_long_journal_travels_in_parts(place: Place, raw: RawWorker) -> None:
    """Frames of the server are bounded, whatever the worker stored."""
    client, address = place
    run = assigned(client, raw)
    output = {"data": b'"' + b"x" * 20_000 + b'"'}
    for first in range(1, 301, 100):
        raw.commands(
            results=[result(run, f"k{n}", n, output=output if n % 10 == 0 else {}) for n in range(first, first + 100)]
        )
    raw.work("acks", lambda ack: ack.number == 300)
    raw.close()
    with RawWorker(address, raw.app) as other:
        other.hello()
        sizes, keys, parts = list[int](), list[str](), 0
        more = True
        while more:
            frame = other.frame()
            sizes.append(frame.ByteSize())
            for part in (*frame.work.assigns, *frame.work.journal_parts):
                assert part.run_id == run.run_id
                keys += [one.key for one in part.journal]
                more = part.more
                parts += 1
        assert keys == [f"k{n}" for n in range(1, 301)]
        assert max(sizes) < 64 * 1024 + 20_000
        assert parts >= 10
        other.commands(
            completes=[{"run_id": run.run_id, "turn": run.turn + 1, "number": 301, "output": {"data": b"7"}}]
        )
        assert ended(client, run.run_id).output == 7


# --- bytes that are no frame ---


class Bytes:
    """A stream that carries any bytes."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._out: queue.Queue[bytes | None] = queue.Queue()
        call: Any = self._channel.stream_stream("/stepwell.v1.StepService/Connect")
        self._call = call(iter(self._out.get, None))
        self._end: queue.Queue[Told] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for _ in self._call:
                pass
        except grpc.RpcError as error:
            self._end.put(told(error))

    def send(self, data: bytes) -> None:
        self._out.put(data)

    def ended(self) -> Told:
        answer = self._end.get(timeout=WAIT_S)
        self._out.put(None)
        self._channel.close()
        return answer


def hello(app: str) -> bytes:
    frame = step_pb2.ConnectRequest(hello=step_pb2.Hello(app=app, deployment="d", capacity=1))
    return frame.SerializeToString()


TRUNCATED = b"\x0a\x05\x12\x03\xf0\x9f\x98"  # a Hello whose app has three of the four bytes of a character


CALLS = ["EventService/SendEvents", "RunService/GetRun", "FunctionService/Invoke", "AdminService/GetServerInfo"]


@pytest.mark.parametrize("call", CALLS)
def test_bytes_that_are_no_request_get_a_typed_error(place: Place, call: str) -> None:
    with grpc.insecure_channel(place[1]) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(f"/stepwell.v1.{call}")(b"\xff", timeout=WAIT_S)
    assert told(raised.value)[:2] == ("INVALID_ARGUMENT", "BAD_MESSAGE")


@pytest.mark.parametrize("call", ["EventService/WatchEvents", "RunService/WatchRun"])
def test_bytes_that_are_no_request_of_a_stream_get_a_typed_error(place: Place, call: str) -> None:
    with grpc.insecure_channel(place[1]) as channel, pytest.raises(grpc.RpcError) as raised:
        list(channel.unary_stream(f"/stepwell.v1.{call}")(b"\xff", timeout=WAIT_S))
    assert told(raised.value)[:2] == ("INVALID_ARGUMENT", "BAD_MESSAGE")


@pytest.mark.parametrize("data", [b"\xff", b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", TRUNCATED, b"\0" * 100])
@pytest.mark.parametrize("welcomed", [False, True])
def test_bytes_that_are_no_frame_end_the_stream_with_a_typed_error(place: Place, data: bytes, welcomed: bool) -> None:
    stream = Bytes(place[1])
    if welcomed:
        stream.send(hello("bytes"))
    stream.send(data)
    answer = stream.ended()
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_MESSAGE"), answer
