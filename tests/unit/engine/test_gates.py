"""Gates of functions over the memory store: rate limit, debounce, batch, singleton, and what a crash leaves of them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from stepwell_server.engine import conclude, ingest, query, recover
from stepwell_server.model.commit import Commit
from stepwell_server.model.flow import Batch, Debounce, Flow, RateLimit, Singleton, SingletonMode
from stepwell_server.model.ids import run_id_for_event
from stepwell_server.model.journal import GATE_KEY
from stepwell_server.model.limits import MIB
from stepwell_server.model.run import RunRow, RunStatus

from tests.unit.engine.rig import APP, ENV, Rig, Worker, rig

F = f"{APP}/f"
USER = "event.data.user"


def runs(world: Rig) -> list[RunRow]:
    """All runs, in the order of their ids."""
    return [row for _, row in sorted(world.store.memory.tables.run.items())]


def statuses(world: Rig) -> list[RunStatus]:
    return sorted(RunStatus(row.status) for row in runs(world))


def failure(row: RunRow) -> dict[str, Any]:
    return orjson.loads(row.failure or b"{}")


async def send(world: Rig, *data: dict[str, Any], time_ms: int = 0) -> list[str]:
    """Events in one request; durable and decided when this returns."""
    events = [ingest.NewEvent("on/f", orjson.dumps(one), "", "", time_ms, b"") for one in data]
    said = await ingest.send_events(world.node, ENV, "", events)
    await world.settle()
    return [status.event_id for status in said]


async def pass_ms(world: Rig, ms: int) -> None:
    """Time passes, and what falls due is fired."""
    world.node.clock.offset_ms += ms  # pyright: ignore
    await world.timers.run_once()
    await world.settle()


def members(world: Rig, run_id: str) -> list[str]:
    return world.store.memory.tables.members.get((ENV, run_id), [])


def assigned(worker: Worker) -> list[str]:
    return [one[1] for one in worker.told("assign")]


async def complete(worker: Worker, run_id: str) -> None:
    frame = worker.frame()
    conclude.complete(frame, run_id, worker.turn(run_id), 1, b"1", "")
    frame.finish()
    await worker.rig.settle()


# -- rate limit ----------------------------------------------------------------------------------------------------


async def test_what_is_too_much_in_a_period_is_skipped_and_says_why() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(rate_limit=RateLimit(2, 60_000, USER)))
        ids = await send(world, *[{"user": "a"}] * 4, {"user": "b"})
        expected = [run_id_for_event(ENV, event_id, F) for event_id in ids]
        assert sorted(assigned(worker)) == sorted([*expected[:2], expected[4]])
        third = world.row(expected[2])
        assert (third.status, third.turn, third.ended_ms is not None) == (RunStatus.SKIPPED, 0, True)
        assert failure(third)["reason"] == "RATE_LIMITED"
        assert failure(third)["details"]["limit"] == 2
        await pass_ms(world, 60_000)
        (late,) = await send(world, {"user": "a"})
        assert run_id_for_event(ENV, late, F) in assigned(worker)


async def test_events_of_one_key_are_decided_in_few_commits() -> None:
    async with rig() as world:
        await world.connect(flow=Flow(rate_limit=RateLimit(1_000, 60_000)), capacity=200)
        before = world.node.lane.transactions
        await send(world, *[{}] * 100)
        assert len(runs(world)) == 100
        assert world.node.lane.transactions - before <= 3


async def test_h28_a_rate_limit_outlives_the_server() -> None:
    async with rig() as first:
        await first.connect(flow=Flow(rate_limit=RateLimit(1, 86_400_000)))
        await send(first, {})
        async with rig("second", first.store) as second:
            await pass_ms(second, 1_000)  # ids of two nodes in one millisecond are the same here
            await send(second, {}, {})
            assert statuses(second)[1:] == [RunStatus.SKIPPED, RunStatus.SKIPPED]


async def test_an_event_without_the_key_counts_to_null() -> None:
    async with rig() as world:
        await world.connect(flow=Flow(rate_limit=RateLimit(1, 60_000, "event.data.user.id")))
        await send(world, {}, {"user": 3}, {"user": {"id": None}}, {"user": {"id": "x"}})
        assert statuses(world) == [RunStatus.RUNNING] * 2 + [RunStatus.SKIPPED] * 2


# -- debounce ------------------------------------------------------------------------------------------------------


async def test_a_flurry_starts_one_run_with_its_last_event() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(debounce=Debounce(60_000, USER)))
        first, second = await send(world, {"user": "a", "n": 1}, {"user": "a", "n": 2})
        (row,) = runs(world)
        assert (row.status, row.turn, row.id) == (RunStatus.PARKED, 0, run_id_for_event(ENV, first, F))
        assert assigned(worker) == []
        await pass_ms(world, 59_000)
        (third,) = await send(world, {"user": "a", "n": 3})
        await pass_ms(world, 2_000)
        assert world.status(row.id) is RunStatus.PARKED
        assert members(world, row.id) == [first, second, third]
        await pass_ms(world, 59_000)
        assert assigned(worker) == [row.id]
        assert world.row(row.id).event_id == third
        assert not any(key.startswith(GATE_KEY) for key in world.waits(row.id))


async def test_a_run_that_gathers_says_until_when_though_it_was_put_off() -> None:
    async with rig() as world:
        await world.connect(flow=Flow(debounce=Debounce(60_000)))
        (first,) = await send(world, {})
        run_id = run_id_for_event(ENV, first, F)
        await pass_ms(world, 30_000)
        await send(world, {})
        now = world.node.clock.now_ms()
        (reason,) = query.reasons(world.node, (await world.store.load(ENV, [run_id]))[run_id])
        assert reason.kind is query.Waiting.GATHERING
        assert now + 59_000 < reason.until_ms <= now + 60_000


async def test_a_flurry_without_an_end_starts_after_max_wait() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(debounce=Debounce(60_000, "", 100_000)))
        await send(world, {})
        await pass_ms(world, 50_000)
        (last,) = await send(world, {})
        await pass_ms(world, 50_000)
        (row,) = runs(world)
        assert assigned(worker) == [row.id]
        assert row.event_id == last


async def test_an_older_event_that_comes_late_changes_nothing() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(debounce=Debounce(60_000)))
        (last,) = await send(world, {"n": 2})
        await pass_ms(world, 30_000)
        await send(world, {"n": 1}, time_ms=1)
        await pass_ms(world, 30_000)
        (row,) = runs(world)
        assert assigned(worker) == [row.id]
        assert row.event_id == last


async def test_h24_an_event_that_comes_after_the_firing_goes_to_the_next_run() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(debounce=Debounce(60_000)))
        (first,) = await send(world, {})
        await pass_ms(world, 60_000)
        (second,) = await send(world, {})
        await pass_ms(world, 60_000)
        assert assigned(worker) == [run_id_for_event(ENV, event_id, F) for event_id in (first, second)]


async def test_h24_a_firing_that_an_event_on_another_node_overtakes_waits_again() -> None:
    async with rig() as one:
        flow = Flow(debounce=Debounce(60_000))
        worker = await one.connect(flow=flow)
        (first,) = await send(one, {})
        run_id = run_id_for_event(ENV, first, F)
        async with rig("other", one.store) as other:
            other.node.clock.offset_ms += 50_000  # pyright: ignore
            firing = one.store.hold(lambda commit: bool(commit.enqueues))
            one.node.clock.offset_ms += 60_000  # pyright: ignore
            one.node.spawn(one.timers.run_once())
            await one.settle()
            assert firing.calls == 1
            (second,) = await send(other, {})
            firing.release()
            await one.settle()
            assert assigned(worker) == []
            assert members(one, run_id) == [first, second]
            await pass_ms(one, 60_000)
            assert assigned(worker) == [run_id]
            assert one.row(run_id).event_id == second


async def test_a_run_that_gathers_is_cancelled_at_once_and_the_next_event_begins_anew() -> None:
    async with rig() as world:
        await world.connect(flow=Flow(debounce=Debounce(60_000)))
        (first,) = await send(world, {})
        run_id = run_id_for_event(ENV, first, F)
        await world.cancel(run_id)
        assert world.status(run_id) is RunStatus.CANCELLED
        assert world.waits(run_id) == set()
        (second,) = await send(world, {})
        assert world.status(run_id_for_event(ENV, second, F)) is RunStatus.PARKED
        assert members(world, run_id) == [first]


# -- batch ---------------------------------------------------------------------------------------------------------


async def test_a_batch_starts_with_so_many_events() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(batch=Batch(3, 60_000, USER)))
        ids = await send(world, *[{"user": "a"}] * 2, {"user": "b"})
        assert assigned(worker) == []
        (third,) = await send(world, {"user": "a"})
        first = run_id_for_event(ENV, ids[0], F)
        assert assigned(worker) == [first]
        assert members(world, first) == [*ids[:2], third]
        state = (await world.store.load(ENV, [first]))[first]
        assert [event.id for event in state.events] == [*ids[:2], third]
        assert state.run.event_id == ids[0]


async def test_a_batch_that_is_not_full_starts_after_its_time() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(batch=Batch(3, 60_000)))
        ids = await send(world, {})
        await pass_ms(world, 59_000)
        ids += await send(world, {})
        assert assigned(worker) == []
        await pass_ms(world, 1_000)
        run_id = run_id_for_event(ENV, ids[0], F)
        assert assigned(worker) == [run_id]
        assert members(world, run_id) == ids


async def test_many_events_at_once_are_cut_into_batches_in_few_commits() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(batch=Batch(40, 60_000)), capacity=100)
        before = world.node.lane.transactions
        ids = await send(world, *[{}] * 100)
        decided = world.node.lane.transactions - before
        assert decided <= 4
        assert sorted(len(members(world, row.id)) for row in runs(world)) == [20, 40, 40]
        assert len(assigned(worker)) == 2
        await pass_ms(world, 60_000)
        assert len(assigned(worker)) == 3
        assert sorted(event_id for row in runs(world) for event_id in members(world, row.id)) == sorted(ids)


async def test_a_batch_that_would_be_too_large_starts_before() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(batch=Batch(1_000, 60_000)))
        large = {"x": "x" * (MIB - 100)}
        first = await send(world, large)
        second = await send(world, large)
        assert assigned(worker) == [run_id_for_event(ENV, first[0], F)]
        assert [len(members(world, row.id)) for row in runs(world)] == [1, 1]
        assert world.status(run_id_for_event(ENV, second[0], F)) is RunStatus.PARKED


async def test_an_event_that_does_not_fit_the_condition_starts_a_run_alone_at_once() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(batch=Batch(3, 60_000, "", "event.data.n < 10")))
        ids = await send(world, {"n": 1}, {"n": 50}, {})
        assert sorted(assigned(worker)) == sorted(run_id_for_event(ENV, event_id, F) for event_id in ids[1:])
        assert members(world, run_id_for_event(ENV, ids[0], F)) == ids[:1]


async def test_a_rate_limit_comes_before_a_batch() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(batch=Batch(2, 60_000), rate_limit=RateLimit(3, 60_000)))
        ids = await send(world, *[{}] * 5)
        assert assigned(worker) == [run_id_for_event(ENV, ids[0], F)]
        assert statuses(world) == [RunStatus.RUNNING, RunStatus.PARKED, RunStatus.SKIPPED, RunStatus.SKIPPED]


@pytest.mark.parametrize("flow", ["batch", "singleton"])
async def test_an_event_that_passed_a_rate_limit_is_noted_with_the_run_that_it_came_to(flow: str) -> None:
    rate = RateLimit(3, 60_000)
    said = Flow(batch=Batch(9, 60_000, "", "event.data.n < 2"), rate_limit=rate)
    async with rig() as world:
        await world.connect(flow=said if flow == "batch" else Flow(singleton=Singleton(), rate_limit=rate))
        ids = await send(world, {"n": 1}, {"n": 1}, {"n": 5}, {"n": 1})
        joined = {row.event_id: row.run_id for row in await world.store.joined(ENV, ids)}
        own = [run_id_for_event(ENV, event_id, F) for event_id in ids]
        assert [joined.get(event_id) for event_id in ids] == [
            own[0],
            own[0] if flow == "batch" else own[1],
            own[2],
            None,
        ]


async def test_h18_an_event_of_the_batch_is_consumed_and_resolves_no_wait_of_its_run() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(batch=Batch(2, 60_000)))
        ids = await send(world, {}, {})
        run_id = run_id_for_event(ENV, ids[0], F)
        worker.wait(run_id, "again", "on/f")
        await world.settle()
        assert "again" in world.waits(run_id)
        await send(world, {})
        assert "again" in world.outcomes(run_id)


# -- singleton -----------------------------------------------------------------------------------------------------


async def test_while_a_run_of_a_key_lives_others_are_skipped() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(singleton=Singleton(USER)))
        first, second, other = await send(world, {"user": "a"}, {"user": "a"}, {"user": "b"})
        alive, skipped = run_id_for_event(ENV, first, F), run_id_for_event(ENV, second, F)
        assert sorted(assigned(worker)) == sorted([alive, run_id_for_event(ENV, other, F)])
        assert world.status(skipped) is RunStatus.SKIPPED
        assert failure(world.row(skipped))["details"] == {"run_id": alive}
        await complete(worker, alive)
        (third,) = await send(world, {"user": "a"})
        assert run_id_for_event(ENV, third, F) in assigned(worker)


async def test_a_run_that_ends_without_a_worker_lets_go_too() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(singleton=Singleton()))
        await worker.lost()
        (first,) = await send(world, {})
        run_id = run_id_for_event(ENV, first, F)
        assert world.status(run_id) is RunStatus.QUEUED
        await world.cancel(run_id)
        (second,) = await send(world, {})
        assert world.status(run_id_for_event(ENV, second, F)) is RunStatus.QUEUED


async def test_a_claim_whose_run_has_ended_is_taken_over() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(singleton=Singleton()))
        (first,) = await send(world, {})
        run_id = run_id_for_event(ENV, first, F)
        tables = world.store.memory.tables
        kept = dict(tables.claim)
        await complete(worker, run_id)
        tables.claim.update(kept)
        (second,) = await send(world, {})
        assert run_id_for_event(ENV, second, F) in assigned(worker)


async def test_h28_a_singleton_outlives_the_server() -> None:
    async with rig() as first:
        await first.connect(flow=Flow(singleton=Singleton()))
        await send(first, {})
        async with rig("second", first.store) as second:
            await pass_ms(second, 1_000)
            await send(second, {})
            assert statuses(second)[1:] == [RunStatus.SKIPPED]


async def test_an_invoke_passes_the_gate_too() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(singleton=Singleton()))
        first = await world.start("f")
        second = await world.start("f")
        assert assigned(worker) == [first]
        assert world.status(second) is RunStatus.SKIPPED
        assert failure(world.row(second))["reason"] == "SINGLETON"
        assert world.waits(second) == set()


async def test_the_latest_run_of_a_burst_takes_the_place_of_the_one_that_lives() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(singleton=Singleton(mode=SingletonMode.CANCEL)))
        ids = await send(world, {})
        alive = run_id_for_event(ENV, ids[0], F)
        for _ in range(3):
            ids += await send(world, {}, {})
        assert assigned(worker) == [alive]
        assert len(worker.told("cancel", alive)) == 1
        latest = run_id_for_event(ENV, ids[-1], F)
        assert statuses(world) == [RunStatus.RUNNING, RunStatus.PARKED, *[RunStatus.SKIPPED] * 5]
        assert world.status(latest) is RunStatus.PARKED
        frame = worker.frame()
        conclude.cancelled(frame, alive, worker.turn(alive), 1)
        frame.finish()
        await world.settle()
        assert world.status(alive) is RunStatus.CANCELLED
        assert assigned(worker) == [alive, latest]
        assert statuses(world).count(RunStatus.SKIPPED) == 5


async def test_an_event_that_comes_with_the_run_that_waits_is_later_than_it() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow(singleton=Singleton(mode=SingletonMode.CANCEL)))
        ids = await send(world, {})
        ids += await send(world, {})
        alive, waiting = (run_id_for_event(ENV, event_id, F) for event_id in ids)
        freed = world.store.hold_read("claims")
        frame = worker.frame()
        conclude.cancelled(frame, alive, worker.turn(alive), 1)
        frame.finish()
        await world.settle()
        assert freed.calls == 1
        (last,) = await send(world, {})
        freed.release()
        await world.settle()
        assert assigned(worker)[1:] in ([run_id_for_event(ENV, last, F)], [waiting])
        assert world.status(run_id_for_event(ENV, last, F)) in (RunStatus.RUNNING, RunStatus.PARKED)


async def test_a_run_that_was_not_told_that_the_key_is_free_looks_for_itself() -> None:
    async with rig() as first:
        await first.connect(flow=Flow(singleton=Singleton(mode=SingletonMode.CANCEL)))
        ids = await send(first, {})
        ids += await send(first, {})
        alive, waiting = (run_id_for_event(ENV, event_id, F) for event_id in ids)
        assert first.status(waiting) is RunStatus.PARKED
        async with rig("second", first.store) as second:
            worker = await second.connect(flow=Flow(singleton=Singleton(mode=SingletonMode.CANCEL)))
            row = first.row(alive)
            first.store.memory.tables.put_run(row._replace(status=int(RunStatus.CANCELLED), ended_ms=1))
            await pass_ms(second, 10_000)
            assert assigned(worker) == [waiting]


# -- crashes -------------------------------------------------------------------------------------------------------

GATED = {
    "rate_limit": (Flow(rate_limit=RateLimit(2, 3_600_000)), [RunStatus.QUEUED] * 2 + [RunStatus.SKIPPED] * 3),
    "debounce": (Flow(debounce=Debounce(3_600_000)), [RunStatus.PARKED]),
    "batch": (Flow(batch=Batch(3, 3_600_000)), [RunStatus.QUEUED, RunStatus.PARKED]),
    "singleton": (Flow(singleton=Singleton()), [RunStatus.QUEUED] + [RunStatus.SKIPPED] * 4),
    "rate_limit and batch": (
        Flow(batch=Batch(2, 3_600_000), rate_limit=RateLimit(3, 3_600_000)),
        [RunStatus.QUEUED, RunStatus.PARKED, RunStatus.SKIPPED, RunStatus.SKIPPED],
    ),
}


@pytest.mark.parametrize("flow", GATED)
async def test_h21_a_crash_between_the_events_and_their_runs_is_healed_and_nothing_is_decided_twice(flow: str) -> None:
    said, expected = GATED[flow]
    async with rig() as first:
        worker = await first.connect(flow=said)
        await worker.lost()
        gate = first.store.hold(_is_gates)
        await send(first, *[{}] * 5)
        assert (runs(first), gate.calls) == ([], 1)
        first.store.forget(gate)
        async with rig("second", first.store) as second:
            await recover.sweep(second.node, older_than_ms=0)
            await second.settle()
            assert statuses(second) == expected
            before = await _tables(second)
            await recover.sweep(second.node, older_than_ms=0)
            await second.settle()
            gate.release()
            await first.settle()
            assert await _tables(second) == before


def _is_gates(commit: Commit) -> bool:
    return any(touch.startswith("claim:") for touch in commit.touches)


async def _tables(world: Rig) -> dict[str, Any]:
    snapshot = world.store.memory.snapshot()
    return {name: snapshot[name] for name in ("runs", "members", "claims", "waits")}
