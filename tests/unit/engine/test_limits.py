"""Slots on every way that a run takes: asked for, given back once, and never more than there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from stepwell_server.adapters.local.clock import SystemClock
from stepwell_server.engine import begin, clockwork, conclude, control, dispatch, ending, recover, sessions, wake
from stepwell_server.model.commit import Commit
from stepwell_server.model.flow import Concurrency, Flow, Hold, Scope, Throttle
from stepwell_server.model.run import End, Move, Priority, ReadyRow, RunStatus, Take

from tests.unit.engine.rig import APP, ENV, Rig, Worker, rig

BY_USER = Flow((Concurrency(1, "event.data.user"),))


def one(limit: int = 1) -> Flow:
    return Flow((Concurrency(limit),))


def holders(world: Rig) -> dict[str, set[str]]:
    """By limit, the runs that hold a slot of it."""
    limits: Any = world.node.limiter
    return {id_: set(limit.holders) for id_, limit in limits._limits.items() if limit.holders}


def audit(world: Rig, *workers: Worker) -> None:
    """What executes holds its slots, and nothing else holds one."""
    held = set().union(*holders(world).values()) if holders(world) else set()
    assert held == set(world.node.resting.held)
    executing = set().union(*(worker.executing() for worker in workers))
    unwinding = {run_id for run_id in executing if world.node.residents[run_id].cancel is not None}
    assert executing - unwinding <= held <= executing


class Ticking(SystemClock):
    """No two looks at it are the same, so that runs stand in the queue in the order in which they came."""

    def now_ms(self) -> int:
        self.offset_ms += 1
        return super().now_ms()


@asynccontextmanager
async def limited(flow: Flow, **hello: Any) -> AsyncIterator[tuple[Rig, Worker]]:
    async with rig() as world:
        world.node.clock = Ticking()
        worker = await world.connect(flow=flow, **hello)
        yield world, worker


async def begun(world: Rig, user: str, number: int = 1) -> list[str]:
    """Runs of one user's key."""
    for _ in range(number):
        await world.send("on/f", {"user": user})
    return [row.id for row in world.store.memory.tables.run.values() if row.line.endswith(f'["{user}"]')]


async def test_no_more_than_the_limit_execute_and_the_others_follow_one_by_one() -> None:
    async with limited(one(2)) as (world, worker):
        runs = [await world.start() for _ in range(5)]
        for expected in (runs[:2], runs[1:3], runs[2:4], runs[3:], runs[4:]):
            assert worker.executing() == set(expected)
            audit(world, worker)
            worker.end(expected[0])
            await world.settle()
        assert {world.status(run_id) for run_id in runs} == {RunStatus.COMPLETED}
        assert not holders(world)
        assert not world.node.resting.waiting


async def test_each_value_of_a_key_has_a_limit_of_its_own() -> None:
    async with limited(BY_USER) as (world, worker):
        first = await begun(world, "a", 3)
        second = await begun(world, "b", 2)
        assert worker.executing() == {first[0], second[0]}
        worker.end(first[0])
        await world.settle()
        assert worker.executing() == {first[1], second[0]}
        audit(world, worker)


async def test_a_run_that_sleeps_gives_its_slot_back_and_waits_for_one_when_it_wakes() -> None:
    async with limited(one()) as (world, worker):
        first, second = await world.start(), await world.start()
        worker.sleep(first)
        await world.settle()
        assert worker.executing() == {second}
        await wake_up(world, first)
        assert worker.executing() == {second}
        assert not worker.told("outcome", first)
        worker.end(second)
        await world.settle()
        assert worker.executing() == {first}
        assert worker.told("outcome", first)
        audit(world, worker)


async def wake_up(world: Rig, run_id: str, key: str = "nap") -> None:
    """A sleep is over."""
    wait = world.store.memory.tables.wait[ENV, run_id][key]
    wake.resolve(world.node, wait.function_id, wake.outcome_of(wait, world.node.clock.now_ms()))
    await world.settle()


async def test_h14c_a_woken_run_goes_before_starts_of_its_limit() -> None:
    async with limited(one()) as (world, worker):
        first, second, third = [await world.start() for _ in range(3)]
        worker.sleep(first)
        await world.settle()
        await wake_up(world, first)
        worker.end(second)
        await world.settle()
        assert worker.executing() == {first}
        worker.end(first)
        await world.settle()
        assert worker.executing() == {third}


async def test_h14c_a_woken_run_that_no_worker_holds_goes_before_starts_of_its_limit() -> None:
    async with limited(one()) as (world, worker):
        first, second, _ = [await world.start() for _ in range(3)]
        worker.sleep(first)
        await world.settle()
        worker.release(first)
        await world.settle()
        await wake_up(world, first)
        assert world.status(first) is RunStatus.QUEUED
        worker.end(second)
        await world.settle()
        assert worker.executing() == {first}
        audit(world, worker)


async def test_a_run_that_is_to_end_unwinds_without_a_slot() -> None:
    async with limited(one()) as (world, worker):
        first, second = await world.start(), await world.start()
        worker.sleep(first)
        await world.settle()
        await control.cancel(world.node, ENV, first, "")
        await world.settle()
        assert worker.executing() == {first, second}
        assert holders(world) == {f"{ENV}|executing|function {APP}/f|": {second}}


async def test_a_worker_that_is_lost_leaves_no_slot_behind() -> None:
    async with limited(one()) as (world, worker):
        first = await world.start()
        second = await world.start()
        await worker.lost()
        await world.settle()
        assert not holders(world)
        other = await world.connect(flow=one(), instance="other")
        assert other.executing() == {first}
        other.end(first)
        await world.settle()
        assert other.executing() == {second}
        audit(world, other)


async def test_a_worker_that_comes_back_keeps_its_slots_and_nothing_new_is_granted_above() -> None:
    async with limited(one(2)) as (world, worker):
        first, second, third = [await world.start() for _ in range(3)]
        worker.sleep(second)
        await world.settle()
        assert worker.executing() == {first, third}
        sessions.stream_ended(world.node, worker.session, goodbye=False)
        residents = [sessions.Held(first, 1, False), sessions.Held(second, 1, False), sessions.Held(third, 1, False)]
        again = await world.connect(flow=one(2), session_id=worker.session.id, residents=residents)
        fourth = await world.start()
        assert again.executing() == {first, second, third}
        again.link.told.extend(("assign", run_id, 1, False) for run_id in (first, second, third))
        again.end(first)
        await world.settle()
        assert again.executing() == {second, third}
        again.end(second)
        await world.settle()
        assert again.executing() == {third, fourth}
        audit(world, again)


async def test_a_worker_that_comes_back_without_a_run_gives_its_slot_back() -> None:
    async with limited(one()) as (world, worker):
        first = await world.start()
        second = await world.start()
        sessions.stream_ended(world.node, worker.session, goodbye=False)
        again = await world.connect(flow=one(), session_id=worker.session.id)
        assert len(again.executing()) == 1
        (runs,) = holders(world).values()
        assert runs == again.executing() <= {first, second}
        audit(world, again)


async def test_a_take_that_is_not_to_be_had_gives_its_slot_back() -> None:
    async with limited(one()) as (world, worker):
        taking = world.store.hold(lambda commit: isinstance(commit.decider, Take))
        first, second = await world.start(), await world.start()
        assert len(world.node.resting.held) == 1
        await world.store.memory.commit([Commit(ENV, ends=[end_of(world, first)])])
        taking.release()
        await world.settle()
        assert worker.executing() == {second}
        audit(world, worker)


def end_of(world: Rig, run_id: str) -> Any:
    return End(ENV, run_id, world.row(run_id).turn, int(RunStatus.CANCELLED), 1, None, "", None)


async def test_a_limit_of_the_environment_counts_the_runs_of_all_functions() -> None:
    flow = Flow((Concurrency(1, scope=Scope.ENVIRONMENT),))
    async with limited(flow, functions=("f", "g")) as (world, worker):
        first, second, third = await world.start("f"), await world.start("g"), await world.start("f")
        for run_id in (first, second, third):
            assert len(worker.executing()) == 1
            worker.end(*worker.executing())
            await world.settle()
            assert world.status(run_id) is RunStatus.COMPLETED or run_id != first
        assert not worker.executing()
        assert not holders(world)


async def test_a_function_without_a_worker_keeps_no_other_from_a_limit_that_they_share() -> None:
    flow = Flow((Concurrency(1, scope=Scope.ENVIRONMENT),))
    async with rig() as world:
        both = await world.connect(flow=flow, functions=("f", "g"), instance="both", capacity=1)
        first = await world.start("f")
        waiting, other = await world.start("g"), await world.start("f")
        await both.lost()
        await world.settle()
        only_f = await world.connect(flow=flow, functions=("f", "g"), instance="f", deployment="one")
        world.node.environment(ENV).serving[f"{APP}/g"].remove(only_f.session)
        for run_id in (first, other):
            assert run_id in only_f.executing()
            only_f.end(run_id)
            await world.settle()
        assert world.status(waiting) is RunStatus.QUEUED
        assert not holders(world)


async def test_two_limits_are_granted_together_or_not_at_all() -> None:
    flow = Flow((Concurrency(1, "event.data.user"), Concurrency(2)))
    async with limited(flow) as (world, worker):
        mine = await begun(world, "a", 2)
        others = [*await begun(world, "b"), *await begun(world, "c")]
        assert worker.executing() == {mine[0], others[0]}
        worker.end(mine[0])
        await world.settle()
        assert len(worker.executing()) == 2
        audit(world, worker)
        while executing := worker.executing():
            worker.end(min(executing))
            await world.settle()
            audit(world, worker)
        assert {world.status(run_id) for run_id in (*mine, *others)} == {RunStatus.COMPLETED}
        assert not world.node.resting.waiting


async def test_the_number_of_a_changed_limit_counts_for_new_grants_at_once() -> None:
    async with limited(one(1)) as (world, worker):
        runs = [await world.start() for _ in range(6)]
        second = await world.connect(flow=one(3), deployment="two", instance="second")
        executing = worker.executing() | second.executing()
        assert len(executing) == 3
        third = await world.connect(flow=one(2), deployment="two more", instance="third")
        assert worker.executing() | second.executing() | third.executing() == executing
        workers = (worker, second, third)
        ended: list[str] = []
        for bound in (2, 2, 2, 2, 1, 0):
            home = next(one for one in workers if one.executing())
            ended.append(min(home.executing()))
            home.end(ended[-1])
            await world.settle()
            assert sum(len(one.executing()) for one in workers) == bound
        assert sorted(ended) == sorted(runs)


async def test_runs_that_wait_when_the_keys_change_are_put_into_their_new_lines() -> None:
    async with limited(BY_USER, capacity=1) as (world, worker):
        runs = [*await begun(world, "a", 3), *await begun(world, "b", 2)]
        assert len(worker.executing()) == 1
        two = Flow((Concurrency(1, "event.data.user + '!'"),))
        other = await world.connect(flow=two, deployment="two", instance="other")
        await world.settle()
        assert len(other.executing()) == 2
        assert {world.row(run_id).line[8:] for run_id in other.executing()} == {'["a!"]', '["b!"]'}
        for _ in runs:
            for one_of in (worker, other):
                for run_id in one_of.executing():
                    one_of.end(run_id)
            await world.settle()
            audit(world, worker, other)
        assert {world.status(run_id) for run_id in runs} == {RunStatus.COMPLETED}


async def test_a_run_that_parked_before_its_function_had_keys_is_judged_when_it_wakes() -> None:
    async with rig() as world:
        worker = await world.connect()
        await world.send("on/f", {"user": "a"})
        (run_id,) = worker.executing()
        worker.sleep(run_id)
        await world.settle()
        other = await world.connect(flow=BY_USER, deployment="two", instance="other")
        (new,) = await begun(world, "a")
        assert other.executing() == {new}
        await wake_up(world, run_id)
        assert worker.executing() == set()
        other.end(new)
        await world.settle()
        assert worker.executing() == {run_id}
        audit(world, worker, other)


async def test_a_key_that_fails_or_is_huge_has_a_line_all_the_same() -> None:
    async with limited(BY_USER) as (world, worker):
        await world.send("on/f", {})
        await world.send("on/f", {"user": "x" * 10_000})
        await world.send("on/f", {"user": "x" * 10_000})
        lines = sorted(row.line[8:] for row in world.store.memory.tables.run.values())
        assert lines[2] == "[null]"
        assert lines[0] == lines[1]
        assert len(lines[0]) < 128
        assert len(worker.executing()) == 2
        assert "key 'event.data.user' could not be judged" in world.node.environment(ENV).unjudged.of(f"{APP}/f")


async def test_a_throttle_spaces_starts_and_not_resumes() -> None:
    flow = Flow(throttle=Throttle(1, 3_600_000, burst=1))
    async with limited(flow) as (world, worker):
        clock = world.node.clock
        assert isinstance(clock, SystemClock)
        runs = [await world.start() for _ in range(4)]
        assert worker.executing() == set(runs[:2])
        worker.sleep(runs[0])
        await world.settle()
        await wake_up(world, runs[0])
        assert worker.executing() == set(runs[:2])
        moved = await clockwork.advance(world.node, clock, world.timers, 100, 1)
        assert not moved.complete  # runs execute
        for run_id in runs[:2]:
            worker.end(run_id)
        await world.settle()
        await clockwork.advance(world.node, clock, world.timers, 3_600_000, 5_000)
        assert worker.executing() == {runs[2]}
        worker.end(runs[2])
        await world.settle()
        await clockwork.advance(world.node, clock, world.timers, 3_600_000, 5_000)
        assert worker.executing() == {runs[3]}
        started = [world.row(run_id).started_ms or 0 for run_id in runs]
        assert started[3] - started[2] >= 3_600_000 - 1_000


async def test_priority_moves_a_run_ahead_and_one_that_is_no_number_counts_as_none() -> None:
    flow = Flow((Concurrency(1),), priority="event.data.ahead")
    async with limited(flow) as (world, worker):
        sent = {await world.send("on/f", {"ahead": ahead}): ahead for ahead in (0, 1, "soon", 100, 10**9, -5.7)}
        order: list[str] = []
        while executing := worker.executing():
            order.extend(executing)
            worker.end(*executing)
            await world.settle()
        rows = [world.row(run_id) for run_id in order]
        assert [sent[row.event_id or ""] for row in rows] == [0, 10**9, 100, 1, "soon", -5.7]
        assert [round((row.created_ms - row.queued_ms) / 1_000) for row in rows[1:]] == [43_200, 100, 1, 0, -5]


async def test_h27_after_a_start_what_live_sessions_hold_counts_before_anything_is_granted() -> None:
    async with limited(one()) as (world, worker):
        first, second = await world.start(), await world.start()
        async with rig("next", world.store) as after:
            after.node.clock = world.node.clock
            await recover.count_held(after.node, ENV)
            after.node.queue.learn(ENV, f"{APP}/f")
            other = await after.connect(flow=one(), instance="other")
            assert not other.executing()
            residents = [sessions.Held(first, 1, False)]
            back = await after.connect(flow=one(), session_id=worker.session.id, residents=residents)
            assert back.executing() == {first}
            back.link.told.append(("assign", first, 1, False))
            back.end(first)
            await after.settle()
            assert other.executing() | back.executing() == {second}
            audit(after, back, other)


async def test_h27_a_worker_that_does_not_come_back_after_a_start_leaves_no_slot_behind() -> None:
    async with limited(one()) as (world, worker):
        first, second = await world.start(), await world.start()
        async with rig("next", world.store) as after:
            after.node.clock = world.node.clock
            await recover.count_held(after.node, ENV)
            after.node.queue.learn(ENV, f"{APP}/f")
            other = await after.connect(flow=one(), instance="other")
            await sessions.close(after.node, worker.session.row, lost=True)
            await after.settle()
            assert other.executing() == {first}
            other.end(first)
            await after.settle()
            assert other.executing() == {second}


async def test_a_suspect_asks_as_every_other_run_and_is_given_a_worker_of_its_own() -> None:
    async with limited(one()) as (world, worker):
        first, second = await world.start(), await world.start()
        await worker.lost()
        other = await world.connect(flow=one(), instance="other")
        assert other.executing() == {first}
        place = ReadyRow(ENV, second, f"{APP}/f", int(Priority.SUSPECT), 1)
        moved = Move(ENV, second, 0, 0, int(RunStatus.QUEUED), 0, None, 3, None, "", None, 1, 1)
        await world.node.lane.apply(Commit(ENV, decider=moved))
        dispatch.queued(world.node, place)
        await world.settle()
        assert other.executing() == {first}
        other.end(first)
        await world.settle()
        assert other.executing() == {second}
        audit(world, other)
        other.end(second)
        await world.settle()
        assert other.session.free == 10
        assert not holders(world)


async def test_a_run_that_sends_although_it_was_believed_parked_counts() -> None:
    async with limited(one()) as (world, worker):
        first, second = await world.start(), await world.start()
        worker.sleep(first)
        await world.settle()
        frame = worker.frame()
        frame.result(first, worker.turn(first), "work", 1, b"1", "", 1, 1, 1, b"")
        frame.finish()
        await world.settle()
        assert worker.executing() == {first, second}
        audit(world, worker)
        third = await world.start()
        worker.end(second)
        await world.settle()
        assert worker.executing() == {first}
        worker.end(first)
        await world.settle()
        assert worker.executing() == {third}


WHOLE = Flow((Concurrency(1, hold=Hold.RUN),))


async def test_a_run_that_counts_to_its_end_keeps_its_slot_while_it_sleeps() -> None:
    async with limited(WHOLE) as (world, worker):
        first, second = await world.start(), await world.start()
        worker.sleep(first)
        await world.settle()
        assert worker.executing() == set()
        worker.release(first)
        await world.settle()
        await wake_up(world, first)
        assert worker.executing() == {first}
        assert holders(world) == {f"{ENV}|run|function {APP}/f|": {first}}
        worker.end(first)
        await world.settle()
        assert worker.executing() == {second}
        worker.end(second)
        await world.settle()
        assert not holders(world)
        assert not world.node.resting.kept


async def test_a_run_that_counts_to_its_end_gives_its_slot_back_however_it_ends() -> None:
    async with limited(WHOLE) as (world, worker):
        runs = [await world.start() for _ in range(5)]
        assert worker.executing() == {runs[0]}
        await control.cancel(world.node, ENV, runs[1], "")  # never started
        await control.cancel(world.node, ENV, runs[0], "")
        frame = worker.frame()
        conclude.cancelled(frame, runs[0], worker.turn(runs[0]), 1)
        frame.finish()
        await world.settle()
        assert worker.executing() == {runs[2]}
        frame = worker.frame()
        conclude.fail(frame, runs[2], worker.turn(runs[2]), 1, {"type": "ValueError", "message": "no"}, 1, None)
        frame.finish()
        await world.settle()
        assert worker.executing() == {runs[3]}
        ending.fail_now(world.node, worker.session, world.node.residents[runs[3]], "JOURNAL_FULL", "full", 1)
        await world.settle()
        assert worker.executing() == {runs[4]}
        worker.sleep(runs[4])
        worker.release(runs[4])
        await world.settle()
        state = (await world.store.load(ENV, [runs[4]]))[runs[4]]
        assert await ending.end_unowned(world.node, state, RunStatus.CANCELLED, b"{}")
        await world.settle()
        assert not holders(world)


async def test_h27_after_a_start_runs_that_count_to_their_end_count_though_no_session_holds_them() -> None:
    async with limited(WHOLE) as (world, worker):
        first, second = await world.start(), await world.start()
        worker.sleep(first)
        worker.release(first)
        await world.settle()
        assert world.row(first).session_id is None
        async with rig("next", world.store) as after:
            after.node.clock = world.node.clock
            await recover.count_held(after.node, ENV)
            after.node.queue.learn(ENV, f"{APP}/f")
            other = await after.connect(flow=WHOLE, instance="other")
            assert not other.executing()
            await wake_up(after, first)
            other.end(first)
            await after.settle()
            assert other.executing() == {second}


async def test_a_start_that_is_not_to_be_had_keeps_nothing() -> None:
    async with limited(WHOLE) as (world, worker):
        taking = world.store.hold(lambda commit: isinstance(commit.decider, Take))
        first, second = await world.start(), await world.start()
        assert len(world.node.resting.keeping) == 1
        await world.store.memory.commit([Commit(ENV, ends=[end_of(world, first)])])
        taking.release()
        await world.settle()
        assert worker.executing() == {second}
        assert holders(world) == {f"{ENV}|run|function {APP}/f|": {second}}


async def invoked(world: Rig, worker: Worker, run_id: str, function: str, user: str, *, detached: bool = False) -> Any:
    """The outcome that an invoke has at once, if it has one."""
    frame = worker.frame()
    data = orjson.dumps({"user": user})
    begin.invoke(frame, run_id, worker.turn(run_id), "call", f"{APP}/{function}", data, "", 0, detached, b"")
    frame.finish()
    await world.settle()
    return world.outcomes(run_id).get("call")


async def test_h29_a_child_that_needs_what_its_parent_holds_to_its_end_is_a_typed_error() -> None:
    flow = Flow((Concurrency(1, "event.data.user", Scope.APP, Hold.RUN),))
    async with limited(flow, functions=("f", "g")) as (world, worker):
        (parent,) = await begun(world, "a")
        outcome = await invoked(world, worker, parent, "g", "a")
        failure = orjson.loads(outcome.failure)
        assert failure["reason"] == "LIMIT_DEADLOCK"
        assert failure["message"].startswith('limit user="a": all 1 are held by this run')
        assert failure["non_retriable"]
        assert len(world.store.memory.tables.run) == 1


@pytest.mark.parametrize(("user", "detached"), [("b", False), ("a", True)])
async def test_h29_a_child_that_can_start_is_no_error(user: str, detached: bool) -> None:
    flow = Flow((Concurrency(1, "event.data.user", Scope.APP, Hold.RUN),))
    async with limited(flow, functions=("f", "g")) as (world, worker):
        (parent,) = await begun(world, "a")
        assert await invoked(world, worker, parent, "g", user, detached=detached) is None
        assert len(world.store.memory.tables.run) == 2


async def test_h29_whoever_waits_for_the_parent_counts_too() -> None:
    flow = Flow((Concurrency(2, "event.data.user", Scope.APP, Hold.RUN),))
    async with limited(flow, functions=("f", "g")) as (world, worker):
        (first,) = await begun(world, "a")
        assert await invoked(world, worker, first, "g", "a") is None
        (second,) = worker.executing() - {first}
        outcome = await invoked(world, worker, second, "f", "a")
        assert orjson.loads(outcome.failure)["reason"] == "LIMIT_DEADLOCK"


async def test_a_run_that_has_begun_need_not_wait_for_the_pace_of_starts() -> None:
    for key in ("", "event.data.user"):
        flow = Flow(throttle=Throttle(1, 3_600_000, key=key))
        async with limited(flow) as (world, worker):
            await world.send("on/f", {"user": "a"})
            await world.send("on/f", {"user": "a"})
            (first,) = worker.executing()
            worker.sleep(first)
            worker.release(first)
            await world.settle()
            await wake_up(world, first)
            assert worker.executing() == {first}


async def test_a_suspect_that_counts_to_its_end_is_not_stuck_behind_those_that_wait_for_its_slot() -> None:
    async with limited(WHOLE) as (world, worker):
        first, second = await world.start(), await world.start()
        await worker.lost()
        other = await world.connect(flow=WHOLE, instance="other")
        assert other.executing() == {first}
        await other.lost()
        last = await world.connect(flow=WHOLE, instance="last")
        assert world.row(first).losses == 2
        due_in_ms = world.row(first).queued_ms - world.node.clock.now_ms()
        clock = world.node.clock
        assert isinstance(clock, SystemClock)
        clock.offset_ms += max(due_in_ms, 0) + 1
        dispatch.pump(world.node, world.node.environment(ENV))
        await world.settle()
        assert last.executing() == {first}
        last.end(first)
        await world.settle()
        assert last.executing() == {second}
