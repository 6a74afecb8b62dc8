"""What a worker does with runs: their code and bodies, from the assignment to the end, against a scripted server."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
from stepwell import Step, SyncStep, bodies, connection, current_step
from stepwell.v1 import step_pb2

from tests.unit.sdk_worker.apps import app_of, double, three_steps, working
from tests.unit.sdk_worker.fake_server import fake_server


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
