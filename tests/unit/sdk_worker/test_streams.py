"""A worker's streams: how it opens, beats, loses, leaves and follows them, against a scripted server."""

from __future__ import annotations

import asyncio
import threading
import time
from hashlib import blake2b
from unittest import mock

import grpc
import pytest
from stepwell import App, LimitError, Step, connection, stream
from stepwell.api_errors import FailedPreconditionError, InvalidArgumentError
from stepwell.session import Mailbox
from stepwell.settings import WorkerSettings
from stepwell.v1 import step_pb2
from stepwell.worker import Worker

from tests.unit.sdk_worker.apps import app_of, three_steps, working
from tests.unit.sdk_worker.fake_server import fake_server


def resident_hash(run_id: str, turn: int) -> int:
    return int.from_bytes(blake2b(f"{run_id}:{turn}".encode(), digest_size=8).digest(), "big")


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
