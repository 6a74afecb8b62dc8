"""Gives runs to workers with a free place: at once where nothing older waits, else through the queue."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from functools import partial

from stepwell_server.engine import fence, limits, lines, timeouts
from stepwell_server.engine.failures import tried
from stepwell_server.engine.loading import read, read_run
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.residents import Resident, Session
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.flow import Flow
from stepwell_server.model.function import FunctionSpec, Standing
from stepwell_server.model.journal import CANCEL_KEY, START_KEY, StepKind, WaitRow
from stepwell_server.model.run import Move, Priority, ReadyRow, RunRow, RunStatus, Take
from stepwell_server.ports.limiter import Held
from stepwell_server.ports.queue import Queued
from stepwell_server.ports.store import RunState

_APPLIED = Verdict.APPLIED
_NEW, _SUSPECT = int(Priority.NEW), int(Priority.SUSPECT)
_ASKED = 16
"""Runs of a limited function that are asked for at once: nearly all may be held."""
_QUEUED = int(RunStatus.QUEUED)
_HOLDABLE = frozenset({int(RunStatus.RUNNING), int(RunStatus.PARKED)})


def pick(env: Environment, function_id: str, deployment: str = "") -> Session | None:
    """A session with a free place that serves the function; of the given deployment while one is connected (H15)."""
    sessions = env.serving.get(function_id)
    if not sessions or (env.paused is not None and holds_back(env, function_id, begun=True)):
        return None
    preferred = deployment or env.current.get(function_id.partition("/")[0], "")
    if len(sessions) > 1:
        sessions.append(sessions.pop(0))
    fallback: Session | None = None
    home = False
    for session in sessions:
        if session.row.deployment == preferred:
            home = home or session.link is not None
            if session.free > 0:
                return session
        elif session.free > 0 and fallback is None:
            fallback = session
    return None if home else fallback


def holds_back(env: Environment, function_id: str, *, begun: bool) -> bool:
    """Whether a paused function's runs wait for it: those that have begun, or new ones."""
    switch = env.paused.get(function_id) if env.paused is not None else None
    return switch is not None and (not begun or switch.standing == Standing.HOLD)


def reserve(node: Node, session: Session) -> None:
    """A run is about to be this session's: it has a place from now on."""
    session.executing += 1
    node.coming[session.id] = node.coming.get(session.id, 0) + 1


def _came(node: Node, session: Session) -> None:
    left = node.coming[session.id] - 1
    if left:
        node.coming[session.id] = left
    else:
        del node.coming[session.id]


async def none_coming(node: Node, session_id: str) -> None:
    """No run is on its way into a session any more: what it holds can be read (H8). It gets no new ones meanwhile."""
    while session_id in node.coming:  # noqa: ASYNC110 (rare, and over within a few commits)
        await asyncio.sleep(0.001)


def ready_row(
    node: Node,
    env: str,
    run_id: str,
    function_id: str,
    losses: int = 0,
    priority: Priority = Priority.RESUMED,
    line: str = "",
) -> ReadyRow:
    """A run's place in the queue, from now: one that has begun goes before new ones (H14c). A suspect comes after the
    innocents, and later each time (H13)."""
    now = node.clock.now_ms()
    if losses < 2:
        return ReadyRow(env, run_id, function_id, int(priority), now, line)
    later = now + min(500 * 2 ** (losses - 2), 60_000)
    return ReadyRow(env, run_id, function_id, int(Priority.SUSPECT), later, line)


def place(run: RunRow) -> ReadyRow:
    """The place in the queue that a QUEUED run has."""
    return ReadyRow(run.env, run.id, run.function_id, run.priority, run.queued_ms, run.line)


def queued(node: Node, row: ReadyRow, state: RunState | None = None) -> None:
    """A run is durably QUEUED: it waits for a worker with room, here or at another node."""
    env = node.environment(row.env)
    if node.cluster is not None and not _has_room(node, env, row):
        if env.serving.get(row.function_id):
            node.queue.learn(env.name, row.function_id, sure=True)
        node.cluster.offer(env.name, row.function_id)
        return
    node.queue.push(row, state)
    if row.priority < _NEW and node.resting.lines:
        limits.pushed(node, row)
    pump(node, env)


def queued_again(node: Node, row: ReadyRow) -> None:
    """A parked run is queued; its line is read where its function has lines."""
    if row.function_id in node.environment(row.env).limited:
        node.spawn(_queued_in_line(node, row))
    else:
        queued(node, row)


async def _queued_in_line(node: Node, row: ReadyRow) -> None:
    node.busy += 1
    try:
        run = await read_run(node, row.env, row.run_id)
    finally:
        node.busy -= 1
    if run is not None and run.status == _QUEUED:
        queued(node, place(run))


def _has_room(node: Node, env: Environment, row: ReadyRow) -> bool:
    """Whether a run that is queued will be taken here at once, after those that wait here already."""
    free = sum(session.free for session in env.serving.get(row.function_id, ()) if session.free > 0)
    waiting, more = node.queue.backlog(env.name, row.function_id, row.own_line) if free else (0, False)
    return free > waiting and not more


def offer_waiting(node: Node) -> None:
    """What has waited here since its worker left, or got full, is offered to the other nodes."""
    assert node.cluster is not None, "there are others"
    for env in node.environments.values():
        for head in node.queue.heads(env.name):
            if not any(session.free > 0 for session in env.serving.get(head.function_id, ())):
                node.cluster.offer(env.name, head.function_id)


def pump(node: Node, env: Environment) -> None:
    """Looks soon whether queued runs of an environment can have places."""
    if not env.pumping and not node.stopping:
        env.pumping = True
        node.loop.call_soon(_pump, node, env)


def _pump(node: Node, env: Environment) -> None:
    """Goes by the first of each function's queue, so that the backlog of one function keeps no other out."""
    env.pumping = False
    heads = node.queue.heads(env.name)
    heapq.heapify(heads)
    while heads:
        priority, _, function_id, due = heapq.heappop(heads)
        paused = env.paused is not None and function_id in env.paused
        session = pick(env, function_id)
        if session is None or (paused and priority >= Priority.NEW):
            continue
        if due:
            node.spawn(_refill(node, env, function_id))
        most = 64 if function_id not in env.limited else _ASKED
        batch = node.queue.pop(env.name, function_id, 1 if heads or paused else min(session.free, most))
        if paused and batch and batch[0].row.priority >= Priority.NEW:
            node.queue.put_back(batch[0])  # of another line: what has begun goes on, and nothing else
            continue
        if batch and not _hand_out(node, env, session, batch):
            head = node.queue.head(env.name, function_id)
            if head is not None:
                heapq.heappush(heads, head)


def _hand_out(node: Node, env: Environment, session: Session, batch: list[Queued]) -> bool:
    """Takes a batch for a session; true if the function's queue has to rest."""
    for index, item in enumerate(batch):
        if item.row.priority == _SUSPECT:
            for rest in batch[index:]:
                node.queue.put_back(rest)
            if index:
                take_all(node, env, session, batch[:index])
            return _hand_out_suspect(node, env)
    take_all(node, env, session, batch)
    return False


def _hand_out_suspect(node: Node, env: Environment) -> bool:
    """Reserves a session for the next suspect, alone; it gets it once the session is idle."""
    for head in sorted(node.queue.heads(env.name)):
        function_id = head.function_id
        if env.paused is not None and function_id in env.paused:
            continue
        sessions = env.serving.get(function_id, ())
        if any(session.suspect == "" for session in sessions):
            continue  # one is kept free for it already
        for session in sessions:
            if session.free <= 0 or (session.executing and session.spared_until_ms > node.clock.monotonic_ms()):
                continue
            batch = node.queue.pop(env.name, function_id, 1)
            if not batch:
                break
            item = batch[0]
            wait_ms = item.row.queued_ms - node.clock.now_ms()
            if item.row.priority != _SUSPECT or wait_ms > 0:
                node.queue.put_back(item)
                if wait_ms > 0:
                    node.loop.call_later(wait_ms / 1000, pump, node, env)
                break
            if session.executing:
                node.queue.put_back(item)
                session.suspect = ""  # no new work until it is idle: then the suspect goes there
                node.loop.call_later(node.tuning.lease_ms / 1000, _spare, node, session)
                break
            session.suspect = item.row.run_id
            if not take_all(node, env, session, [item]):
                session.suspect = None
            break
    return True


def _spare(node: Node, session: Session) -> None:
    """A session that did not become idle takes work again for a while: a long body must not keep others out."""
    if session.suspect == "":
        session.suspect = None
        session.spared_until_ms = node.clock.monotonic_ms() + node.tuning.lease_ms
        node.loop.call_later(node.tuning.lease_ms / 1000, pump, node, node.environment(session.row.env))
        freed(node, session)


async def _refill(node: Node, env: Environment, function_id: str) -> None:
    node.busy += 1
    try:
        if await node.queue.refill(env.name, function_id):
            pump(node, env)
    except UnavailableError:
        node.loop.call_later(0.5, pump, node, env)
    finally:
        node.busy -= 1


def take_all(node: Node, env: Environment, session: Session, items: Sequence[Queued]) -> int:
    """Queued runs of one function get a place, and are asked for where it has limits; how many of them need one."""
    wanted: list[Queued] = []
    for item in items:
        row = item.row
        if row.run_id in node.arriving or row.run_id in node.residents:
            # Another take of it is under way or done: a Take cannot tell that one's success from its own.
            node.queue.settled(row)
            continue
        reserve(node, session)
        node.arriving[row.run_id] = []
        wanted.append(item)
    function = env.limited.get(items[0].row.function_id)
    if function is None:
        timed = env.triggers.known.get(items[0].row.function_id)
        if timed is None or not (timed.timeout_ms or timed.start_timeout_ms):
            for item in wanted:
                _take(node, session, item, None)
        else:
            for item in wanted:
                _take_granted(node, session, item)
    elif wanted:
        granted, refused = partial(_take_granted, node, session), partial(_not_granted, node, session)
        limits.start(node, env, function, wanted, granted, refused)
    return len(wanted)


def limits_changed(node: Node, env: Environment) -> None:
    """Functions have other limits than before: whoever waits for one asks again."""
    node.look_again = partial(pump, node)
    node.limiter.listen(partial(limits.freed, node))
    limits.reconsider(node, env.name)


def _not_granted(node: Node, session: Session, item: Queued) -> None:
    row = item.row
    not_taken(node, session, row.env, row.run_id, row.function_id)


def _take_granted(node: Node, session: Session, item: Queued) -> None:
    """The take is guarded, the assignment follows its commit."""
    row = item.row
    function = node.environment(row.env).triggers.known.get(row.function_id)
    if function is None or not (function.timeout_ms or function.start_timeout_ms):
        _take(node, session, item, None)
    elif item.state is not None:
        _take(node, session, item, function)
    else:
        node.spawn(_take_timed(node, session, item, function))


async def _take_timed(node: Node, session: Session, item: Queued, function: FunctionSpec) -> None:
    """Of a run that is only in the store it has to be asked first whether it has started before."""
    node.busy += 1
    try:
        run = await read_run(node, item.row.env, item.row.run_id)
    finally:
        node.busy -= 1
    _take(node, session, item, function if run is not None and run.turn == 0 else None)


def _take(node: Node, session: Session, item: Queued, first: FunctionSpec | None) -> None:
    """first: of a run with time-outs that never started; its start closes one of them and opens the other."""
    env, run_id = item.row.env, item.row.run_id
    now = node.clock.now_ms()
    # What is at hand of a run that never started is right only while nobody else has started it.
    turn = 0 if first is not None or item.state is not None else None
    take = Take(env, run_id, session.id, now, session.row.deployment, turn)
    commit = Commit(env, touches=(run_id,), decider=take)
    if node.cluster is not None:
        commit.fences = node.place_fence(session)
    if first is not None:
        commit.waits = timeouts.from_start(first, env, run_id, now)
        commit.wait_deletes = (timeouts.started(env, run_id),)
        commit.touches = (run_id, f"{run_id}/{START_KEY}", f"{run_id}/{CANCEL_KEY}")
    node.lane.submit(commit, _taken, (node, session, item, take, commit.waits))


def _taken(result: CommitResult, argument: tuple[Node, Session, Queued, Take, Sequence[WaitRow]]) -> None:
    node, session, item, take, waits = argument
    row = item.row
    node.queue.settled(row)
    if result.verdict is not _APPLIED:
        not_taken(node, session, row.env, row.run_id, row.function_id)
        if result.verdict is Verdict.FENCED and node.cluster is not None:
            fence.fenced(node, session)
            queued(node, row, item.state)
        return
    if node.tally is not None:
        node.tally.queued(row, node.clock.now_ms())
    if node.resting.keeping:
        limits.started(node, row.run_id)
    if waits:
        ring(node, waits)
    if item.state is None:
        load_soon(node, session, row.env, row.run_id, row.function_id)
        return
    run = item.state.run
    started = take.started_ms if run.started_ms is None else run.started_ms
    held = run.held(session.id, run.turn + 1, run.deployment or take.deployment, started)
    kept = tuple(wait for wait in item.state.waits if wait.kind == StepKind.CLAIM) if item.state.waits else ()
    assign(node, session, RunState(held, item.state.event, (), (*waits, *kept)))


def ring(node: Node, waits: Sequence[WaitRow]) -> None:
    """Waits are durable: their timers are armed."""
    for wait in waits:
        if wait.due_ms is not None:
            node.wake_timers(wait.due_ms)


def not_taken(node: Node, session: Session, env: str, run_id: str, function_id: str) -> None:
    """A place was reserved for a run that is not to be had. What came for the run meanwhile looks for it anew."""
    came = node.arriving.pop(run_id, None)
    if node.resting.held or node.resting.keeping:
        limits.release(node, run_id)
    not_coming(node, session, run_id)
    for then in came or ():
        then(function_id)


def not_coming(node: Node, session: Session, run_id: str = "") -> None:
    """The place that was reserved for a run is free again."""
    _came(node, session)
    give_back(node, session, run_id)


def load_soon(node: Node, session: Session, env: str, run_id: str, function_id: str) -> None:
    """Reads a run that a session was given, together with others, and assigns it."""
    node.to_load.append((session, env, run_id, function_id))
    if len(node.to_load) == 1:
        node.loop.call_soon(_load_start, node)


def _load_start(node: Node) -> None:
    node.spawn(_load(node))


async def _load(node: Node) -> None:
    node.busy += 1
    try:
        while node.to_load:
            batch, node.to_load = node.to_load[:256], node.to_load[256:]
            by_env: dict[str, list[tuple[Session, str, str]]] = {}
            for session, env, run_id, function_id in batch:
                by_env.setdefault(env, []).append((session, run_id, function_id))
            for env, wanted in by_env.items():
                states = await read(node, env, [run_id for _, run_id, _ in wanted])
                for session, run_id, function_id in wanted:
                    state = states.get(run_id)
                    if state is None or state.run.session_id != session.id or state.run.status not in _HOLDABLE:
                        not_taken(node, session, env, run_id, function_id)
                    elif (home := _home(node, session, state.run)) is not None:
                        _rehome(node, session, home, state.run)
                    else:
                        assign(node, session, state)
    finally:
        node.busy -= 1


def _home(node: Node, session: Session, run: RunRow) -> Session | None:
    """A session of the deployment that began the run, with a free place, where the given one is of another (H15)."""
    if not run.deployment or run.deployment == session.row.deployment or run.deployment in tried(run.failure):
        return None
    for other in node.environment(run.env).serving.get(run.function_id, ()):
        if other.row.deployment == run.deployment and other.free > 0:
            return other
    return None


def _rehome(node: Node, session: Session, home: Session, run: RunRow) -> None:
    reserve(node, home)
    status = int(RunStatus.RUNNING)
    move = Move(run.env, run.id, run.turn, run.turn + 1, status, 0, home.id, run.losses, None, "", run.failure)
    fences = (*session.fence, *node.place_fence(home))
    commit = Commit(run.env, touches=(run.id,), fences=fences, decider=move)
    node.lane.submit(commit, _rehomed, (node, session, home, run))


def _rehomed(result: CommitResult, argument: tuple[Node, Session, Session, RunRow]) -> None:
    node, session, home, run = argument
    if result.verdict is Verdict.FENCED and node.cluster is not None:
        # Either session may be held elsewhere by now. Where it is the first one, its new node has found the run.
        fence.fenced(node, home)
        not_coming(node, home)
        load_soon(node, session, run.env, run.id, run.function_id)
        return
    not_coming(node, session, run.id)
    if result.verdict is Verdict.APPLIED:
        load_soon(node, home, run.env, run.id, run.function_id)
    else:
        not_taken(node, home, run.env, run.id, run.function_id)


def assign(node: Node, session: Session, state: RunState) -> None:
    """A run that is durably this session's goes to its worker; its place is reserved already."""
    run = state.run
    came = node.arriving.pop(run.id, None)
    _came(node, session)
    if node.sessions.get(session.id) is not session or session.link is None:
        # Its session broke meanwhile: what re-opens or expires the session finds the run in the store.
        session.executing -= 1
        return
    resident = Resident.of(session, state)
    session.residents[run.id] = resident
    node.residents[run.id] = resident
    if state.waits and node.cluster is not None:
        ring(node, state.waits)  # whoever opened one may be another node
    session.link.assign(state, resident.cancel_unseen())
    resident.assigned_frame = session.link.frames_sent() + 1
    for then in came or ():
        then(run.function_id)
    node.changed(run.id)


def give_back(node: Node, session: Session, run_id: str = "") -> None:
    """A place of a session is free again: woken runs first, then queued ones (H14c)."""
    session.executing -= 1
    if session.suspect is not None and session.suspect == run_id:
        session.suspect = None
    freed(node, session)


def freed(node: Node, session: Session) -> None:
    """Uses the free places of a session."""
    if session.suspect == "" and session.executing == 0:
        session.suspect = None
    while session.wakes and session.link is not None and session.executing < session.capacity:
        resident = session.wakes.popleft()
        if is_here(node, session, resident):
            enter(node, session, resident)
    if session.free > 0:
        pump(node, node.environment(session.row.env))


def is_here(node: Node, session: Session, resident: Resident) -> bool:
    """A woken run still waits to execute in the worker that has it in memory."""
    same = resident.session is session and node.residents.get(resident.run_id) is resident
    return same and not resident.ended and not resident.executing and resident.held is not None


def enter(node: Node, session: Session, resident: Resident) -> None:
    """A woken run has a place in its worker: it is told what came, once the limits of its function let it."""
    env = node.environment(resident.env)
    function = env.limited.get(resident.function_id) if env.limited else None
    if function is None or function.flow is None:
        _enter(session, resident)
    elif not lines.fits(function.flow, resident.run.line):
        node.spawn(_enter_relined(node, env, function.flow, session, resident))
    else:
        session.executing += 1
        if not limits.enter(node, env, function, resident.run, partial(_may_enter, node, session, resident)):
            session.executing -= 1
            _enter(session, resident)


def _may_enter(node: Node, session: Session, resident: Resident, held: Held | None) -> None:
    """The limits have answered: the place is used now, or goes back until they have room."""
    session.executing -= 1
    if not is_here(node, session, resident):
        if held is None and not resident.executing:
            limits.release(node, resident.run_id)
        freed(node, session)
    elif held is None:
        resident.limit = ""
        _enter(session, resident)
    else:
        resident.limit = held.limit
        limits.wait(node, held, partial(_enter_again, node, session, resident))
        freed(node, session)


def _enter_again(node: Node, session: Session, resident: Resident) -> bool:
    """A limit was freed for a woken run; false where that does not help it now."""
    resident.limit = ""
    if not is_here(node, session, resident):
        return False
    if session.executing >= session.capacity or session.suspect is not None:
        session.wakes.append(resident)
        return False
    enter(node, session, resident)
    return True


async def _enter_relined(node: Node, env: Environment, flow: Flow, session: Session, resident: Resident) -> None:
    resident.run = await limits.relined(node, env, flow, resident.run)
    if not is_here(node, session, resident):
        return
    if session.executing < session.capacity and session.suspect is None:
        enter(node, session, resident)
    else:
        session.wakes.append(resident)


def _enter(session: Session, resident: Resident) -> None:
    held, resident.held = resident.held, None
    wake(session, resident)
    for outcome in held or ():
        resident.received += 1
        if session.link is not None:
            session.link.outcome(resident.turn, outcome)


def wake(session: Session, resident: Resident) -> None:
    """A parked resident takes a place."""
    if not resident.executing:
        resident.executing = True
        resident.tree = None
        session.executing += 1


def park(node: Node, resident: Resident) -> None:
    """A resident with nothing to execute gives its place up."""
    if resident.executing:
        resident.executing = False
        if node.resting.held:
            limits.release(node, resident.run_id)
        give_back(node, resident.session, resident.run_id)


def forget(node: Node, resident: Resident) -> None:
    """A run leaves its worker: it ended, or goes elsewhere."""
    resident.ended = True
    session = resident.session
    if session.residents.get(resident.run_id) is resident:
        del session.residents[resident.run_id]
    if node.residents.get(resident.run_id) is resident:
        del node.residents[resident.run_id]
    if resident.executing:
        resident.executing = False
        if node.resting.held:
            limits.release(node, resident.run_id)
        give_back(node, session, resident.run_id)
    elif session.suspect == resident.run_id:
        session.suspect = None
        freed(node, session)
