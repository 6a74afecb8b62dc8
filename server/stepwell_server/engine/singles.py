"""One live run of a key: who starts, who is skipped, who is cancelled for it.

The claim names the run that lives; it is let go of by the commit that ends that run. In mode CANCEL its value names
the run that comes next: the latest one. It waits at the gate, is told when the claim is free, and now and then looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from stepwell_server.engine import ending, loading, unwind
from stepwell_server.engine.arrivals import Arrival, Plan
from stepwell_server.engine.claims import LOOK_MS, claim_wait, skipped
from stepwell_server.engine.node import Node
from stepwell_server.model import ids
from stepwell_server.model.claim import ClaimRow
from stepwell_server.model.errors import NotFoundError, UnavailableError
from stepwell_server.model.flow import SingletonMode
from stepwell_server.model.journal import GATE_KEY
from stepwell_server.model.run import LIVE, RunStatus

_FOREVER_MS = 2**53
_LIVE = frozenset(int(status) for status in LIVE)


def next_of(row: ClaimRow | None) -> str:
    """The run that comes next; empty if none waits."""
    return str(orjson.loads(row.value).get("next", "")) if row is not None and row.value else ""


async def holder_of(node: Node, row: ClaimRow | None) -> tuple[ClaimRow | None, str]:
    """The claim as it is now, and the live run that holds it; empty if none does, or the one that did has ended."""
    if row is None or not row.run_id:
        return row, ""
    resident = node.residents.get(row.run_id)
    if resident is not None and not resident.ended:
        return row, row.run_id
    now = await read_claim(node, row.env, row.key)
    if now is None or not now.run_id:
        return now, ""
    run = await loading.read_run(node, now.env, now.run_id)
    return now, now.run_id if run is not None and run.status in _LIVE else ""


async def read_claim(node: Node, env: str, key: str) -> ClaimRow | None:
    """A claim; waits for a store that is away."""
    return (await loading.patiently(lambda: node.claims.claims(env, (key,)))).get(key)


def decide(plan: Plan, row: ClaimRow | None, holder: str, arrivals: Sequence[Arrival]) -> None:
    """What becomes of all that came to the gate. holder: the live run of the key, if there is one."""
    env = plan.env.name
    arrivals = sorted((arrival for arrival in arrivals if arrival.run_id(env) != holder), key=_came)
    if not arrivals:
        return
    for arrival in arrivals:
        if arrival.event is not None:
            plan.joined(arrival, arrival.run_id(env))
    cancels = any(_mode(arrival) is SingletonMode.CANCEL for arrival in arrivals)
    waiting = next_of(row)
    if not holder:
        chosen = arrivals[-1] if cancels else arrivals[0]
        _begin(plan, row, chosen)
        _skip_others(plan, arrivals, chosen)
        if cancels:
            _supersede(plan, waiting, chosen.run_id(env))
    elif not cancels:
        for arrival in arrivals:
            _skip(plan, arrival, holder)
    else:
        chosen = arrivals[-1]
        _wait_for(plan, row, holder, chosen)
        _skip_others(plan, arrivals, chosen)
        _supersede(plan, waiting, chosen.run_id(env))


def _came(arrival: Arrival) -> tuple[int, str]:
    """The order of causes: a run that waits is as old as its event, though the gate made it later."""
    event_id = arrival.event.id if arrival.event is not None else None
    if event_id is None:
        assert arrival.state is not None, "an event or a run"
        event_id = arrival.state.run.event_id
        if event_id is None:
            return arrival.state.run.created_ms, ""
    return ids.time_of(event_id), event_id


def _mode(arrival: Arrival) -> SingletonMode:
    function = arrival.function
    said = function.flow.singleton if function is not None and function.flow is not None else None
    return said.mode if said is not None else SingletonMode.SKIP


def _begin(plan: Plan, row: ClaimRow | None, arrival: Arrival) -> None:
    """The claim is the arrival's."""
    run = arrival.state.run if arrival.state is not None else plan.new_run(arrival)
    holds = claim_wait(run, plan.key, plan.now)
    plan.next_claim(row, run.id, "", _FOREVER_MS)
    if arrival.wait is None:
        plan.start(arrival, run, holds)
    else:
        plan.fire(run.id, run.function_id, arrival.wait.key)
        plan.open(holds)


def _wait_for(plan: Plan, row: ClaimRow | None, holder: str, arrival: Arrival) -> None:
    """The arrival is next: the run that lives is cancelled for it."""
    run_id = arrival.run_id(plan.env.name)
    if arrival.wait is None:
        plan.park(plan.new_run(arrival), plan.now + LOOK_MS)
    else:
        plan.look_again(arrival.wait, plan.now + LOOK_MS)
    if next_of(row) != run_id:
        plan.next_claim(row, holder, orjson.dumps({"next": run_id}).decode(), _FOREVER_MS)
    plan.after.append(lambda: _cancel(plan, holder, run_id))


async def _cancel(plan: Plan, holder: str, for_run: str) -> None:
    try:
        await unwind.cancel(plan.node, plan.env.name, holder, f"run {for_run} of the same key takes its place")
    except (NotFoundError, UnavailableError):
        return  # the run that waits looks again


def _skip_others(plan: Plan, arrivals: Sequence[Arrival], chosen: Arrival) -> None:
    for arrival in arrivals:
        if arrival is not chosen:
            _skip(plan, arrival, chosen.run_id(plan.env.name))


def _skip(plan: Plan, arrival: Arrival, other: str) -> None:
    failure = _failure(other)
    if arrival.state is None:
        plan.skip(arrival, failure)
    elif arrival.run_id(plan.env.name) != other:
        plan.after.append(lambda: _end(plan, arrival.run_id(plan.env.name), failure))


def _supersede(plan: Plan, waiting: str, by: str) -> None:
    """The run that was to come next is not, because a later one is."""
    if waiting and waiting != by:
        plan.after.append(lambda: _end(plan, waiting, _failure(by)))


def _failure(other: str) -> bytes:
    return skipped("SINGLETON", f"run {other} of the same key takes its place", run_id=other)


async def _end(plan: Plan, run_id: str, failure: bytes) -> None:
    """A run that waits at the gate ends without having started."""
    node, env = plan.node, plan.env.name
    while True:
        state = (await loading.read(node, env, [run_id])).get(run_id)
        at_gate = state is not None and any(wait.key.startswith(GATE_KEY) for wait in state.waits)
        if state is None or not at_gate or state.run.status != RunStatus.PARKED:
            return
        if await ending.end_unowned(node, state, RunStatus.SKIPPED, failure):
            return
