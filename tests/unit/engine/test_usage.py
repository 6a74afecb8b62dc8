"""What people see of limits and labels: which limit a run waits for, what is used, and who may serve."""

from __future__ import annotations

import pytest
from stepwell_server.engine import query, usage
from stepwell_server.engine.query import Waiting
from stepwell_server.model.errors import InvalidError
from stepwell_server.model.flow import Concurrency, Flow, Scope, Throttle
from stepwell_server.model.run import RunStatus

from tests.unit.engine.rig import APP, ENV, Rig, rig

USER = Flow((Concurrency(2, "event.data.user"),))


async def reason(world: Rig, run_id: str) -> query.Reason:
    (found,) = query.reasons(world.node, await query.run_state(world.node, ENV, run_id))
    return found


def limits(world: Rig, function: str = "", app: str = "", after: str = "", limit: int = 100) -> list[usage.Used]:
    return usage.page(world.node, world.node.environment(ENV), function, app, after, limit)[0]


async def sent(world: Rig, user: object) -> str:
    event_id = await world.send("on/f", {"user": user})
    return next(row.id for row in world.store.memory.tables.run.values() if row.event_id == event_id)


async def test_a_run_says_which_limit_it_waits_for_and_how_much_of_it_is_used() -> None:
    async with rig() as world:
        await world.connect(flow=USER)
        runs = [await sent(world, 7) for _ in range(3)]
        found = await reason(world, runs[-1])
        assert (found.kind, found.message) == (Waiting.LIMIT, "limit user=7: 2 of 2 in use")


async def test_a_run_says_when_its_throttle_lets_it_start() -> None:
    async with rig() as world:
        await world.connect(flow=Flow(throttle=Throttle(1, 3_600_000)))
        await sent(world, 7)
        second = await sent(world, 7)
        found = await reason(world, second)
        assert found.kind is Waiting.LIMIT
        assert found.message.startswith("throttle: starts at ")
        assert 3_590_000 < found.until_ms - world.node.clock.now_ms() <= 3_600_000


async def test_a_woken_run_says_which_limit_it_waits_for() -> None:
    async with rig() as world:
        worker = await world.connect(flow=Flow((Concurrency(1),)))
        first = await world.start()
        worker.wait(first, "go", "go")
        worker.park(first, "go")
        await world.settle()
        second = await world.start()
        await world.send("go")
        assert worker.executing() == {second}
        found = await query.run_state(world.node, ENV, first)
        assert query.reasons(world.node, found)[0].message == f"limit function {APP}/f: 1 of 1 in use"


async def test_limits_are_listed_with_what_is_used_and_who_waits() -> None:
    async with rig() as world:
        worker = await world.connect(flow=USER)
        for user in ("a", "a", "a", "a", "b"):
            await sent(world, user)
        found = {one.label: (one.use.used, one.use.bound, one.waiting, one.more) for one in limits(world)}
        assert found == {'user="a"': (2, 2, 2, False), 'user="b"': (1, 2, 0, False)}
        for _ in range(3):
            for run_id in worker.executing():
                worker.end(run_id)
            await world.settle()
        assert limits(world) == []


async def test_a_throttle_is_listed_while_it_holds_starts_up() -> None:
    async with rig() as world:
        await world.connect(flow=Flow(throttle=Throttle(1, 3_600_000)))
        for _ in range(4):
            await sent(world, 7)
        (one,) = limits(world)
        assert (one.name.kind, one.waiting, one.use.bound) == ("throttle", 3, 1)
        assert one.use.free_ms > world.node.clock.now_ms()


async def test_limits_are_listed_page_by_page_and_by_function_and_app() -> None:
    flow = Flow(
        (Concurrency(9, "event.data.user"), Concurrency(9, scope=Scope.APP), Concurrency(9, scope=Scope.ENVIRONMENT))
    )
    async with rig() as world:
        await world.connect(flow=flow)
        for user in range(5):
            await sent(world, user)
        env = world.node.environment(ENV)
        found: list[str] = []
        after = ""
        while True:
            page, after = usage.page(world.node, env, "", "", after, 2)
            assert len(page) <= 2
            found.extend(one.use.limit for one in page)
            if not after:
                break
        assert found == sorted(found)
        assert len(found) == 7
        assert len(limits(world, function=f"{APP}/f")) == 5
        assert len(limits(world, app=APP)) == 6
        assert limits(world, function=f"{APP}/g") == limits(world, app="other") == []


async def test_a_function_with_labels_is_served_by_workers_that_have_them_all() -> None:
    needs = (("gpu", "a100"), ("region", "eu"))
    async with rig() as world:
        plain = await world.connect(needs=needs, instance="plain")
        other = await world.connect(needs=needs, labels=(("gpu", "h100"), ("region", "eu")), instance="other")
        run_id = await world.start()
        assert world.status(run_id) is RunStatus.QUEUED
        found = await reason(world, run_id)
        assert (found.kind, found.message) == (
            Waiting.NO_WORKER, f"no connected worker with labels gpu=a100 region=eu serves {APP}/f",
        )  # fmt: skip
        more = (("disk", "big"), *needs)
        fitting = await world.connect(needs=needs, labels=more, instance="fitting")
        assert fitting.executing() == {run_id}
        assert not plain.executing()
        assert not other.executing()


async def test_labels_that_are_none_are_refused() -> None:
    async with rig() as world:
        for labels in ((("", "x"),), (("a\n", "x"),), tuple((f"l{n}", "x") for n in range(17)), (("a", "x" * 129),)):
            with pytest.raises(InvalidError) as error:
                await world.connect(labels=labels)
            assert error.value.reason == "BAD_LABEL"
