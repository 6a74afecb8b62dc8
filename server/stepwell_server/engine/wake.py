"""Outcomes find their runs: in a worker's memory, with another worker, or in the queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepwell_server.engine import dispatch, fence, loading
from stepwell_server.engine.cluster import Cluster
from stepwell_server.engine.node import Node
from stepwell_server.engine.residents import Resident, Session
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.journal import GIVEN_UP, UNWINDING, Number, OutcomeDelete, OutcomeRow, StepKind, WaitRow
from stepwell_server.model.notes import Came
from stepwell_server.model.run import Enqueue, Move, ReadyRow, RunStatus, Take

Then = Callable[[bool], None]


def outcome_of(
    wait: WaitRow,
    now_ms: int,
    *,
    output: bytes | None = None,
    failure: bytes | None = None,
    event_id: str | None = None,
    encoding: str = "",
) -> OutcomeRow:
    """What becomes of a wait: an undelivered outcome of the same key."""
    return OutcomeRow(
        wait.env,
        wait.run_id,
        wait.key,
        None,
        wait.kind,
        wait.target,
        output,
        encoding,
        failure,
        wait.attempt,
        wait.opened_ms,
        now_ms,
        wait.input_hash,
        event_id,
        wait.child_id,
    )


def resolve(
    node: Node, function_id: str, outcome: OutcomeRow, then: Then | None = None, opened: Sequence[WaitRow] = ()
) -> None:
    """A wait resolves, if nothing else was first; its run is woken where it is (H16).

    function_id: of the run, for a run that no worker holds. then: learns whether this outcome won. opened: waits that
    open in the same commit.
    """
    env, run_id = outcome.env, outcome.run_id
    commit = Commit(env, touches=(f"{run_id}/{outcome.key}",), decider=outcome)
    if opened:
        commit.waits = opened
        commit.touches = (*commit.touches, *(f"{wait.run_id}/{wait.key}" for wait in opened))
    if run_id in node.residents or run_id in node.arriving or node.cluster is not None:
        node.lane.submit(commit, _resolved_here, (node, function_id, outcome, then))
        return
    # A run without a session, since no other node can hold it: the wake writes its row too.
    commit.touches = (run_id, *commit.touches)
    environment = node.environment(env)
    session = dispatch.pick(environment, function_id) if function_id not in environment.limited else None
    if session is not None:
        dispatch.reserve(node, session)
        node.arriving[run_id] = []
        commit.takes = (Take(env, run_id, session.id, node.clock.now_ms(), session.row.deployment),)
        node.lane.submit(commit, _resolved_taken, (node, session, function_id, outcome, then))
        return
    row = dispatch.ready_row(node, env, run_id, function_id)
    commit.enqueues = (_enqueue(row),)
    node.lane.submit(commit, _resolved_queued, (node, row, outcome, then))


def _enqueue(row: ReadyRow) -> Enqueue:
    return Enqueue(row.env, row.run_id, row.priority, row.queued_ms)


def _resolved_here(result: CommitResult, argument: tuple[Node, str, OutcomeRow, Then | None]) -> None:
    node, function_id, outcome, then = argument
    won = result.verdict is Verdict.APPLIED
    try:
        if won:
            arrived(node, function_id, outcome)
    finally:
        if then is not None:
            then(won)


def note(node: Node, outcome: OutcomeRow) -> None:
    """An outcome is durable. Where its run is just being read, to stay with its worker, the read may have missed it."""
    came = node.adopting.get(outcome.run_id) if node.adopting else None
    if came is not None:
        came.append(outcome)


def arrived(node: Node, function_id: str, outcome: OutcomeRow) -> None:
    """An undelivered outcome is durable: tell the run, wherever it is now."""
    note(node, outcome)
    resident = node.residents.get(outcome.run_id)
    if resident is not None:
        deliver(node, resident, outcome)
    elif (waiting := node.arriving.get(outcome.run_id)) is not None:
        waiting.append(later(node, outcome))
    elif node.cluster is not None:
        node.cluster.strayed(outcome.env, outcome.run_id, outcome.key)
    else:
        unowned(node, outcome.env, outcome.run_id, function_id)
    node.changed(outcome.run_id)


def later(node: Node, outcome: OutcomeRow) -> Callable[[str], None]:
    """What follows for an outcome that comes while its run is being taken (see node.arriving)."""
    return lambda function_id: arrived(node, function_id, outcome)


def _resolved_taken(result: CommitResult, argument: tuple[Node, Session, str, OutcomeRow, Then | None]) -> None:
    node, session, function_id, outcome, then = argument
    won = result.verdict is Verdict.APPLIED
    try:
        if won:
            note(node, outcome)
            # Where the run is not taken after all, because its session was taken up meanwhile, it still has to be told.
            node.arriving[outcome.run_id].append(later(node, outcome))
            dispatch.load_soon(node, session, outcome.env, outcome.run_id, function_id)
            node.changed(outcome.run_id)
        else:
            dispatch.not_taken(node, session, outcome.env, outcome.run_id, function_id)
    finally:
        if then is not None:
            then(won)


def _resolved_queued(result: CommitResult, argument: tuple[Node, ReadyRow, OutcomeRow, Then | None]) -> None:
    node, row, outcome, then = argument
    won = result.verdict is Verdict.APPLIED
    try:
        if won:
            note(node, outcome)
            resident = node.residents.get(outcome.run_id)
            if resident is not None:
                deliver(node, resident, outcome)
            dispatch.queued_again(node, row)
            node.changed(outcome.run_id)
    finally:
        if then is not None:
            then(won)


def unowned(node: Node, env: str, run_id: str, function_id: str, losses: int = 0) -> None:
    """A run that no session holds has something to do: a worker with a place takes it, or it queues."""
    if run_id in node.arriving:
        return  # it is being taken: what it has to do is read after that
    environment = node.environment(env)
    direct = losses < 2 and function_id not in environment.limited
    session = dispatch.pick(environment, function_id) if direct else None
    if session is not None:
        dispatch.reserve(node, session)
        node.arriving[run_id] = []
        take = Take(env, run_id, session.id, node.clock.now_ms(), session.row.deployment)
        commit = Commit(env, touches=(run_id,), fences=node.place_fence(session), decider=take)
        node.lane.submit(commit, _taken, (node, session, env, run_id, function_id))
        return
    row = dispatch.ready_row(node, env, run_id, function_id, losses)
    commit = Commit(env, touches=(run_id,), enqueues=(_enqueue(row),))
    node.lane.submit(commit, _enqueued, (node, row))


def _taken(result: CommitResult, argument: tuple[Node, Session, str, str, str]) -> None:
    node, session, env, run_id, function_id = argument
    if result.verdict is Verdict.APPLIED:
        dispatch.load_soon(node, session, env, run_id, function_id)
        return
    dispatch.not_taken(node, session, env, run_id, function_id)
    if result.verdict is Verdict.FENCED and node.cluster is not None:
        fence.fenced(node, session)
        unowned(node, env, run_id, function_id)


def _enqueued(result: CommitResult, argument: tuple[Node, ReadyRow]) -> None:
    node, row = argument
    if result.verdict is Verdict.APPLIED:
        dispatch.queued_again(node, row)


def given_up(outcome: OutcomeRow) -> tuple[Sequence[Number], Sequence[OutcomeDelete]]:
    """What becomes of an outcome that the code gave up before it saw it: it goes, so that the key is closed, but events
    that were sent stay sent, and their step must not be taken for one that never was (H18c)."""
    place = (outcome.env, outcome.run_id, outcome.key)
    if outcome.kind == StepKind.SEND and outcome.failure is None:
        return (Number(*place, GIVEN_UP),), ()
    return (), (OutcomeDelete(*place),)


def deliver(node: Node, resident: Resident, outcome: OutcomeRow) -> None:
    """An outcome goes to the worker that holds the run; a parked run needs a place first (H14)."""
    if resident.open is not None:
        resident.open.pop(outcome.key, None)
    if resident.given_up is not None and outcome.key in resident.given_up:
        numbers, deletes = given_up(outcome)
        touches = (outcome.run_id, f"{outcome.run_id}/{outcome.key}")
        fences = resident.session.fence
        commit = Commit(outcome.env, touches=touches, fences=fences, numbers=numbers, outcome_deletes=deletes)
        node.lane.submit(commit, _given_up)
        return
    if outcome.kind in UNWINDING:
        unwind(node, resident, outcome)
        return
    if outcome.kind == StepKind.GRACE or (resident.unseen is not None and outcome.key in resident.unseen):
        return
    resident.see(outcome)
    session = resident.session
    if session.link is None:
        return
    if resident.executing:
        resident.received += 1
        session.link.outcome(resident.turn, outcome)
        return
    if resident.held is not None:
        resident.held.append(outcome)
        return
    if not resident.may_go_on():
        return
    resident.held = resident.undelivered()
    if session.executing < session.capacity and session.suspect is None:
        dispatch.enter(node, session, resident)
        return
    session.wakes.append(resident)
    node.loop.call_later(node.tuning.home_wait_ms / 1000, move_on, node, resident)


def _given_up(result: CommitResult, argument: object) -> None:
    """Nothing follows: where the session is gone, whoever enters the run next gives the key up again."""


def unwind(node: Node, resident: Resident, request: OutcomeRow) -> None:
    """A resident run is told to unwind; it needs no free place for that."""
    if resident.cancel is not None:
        return
    resident.cancel = request
    resident.see(request)
    session = resident.session
    held, resident.held = resident.held, None
    dispatch.wake(session, resident)
    if session.link is not None:
        for outcome in held or ():
            resident.received += 1
            session.link.outcome(resident.turn, outcome)
        session.link.cancel(resident.turn, request)


def move_on(node: Node, resident: Resident) -> None:
    """A woken run has waited long enough for its home: another worker with a place takes it (H14b)."""
    if resident.ended or resident.held is None or node.residents.get(resident.run_id) is not resident:
        return
    other = dispatch.pick(node.environment(resident.env), resident.function_id, resident.run.deployment)
    if other is None or other is resident.session or resident.limit:
        node.loop.call_later(node.tuning.home_wait_ms / 1000, move_on, node, resident)
        return
    release(node, resident, evict=True)


def child_ended(node: Node, outcome: OutcomeRow) -> None:
    """A child's end is durable, with its parent's outcome unless another was first: wake the parent."""
    note(node, outcome)
    resident = node.residents.get(outcome.run_id)
    if resident is not None:
        wait = resident.open.get(outcome.key) if resident.open is not None else None
        if wait is not None and sure(wait, node.clock.now_ms()):
            deliver(node, resident, outcome)
        elif wait is not None:
            node.spawn(_find(node, outcome))
    elif (waiting := node.arriving.get(outcome.run_id)) is not None:
        waiting.append(lambda _: child_ended(node, outcome))
    elif node.cluster is not None:
        node.cluster.strayed(outcome.env, outcome.run_id, outcome.key)
    else:
        node.spawn(_find(node, outcome))
    node.changed(outcome.run_id)


def sure(wait: WaitRow, now: int) -> bool:
    """A child's end has resolved this wait: its time-out cannot have been first."""
    return wait.due_ms is None or now < wait.due_ms


async def _find(node: Node, outcome: OutcomeRow) -> None:
    """What the store holds under the key is told, if the code has not seen it yet."""
    await find(node, outcome.env, {outcome.run_id: {outcome.key}})


# -- runs that another node may hold -----------------------------------------------------------------------------------


def look_up(node: Node) -> None:
    """Runs that are not here have outcomes: whoever holds them is looked up, now that these are durable, and told."""
    node.spawn(_look_up(node, node.cluster))


async def _look_up(node: Node, cluster: Cluster | None) -> None:
    assert cluster is not None, "it had strays"
    node.busy += 1
    try:
        strays, cluster.strays = cluster.strays, []
        by_env: dict[str, dict[str, set[str]]] = {}
        for env, run_id, key in strays:
            by_env.setdefault(env, {}).setdefault(run_id, set()).add(key)
        for env, keys in by_env.items():
            await _tell_homes(node, cluster, env, keys)
    finally:
        node.busy -= 1


async def _tell_homes(node: Node, cluster: Cluster, env: str, keys: dict[str, set[str]]) -> None:
    here: dict[str, set[str]] = {}
    for home in await loading.homes(node, env, list(keys)):
        if home.node is None:
            if home.status == RunStatus.PARKED:
                unowned(node, env, home.run_id, home.function_id, home.losses)
        elif home.node == node.id:
            here[home.run_id] = keys[home.run_id]
        else:
            for key in keys[home.run_id]:
                cluster.tell(Came(env, home.run_id, key), home.node)
    if here:
        await find(node, env, here)


async def find(node: Node, env: str, keys: dict[str, set[str]]) -> None:
    """What the store holds under these keys of runs that are here is told, if the code has not seen it yet."""
    node.busy += 1
    try:
        states = await loading.read(node, env, list(keys))
    finally:
        node.busy -= 1
    for run_id, state in states.items():
        resident = node.residents.get(run_id)
        if node.cluster is not None:
            dispatch.ring(node, state.waits)  # whoever opened one may be another node
        for row in state.outcomes:
            if row.key in keys[run_id] and row.number is None:
                if resident is None:
                    _at_the_door(node, state.run.function_id, row)
                elif not resident.is_decided(row.key):
                    arrived(node, state.run.function_id, row)


def _at_the_door(node: Node, function_id: str, outcome: OutcomeRow) -> None:
    """Its run is not in memory: it comes, goes, or its session is being taken up. Whoever reads it next sees it."""
    if node.cluster is None or outcome.run_id in node.arriving:
        arrived(node, function_id, outcome)
    else:
        note(node, outcome)


def release(node: Node, resident: Resident, *, evict: bool) -> None:
    """A parked run leaves its worker's memory; what is on its way to it wakes it elsewhere."""
    session = resident.session
    if evict:
        session.evict(resident)
    dispatch.forget(node, resident)
    commit = Commit(resident.env, touches=(resident.run_id,), fences=session.fence, decider=released_move(resident))
    node.lane.submit(commit, _released, (node, resident))


def released_move(resident: Resident, place: ReadyRow | None = None) -> Move:
    """The run keeps its turn and has no session: it is parked, or queued where it has something to do."""
    status = int(RunStatus.PARKED if place is None else RunStatus.QUEUED)
    turn, losses = resident.turn, resident.losses
    priority, queued_ms = (0, 0) if place is None else (place.priority, place.queued_ms)
    return Move(resident.env, resident.run_id, turn, turn, status, 0, None, losses, None, "", None, priority, queued_ms)


def _released(result: CommitResult, argument: tuple[Node, Resident]) -> None:
    node, resident = argument
    if result.verdict is Verdict.APPLIED:
        released(node, resident)


def released(node: Node, resident: Resident) -> None:
    """A run without a session is durable as such: what came for it meanwhile wakes it."""
    if resident.unseen:
        unowned(node, resident.env, resident.run_id, resident.function_id, resident.losses)
