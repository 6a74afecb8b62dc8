"""A worker against a scripted server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any
from unittest import mock

import grpc
import pytest
from stepwell import App, LimitError, Step, SyncStep, bodies, connection, current_step, stream
from stepwell.api_errors import FailedPreconditionError, InvalidArgumentError
from stepwell.session import Mailbox
from stepwell.settings import WorkerSettings
from stepwell.v1 import step_pb2
from stepwell.worker import Worker

from tests.unit.sdk_worker.fake_server import FakeServer, fake_server


@asynccontextmanager
async def working(server: FakeServer, app: App, **options: Any) -> AsyncIterator[Worker]:
    """A worker that serves the app while the block runs."""
    settings = WorkerSettings.resolve(f"127.0.0.1:{server.port}", **{"deployment": "d1", "drain_s": 0.5, **options})
    worker = Worker(app, settings)
    running = asyncio.ensure_future(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait((running,), timeout=10)
        assert running.done()


async def double(number: int) -> int:
    return 2 * number


def three_steps() -> App:
    app = App("test")

    @app.function
    async def three(step: Step) -> int:
        one = await step.run(double, 1)
        two = await step.run(double, one)
        return await step.run(double, two)

    return app


async def test_a_run_goes_from_its_assignment_to_its_end() -> None:
    async with fake_server() as server, working(server, three_steps()):
        link = await server.link()
        assert link.hello[0].app == "test"
        assert [one.name for one in link.hello[0].functions] == ["three"]
        link.assign("run_1", "three")
        first = await server.command("results")
        assert (first.key, first.number, first.output.data) == ("double", 1, b"2")
        complete = await server.command("completes")
        assert (complete.number, complete.output.data) == (4, b"8")


def app_of(function: Any) -> App:
    app = App("test")
    app.function(function)
    return app


def resident_hash(run_id: str, turn: int) -> int:
    return int.from_bytes(blake2b(f"{run_id}:{turn}".encode(), digest_size=8).digest(), "big")


async def test_plain_functions_run_in_threads_and_a_lambda_may_return_a_coroutine() -> None:
    async def mixed(step: Step) -> list[Any]:
        here = threading.get_ident()
        there = await step.run(threading.get_ident)
        waited = await step.run(lambda: asyncio.sleep(0.01, "slept"), name="sleep")
        return [here == there, waited]

    async with fake_server() as server, working(server, app_of(mixed)):
        (await server.link()).assign("run_1", "mixed")
        assert (await server.command("completes")).output.data == b'[false,"slept"]'


async def test_a_body_knows_its_step_and_its_context_is_its_own() -> None:
    leak: ContextVar[int] = ContextVar("leak", default=0)

    async def body() -> list[Any]:
        leak.set(leak.get() + 1)
        step = current_step()
        assert asyncio.current_task() is not None
        return [step.run_id, step.key, step.attempt, leak.get()]

    async def twice(step: Step) -> list[Any]:
        return [await step.run(body), await step.run(body)]

    async with fake_server() as server, working(server, app_of(twice)):
        (await server.link()).assign("run_1", "twice")
        assert (await server.command("completes")).output.data == b'[["run_1","body",1,1],["run_1","body:2",1,1]]'


async def test_a_failing_body_is_reported_with_its_stack_and_parks_the_run() -> None:
    async def body() -> None:
        raise ValueError("no such thing")

    async def fails(step: Step) -> None:
        await step.run(body)

    async with fake_server() as server, working(server, app_of(fails)):
        link = await server.link()
        link.assign("run_1", "fails")
        frame = await server.frame("commands")
        (failure,) = frame.commands.failures
        assert (failure.key, failure.attempt, failure.failure.type) == ("body", 1, "ValueError")
        assert "in body" in failure.failure.stack
        assert [list(park.tree.keys) for park in frame.commands.parks] == [["body#2"]]
        retry = step_pb2.Outcome(run_id="run_1", turn=1, key="body#2", kind=step_pb2.STEP_KIND_RETRY, attempt=2)
        link.send(step_pb2.Work(outcomes=[retry]))
        assert (await server.command("failures")).attempt == 2


@pytest.mark.parametrize("kind", ["async", "sync", "exit"])
async def test_a_body_that_takes_too_long_fails_once_it_has_ended(kind: str) -> None:
    ended: list[float] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append(time.monotonic())

    def busy() -> None:
        try:
            while True:
                time.sleep(0.01)
        finally:
            time.sleep(0.1)
            ended.append(time.monotonic())

    async def leaves() -> None:
        await asyncio.sleep(0)
        ended.append(time.monotonic())
        raise SystemExit(3)

    body: Any = {"async": slow, "sync": busy, "exit": leaves}[kind]

    async def waits(step: Step) -> None:
        await step.run(body, timeout="50ms")

    async with fake_server() as server, working(server, app_of(waits)):
        (await server.link()).assign("run_1", "waits")
        failure = (await server.command("failures")).failure
        assert len(ended) == 1
        if kind == "exit":
            assert failure.type == "SystemExit"
        else:
            assert (failure.type, failure.reason) == ("StepTimeoutError", "TIMEOUT")


async def test_h39a_a_body_that_does_not_end_when_it_is_interrupted_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bodies, "STUCK_S", 0.05)
    named = threading.Event()

    def stubborn() -> None:
        while not named.is_set():
            with suppress(BaseException):
                time.sleep(0.01)

    async def waits(step: Step) -> None:
        await step.run(stubborn, timeout="50ms")

    with caplog.at_level("WARNING"):
        async with fake_server() as server, working(server, app_of(waits)):
            (await server.link()).assign("run_1", "waits")
            try:
                async with asyncio.timeout(10):
                    while "still executes" not in caplog.text:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            finally:
                named.set()
            assert (await server.command("failures")).failure.reason == "TIMEOUT"
    assert "step stubborn of run_1 was interrupted" in caplog.text
    assert "it keeps its thread" in caplog.text


async def test_h39b_plain_functions_that_wait_take_no_thread_from_bodies() -> None:
    def rests(step: SyncStep) -> None:
        step.sleep("1d")

    def works(step: SyncStep) -> int:
        return step.run(int, "7")

    app = app_of(rests)
    app.function(works)
    async with fake_server() as server, working(server, app, threads=1):
        link = await server.link()
        for number in range(10):
            link.assign(f"run_{number}", "rests")
            await server.command("parks")
        link.assign("run_10", "works")
        assert (await server.command("completes")).output.data == b"7"


async def test_an_evicted_run_is_interrupted_and_says_nothing_more() -> None:
    async def body() -> None:
        began.set()
        try:
            await asyncio.sleep(10)
        finally:
            interrupted.set()

    async def waits(step: Step) -> None:
        try:
            await step.run(body)
        finally:
            await step.run(double, 1)

    began, interrupted = asyncio.Event(), asyncio.Event()
    app = three_steps()
    app.function(waits)
    async with fake_server() as server, working(server, app):
        link = await server.link()
        link.assign("run_1", "waits")
        await began.wait()
        link.send(step_pb2.Work(evicts=[step_pb2.Evict(run_id="run_1", turn=1)]))
        await interrupted.wait()
        link.assign("run_2", "three")
        frame = await server.frame("commands")
        assert [one.run_id for one in frame.commands.results] == ["run_2"]


async def test_a_cancelled_run_unwinds_with_clean_up_steps() -> None:
    async def body() -> None:
        began.set()
        await asyncio.sleep(10)

    async def waits(step: Step) -> None:
        try:
            await step.run(body)
        finally:
            await step.run(double, 1)

    began = asyncio.Event()
    async with fake_server() as server, working(server, app_of(waits)):
        link = await server.link()
        link.assign("run_1", "waits")
        await began.wait()
        link.send(step_pb2.Work(cancels=[step_pb2.Cancel(run_id="run_1", turn=1)]))
        assert (await server.command("results")).key == "double"
        assert (await server.command("cancelled")).run_id == "run_1"


async def test_a_long_journal_arrives_in_parts_and_an_outcome_may_come_between() -> None:
    async def sleeps(step: Step) -> int:
        one = await step.run(double, 1)
        await step.sleep("1d")
        return one

    async with fake_server() as server, working(server, app_of(sleeps)):
        link = await server.link()
        link.assign("run_1", "sleeps", more=True)
        slept = step_pb2.Outcome(run_id="run_1", turn=1, key="sleep", kind=step_pb2.STEP_KIND_SLEEP, output={})
        link.send(step_pb2.Work(outcomes=[slept]))
        seen = step_pb2.Outcome(key="double", number=1, kind=step_pb2.STEP_KIND_RUN, output={"data": b"20"})
        opened = step_pb2.OpenKey(key="sleep", kind=step_pb2.STEP_KIND_SLEEP)
        part = step_pb2.JournalPart(run_id="run_1", turn=1, journal=[seen], open=[opened])
        link.send(step_pb2.Work(journal_parts=[part]))
        assert (await server.command("completes")).output.data == b"20"


async def test_blocked_user_code_does_not_stop_heartbeats() -> None:
    async def blocks(step: Step) -> None:
        time.sleep(0.5)  # noqa: ASYNC251

    async with fake_server() as server:
        server.welcome.heartbeat_ms = 50
        async with working(server, app_of(blocks)):
            (await server.link()).assign("run_1", "blocks")
            await server.command("completes")
        # This very loop, on which the worker runs its code, was blocked; the server's is the I/O thread's.
        assert server.heartbeats_before_commands >= 5


async def test_heartbeats_carry_the_residents_as_of_the_frames_read() -> None:
    async def sleeps(step: Step) -> None:
        await step.sleep("1d")

    async with fake_server() as server:
        server.welcome.heartbeat_ms = 50
        async with working(server, app_of(sleeps)):
            link = await server.link()
            link.assign("run_1", "sleeps")
            await server.command("parks")
            while (beat := (await server.frame("heartbeat")).heartbeat).residents == 0:
                pass
            assert (beat.epoch, beat.residents, beat.resident_hash) == (1, 1, resident_hash("run_1", 1))
            link.send(step_pb2.Work(evicts=[step_pb2.Evict(run_id="run_1", turn=1)]))
            while (beat := (await server.frame("heartbeat")).heartbeat).residents == 1:
                pass
            assert beat.resident_hash == 0
            assert beat.frames_read >= 3


async def test_after_a_lost_stream_residents_are_named_and_results_are_sent_again() -> None:
    async with fake_server() as server:
        server.acknowledge = False
        async with working(server, three_steps()):
            link = await server.link()
            link.assign("run_1", "three", turn=7)
            first = await server.command("results")
            server.welcome.epoch = 2
            link.send(None)
            again = await server.link()
            assert again.hello[0].session_id == "ses_1"
            assert again.residents == {"run_1": 7}
            frame = await server.frame("commands")
            assert frame.commands.epoch == 2
            assert list(frame.commands.results) == [first]
            again.send(step_pb2.Work(acks=[step_pb2.Ack(run_id="run_1", turn=7, number=1)]))
            assert (await server.command("results")).number == 2


async def test_runs_that_welcome_refuses_are_forgotten() -> None:
    async with fake_server() as server:
        server.acknowledge = False
        async with working(server, three_steps()):
            link = await server.link()
            link.assign("run_1", "three")
            await server.command("results")
            server.welcome.refused.add(run_id="run_1", turn=1)
            link.send(None)
            again = await server.link()
            again.assign("run_2", "three")
            frame = await server.frame("commands")
            assert [one.run_id for one in frame.commands.results] == ["run_2"]


async def test_a_refused_command_evicts_its_run() -> None:
    async with fake_server() as server:
        server.welcome.heartbeat_ms = 50
        server.acknowledge = False
        async with working(server, three_steps()):
            link = await server.link()
            link.assign("run_1", "three")
            await server.command("results")
            link.send(step_pb2.Work(refused=[step_pb2.Refused(run_id="run_1", turn=1, reason="NOT_RESIDENT")]))
            while (await server.frame("heartbeat")).heartbeat.residents:
                pass


async def test_silence_for_most_of_a_lease_stops_the_bodies_and_a_new_stream_is_tried_before() -> None:
    async def body() -> None:
        began.set()
        try:
            await asyncio.sleep(10)
        finally:
            interrupted.set()

    async def waits(step: Step) -> None:
        await step.run(body)

    began, interrupted = asyncio.Event(), asyncio.Event()
    async with fake_server() as server:
        server.welcome.lease_ms = 1_000
        server.welcome.heartbeat_ms = 50
        server.hang_after = 1
        async with working(server, app_of(waits)):
            link = await server.link()
            link.assign("run_1", "waits")
            await began.wait()
            at = time.monotonic()
            link.silent = True
            again = await server.link()  # this one never gets its Welcome
            assert again.residents == {"run_1": 1}
            assert not interrupted.is_set()
            await interrupted.wait()
            assert 0.6 < time.monotonic() - at < 1.0


class Clock:
    """The clock of streams, which can jump as after a freeze of the process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frozen_s = 0.0
        monkeypatch.setattr(stream, "time", self)

    def monotonic(self) -> float:
        return time.monotonic() + self.frozen_s


def counted(began: asyncio.Queue[str]) -> App:
    async def body(run: str) -> None:
        began.put_nowait(run)
        await asyncio.sleep(10)

    async def counts(step: Step) -> None:
        await step.run(body, step.run_id)

    return app_of(counts)


@pytest.mark.parametrize("where", ["in the socket", "in the mailbox"])
async def test_h12c_what_arrived_during_a_freeze_longer_than_the_lease_begins_no_body(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    clock, began = Clock(monkeypatch), asyncio.Queue[str]()
    async with fake_server() as server, working(server, counted(began)):
        link = await server.link()
        link.assign("run_1", "counts")
        assert await began.get() == "run_1"
        server.welcome.refused.add(run_id="run_1", turn=1)
        if where == "in the socket":
            clock.frozen_s = 9
            link.assign("run_2", "counts")
        else:
            arrived = threading.Event()
            put = Mailbox.put
            monkeypatch.setattr(Mailbox, "put", lambda self, item: (put(self, item), arrived.set()))
            link.assign("run_2", "counts")
            arrived.wait(10)  # nothing is applied meanwhile: this is the loop that would
            clock.frozen_s = 9
        again = await server.link()
        assert again.residents == {"run_1": 1}
        again.assign("run_3", "counts")
        assert await began.get() == "run_3"


async def test_after_a_short_freeze_what_has_arrived_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, began = Clock(monkeypatch), asyncio.Queue[str]()
    async with fake_server() as server, working(server, counted(began)):
        link = await server.link()
        clock.frozen_s = 6
        link.assign("run_1", "counts")
        assert await began.get() == "run_1"
        assert server.links.empty()


async def test_a_server_that_drains_is_left_only_for_another_stream() -> None:
    async def body() -> None:
        began.set()
        await proceed.wait()

    async def waits(step: Step) -> None:
        await step.run(body)

    began, proceed = asyncio.Event(), asyncio.Event()
    async with fake_server() as server, working(server, app_of(waits)):
        link = await server.link()
        link.assign("run_1", "waits")
        await began.wait()
        server.welcome.epoch = 2
        server.acknowledge = False
        link.send(step_pb2.Drain(reconnect_after_ms=10, reason="deploy"))
        again = await server.link()
        assert again.residents == {"run_1": 1}
        proceed.set()
        # What the worker said to the old stream before it saw the new Welcome is said again.
        while (frame := await server.frame("commands")).commands.epoch == 1:
            pass
        assert (frame.commands.epoch, frame.commands.results[0].key) == (2, "body")
        assert server.streams[:2] == ["opened", "opened"], "the old stream ends after the new one is there"


async def test_a_server_that_drains_and_is_gone_is_followed_at_once() -> None:
    async def body() -> None:
        began.set()
        await proceed.wait()

    async def waits(step: Step) -> None:
        await step.run(body)

    began, proceed = asyncio.Event(), asyncio.Event()
    async with fake_server() as server, working(server, app_of(waits)):
        link = await server.link()
        link.assign("run_1", "waits")
        await began.wait()
        link.send(step_pb2.Drain(reconnect_after_ms=600_000, reason="deploy"))
        link.send(None)
        proceed.set()  # nobody is there to hear of it
        again = await server.link()
        assert again.residents == {"run_1": 1}
        assert (await server.command("results")).key == "body"


async def test_a_wrong_registration_ends_the_worker() -> None:
    async with fake_server() as server:
        server.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "BAD_CONDITION")
        settings = WorkerSettings.resolve(f"127.0.0.1:{server.port}")
        with pytest.raises(InvalidArgumentError) as raised:
            await Worker(three_steps(), settings).run()
        assert raised.value.reason == "BAD_CONDITION"


async def test_a_server_that_would_ignore_a_time_out_is_refused_by_the_worker() -> None:
    app = App("test")

    @app.function(timeout="1h")
    async def timed(step: Step) -> None: ...

    async with fake_server() as server:
        settings = WorkerSettings.resolve(f"127.0.0.1:{server.port}")
        with pytest.raises(FailedPreconditionError) as raised:
            await Worker(app, settings).run()
        assert raised.value.reason == "CAPABILITY_MISSING"
        assert "timeouts of functions, which timed has" in raised.value.message
        server.welcome.capabilities.append("timeouts")
        async with working(server, app):
            await server.link()


async def test_what_no_server_takes_is_refused_before_it_connects() -> None:
    with pytest.raises(ValueError, match="100,000"):
        WorkerSettings.resolve(capacity=100_001)
    with pytest.raises(ValueError, match="50,000"):
        WorkerSettings.resolve(max_parked=50_001)
    app = three_steps()
    spec = app.specs()[0]
    spec.input_schema = b"x" * 4_000_000
    with mock.patch.object(app, "specs", return_value=[spec]), pytest.raises(LimitError, match="split the app"):
        Worker(app, WorkerSettings.resolve())


async def test_an_unreachable_server_is_tried_again_until_it_is_there() -> None:
    async with fake_server() as server:
        port = server.port
        await connection.io().run(server.stop())
        settings = WorkerSettings.resolve(f"127.0.0.1:{port}")
        worker = Worker(three_steps(), settings)
        running = asyncio.ensure_future(worker.run())
        await asyncio.sleep(0.2)
        await connection.io().run(server.start())
        await server.link()
        worker.stop()
        await running


async def test_h14d_the_longest_parked_runs_are_released() -> None:
    async def sleeps(step: Step) -> None:
        await step.sleep("1d")

    async with fake_server() as server, working(server, app_of(sleeps), max_parked=2):
        link = await server.link()
        for number in range(1, 4):
            link.assign(f"run_{number}", "sleeps")
        assert (await server.command("releases")).run_id == "run_1"


async def test_a_draining_worker_lets_bodies_finish_gives_parked_runs_back_and_says_goodbye() -> None:
    async def body() -> str:
        began.set()
        await proceed.wait()
        return "done"

    async def waits(step: Step) -> None:
        await step.run(body)
        await step.run(body)

    async def sleeps(step: Step) -> None:
        await step.sleep("1d")

    began, proceed = asyncio.Event(), asyncio.Event()
    app = app_of(waits)
    app.function(sleeps)
    async with fake_server() as server, working(server, app, drain_s=5.0) as worker:
        link = await server.link()
        link.assign("run_1", "waits")
        link.assign("run_2", "sleeps")
        await server.command("parks")
        await began.wait()
        worker.stop()
        assert (await server.frame("capacity")).capacity.capacity == 0
        assert (await server.command("releases")).run_id == "run_2"
        began.clear()
        proceed.set()
        assert (await server.command("results")).output.data == b'"done"'
        await server.frame("goodbye")
        assert not began.is_set(), "no body begins while draining"


async def test_halt_leaves_at_once() -> None:
    def body() -> None:
        began.set()
        while True:
            time.sleep(0.01)

    async def waits(step: Step) -> None:
        await step.run(body)

    began = threading.Event()
    async with fake_server() as server, working(server, app_of(waits), drain_s=60.0) as worker:
        (await server.link()).assign("run_1", "waits")
        await asyncio.to_thread(began.wait)
        worker.stop()
        await server.frame("capacity")
        worker.halt()
        await server.frame("goodbye")


async def test_heartbeats_of_a_new_stream_name_the_residents_while_user_code_blocks() -> None:
    async def blocks(step: Step) -> None:
        time.sleep(0.6)  # noqa: ASYNC251

    async with fake_server() as server:
        server.welcome.heartbeat_ms = 50
        server.hangup_s = 0.2
        async with working(server, app_of(blocks)):
            link = await server.link()
            link.assign("run_1", "blocks")
            assert (await server.link()).residents == {"run_1": 1}
            beats = [beat for beat in server.heartbeats if beat.frames_read == 1 and beat.residents]
            assert beats, "there were heartbeats between Welcome and its application"
            assert {(one.residents, one.resident_hash) for one in beats} == {(1, resident_hash("run_1", 1))}
            assert (await server.command("completes")).run_id == "run_1"


async def test_large_results_of_one_turn_travel_in_frames_of_their_own_also_when_sent_again() -> None:
    async def large(number: int) -> str:
        return str(number) * 100_000

    async def many(step: Step) -> int:
        return len(await asyncio.gather(*(step.run(large, number) for number in range(5))))

    async with fake_server() as server:
        server.acknowledge = False
        async with working(server, app_of(many)):
            link = await server.link()
            link.assign("run_1", "many")
            for number in range(1, 6):
                frame = await server.frame("commands")
                assert [one.number for one in frame.commands.results] == [number]
            server.welcome.epoch = 2
            link.send(None)
            await server.link()
            again = [number for _ in range(5) for number in (await server.frame("commands")).commands.results]
            assert [one.number for one in again[:5]] == [1, 2, 3, 4, 5]


async def test_parked_plain_functions_are_released_first() -> None:
    async def sleeps(step: Step) -> None:
        await step.sleep("1d")

    def rests(step: SyncStep) -> None:
        step.sleep("1d")

    app = app_of(sleeps)
    app.function(rests)
    async with fake_server() as server, working(server, app, max_parked=2):
        link = await server.link()
        for number, function in enumerate(("sleeps", "rests", "sleeps")):
            link.assign(f"run_{number}", function)
        assert (await server.command("releases")).run_id == "run_1"


async def test_server_worker_and_client_may_share_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_io", connection.IoThread(asyncio.get_running_loop()))
    async with fake_server() as server, working(server, three_steps()):
        (await server.link()).assign("run_1", "three")
        assert (await server.command("completes")).output.data == b"8"
