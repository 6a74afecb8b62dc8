"""Reads of a node that is not alone: where runs are, and who else lives."""

from __future__ import annotations

from stepwell_server.model.commit import Verdict
from stepwell_server.model.run import RunStatus
from stepwell_server.model.session import NODE_LEASE, LeaseWrite, SessionWrite
from stepwell_server.ports.store import Home

from tests.contract.rows import ENV, FUNCTION, NOW, end, held_run, lease, parked_run, run, run_id, session, session_id
from tests.contract.saying import open_session, put, say
from tests.support.stores import FullStore

OTHER = "node-2"


async def test_a_run_is_where_its_session_was_opened_last(store: FullStore) -> None:
    await open_session(store)
    await put(store, runs=[held_run(1)])
    await say(store, decider=SessionWrite(1, session(1, epoch=2, node=OTHER)))
    (home,) = await store.homes(ENV, [run_id(1)])
    assert home == Home(run_id(1), FUNCTION, int(RunStatus.RUNNING), 0, OTHER)


async def test_a_run_without_a_session_is_nowhere_and_one_of_an_unknown_session_at_nobodys(store: FullStore) -> None:
    await put(store, runs=[run(1, losses=2), parked_run(2), held_run(3, session_id=session_id(9))])
    homes = await store.homes(ENV, [run_id(3), run_id(2), run_id(1), run_id(7)])
    assert [(one.run_id, one.status, one.losses, one.node) for one in homes] == [
        (run_id(1), RunStatus.QUEUED, 2, None),
        (run_id(2), RunStatus.PARKED, 0, None),
        (run_id(3), RunStatus.RUNNING, 0, ""),
    ]


async def test_a_run_that_has_ended_is_nowhere(store: FullStore) -> None:
    await open_session(store)
    await put(store, runs=[held_run(1)])
    await put(store, ends=[end(1)])
    assert await store.homes(ENV, [run_id(1)]) == []
    assert await store.homes(ENV, []) == []


async def test_leases_are_listed_by_how_their_names_begin(store: FullStore) -> None:
    rows = [lease(name, 1, name=f"{NODE_LEASE}{name}") for name in ("b", "a")]
    for row in (*rows, lease("x", 1, name="node")):
        assert await say(store, decider=LeaseWrite("", 0, row)) == Verdict.APPLIED
    assert await store.leases(NODE_LEASE) == [rows[1], rows[0]]
    assert await store.leases("no") == [lease("x", 1, name="node"), rows[1], rows[0]]


async def test_leases_of_nodes_that_have_left_are_purged_and_no_other(store: FullStore) -> None:
    gone, there = lease("", 4, name=f"{NODE_LEASE}a"), lease("b", 1, name=f"{NODE_LEASE}b")
    free = lease("", 3, name="node")
    for row in (gone, there, free):
        await say(store, decider=LeaseWrite("", 0, row))
    assert await store.purge(NOW, 100) == 1
    assert await store.leases("node") == [free, there]
