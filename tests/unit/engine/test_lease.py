"""Who serves a database: a lease says it, a fence holds the others off (H31)."""

from __future__ import annotations

import asyncio

import pytest
from stepwell_server.engine import control, ingest, register
from stepwell_server.engine.lease import Lease
from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.errors import StateError, UnavailableError
from stepwell_server.model.session import SettingRow

from tests.unit.engine.rig import ENV, Rig, rig

SOON_S = 5.0


async def serving(world: Rig, *, over_dead: bool = False) -> tuple[Lease, asyncio.Event]:
    """The node holds the lease; the event is set when it has lost it."""
    lost = asyncio.Event()
    lease = Lease(world.node, world.node.id, lambda _: over_dead, lost.set)
    await lease.acquire(wait=True)
    await lease.start()
    return lease, lost


async def test_h31_a_node_whose_lease_was_taken_over_writes_nothing_more_and_learns_it_from_that() -> None:
    async with rig("old") as old, rig("next", old.store) as following:
        _, lost = await serving(old)
        assert (await old.node.lane.apply(Commit(ENV))).verdict is Verdict.APPLIED
        await serving(following, over_dead=True)
        worker = await following.connect()
        with pytest.raises(UnavailableError, match="another server serves"):
            await ingest.send_events(old.node, ENV, "", [ingest.NewEvent("on/f", b"{}", "", "", 0, b"")])
        with pytest.raises(UnavailableError, match="another server serves"):
            await control.invoke(old.node, ENV, "app/f", b"", "", "", b"")
        with pytest.raises(UnavailableError, match="another server serves"):
            await old.connect()
        run_id = await following.start()
        with pytest.raises(UnavailableError, match="another server serves"):
            await control.cancel(old.node, ENV, run_id, "test")
        await asyncio.wait_for(lost.wait(), SOON_S)
        assert list(old.store.memory.tables.run) == [(ENV, run_id)]
        assert not old.store.memory.tables.event
        assert worker.told("assign", run_id)


async def test_h31_what_was_on_its_way_when_the_lease_was_taken_over_is_not_written() -> None:
    """A registry that the old node never saw makes events start runs: it must not accept them without."""
    async with rig("old") as old, rig("next", old.store) as following:
        await serving(old)
        await register.refresh(old.node, old.node.environment(ENV))
        writing = old.store.hold(lambda commit: bool(commit.events))
        event = ingest.NewEvent("on/f", b"{}", "", "", 0, b"")
        sending = asyncio.ensure_future(ingest.send_events(old.node, ENV, "", [event]))
        await old.settle()
        assert writing.calls == 1
        await serving(following, over_dead=True)
        await following.connect()
        writing.release()
        with pytest.raises(UnavailableError):
            await sending
        assert not old.store.memory.tables.event


async def test_h31_a_second_node_says_who_serves() -> None:
    async with rig("first", lease_ms=30) as first, rig("second", first.store, lease_ms=300) as second:
        await serving(first)
        with pytest.raises(StateError, match="first"):
            await Lease(second.node, "second", lambda _: False, lambda: None).acquire(wait=False)


async def test_h31_a_node_that_froze_before_it_began_does_not_begin() -> None:
    async with rig("old") as old, rig("next", old.store) as following:
        frozen = Lease(old.node, "old", lambda _: False, lambda: None)
        await frozen.acquire(wait=False)
        _, lost = await serving(following, over_dead=True)
        with pytest.raises(StateError, match="another server"):
            await frozen.start()
        await frozen.stop()
        assert (await following.node.lane.apply(Commit(ENV))).verdict is Verdict.APPLIED
        assert not lost.is_set()


async def test_a_node_that_stops_lets_the_next_one_in_at_once() -> None:
    async with rig("first") as first, rig("second", first.store) as second:
        lease, _ = await serving(first)
        await lease.stop()
        await serving(second)
        assert (await second.node.lane.apply(Commit(ENV))).verdict is Verdict.APPLIED
        late = Commit("", settings=(SettingRow("late", "1"),))
        assert (await first.node.lane.apply(late)).verdict is Verdict.FENCED
