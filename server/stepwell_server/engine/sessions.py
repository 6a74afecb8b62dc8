"""Workers come, come back, fall silent and go: a session's life (H8, H10–H13)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import NamedTuple

from stepwell_server.engine import dispatch, fence, flow, limits, loading, recover, register, wake
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.residents import Resident, Session, Tree, base_key
from stepwell_server.model import ids
from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.errors import FencedError, InvalidError, StateError
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.journal import UNWINDING, OutcomeRow, StepKind
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.notes import Adopted
from stepwell_server.model.run import LIVE, RunStatus
from stepwell_server.model.session import SessionRow, SessionWrite
from stepwell_server.ports.link import Link
from stepwell_server.ports.store import RunState

log = logging.getLogger("stepwell.sessions")
_LIVE = frozenset(int(status) for status in LIVE)
CAPABILITIES = frozenset({"flow", "timeouts"})
"""Features of the protocol that this server has, beside those that every version has. A worker that needs one asks."""
NEEDED = frozenset[str]()
"""Those that a worker must have."""


class Held(NamedTuple):
    """A run that a worker says it has in memory."""

    run_id: str
    turn: int
    parked: bool


class Hello(NamedTuple):
    """What a worker says of itself when it connects."""

    app: str
    deployment: str
    instance: str
    sdk: str
    session_id: str
    functions: Sequence[FunctionSpec]
    capacity: int
    residents: Sequence[Held]
    capabilities: frozenset[str]
    labels: tuple[tuple[str, str], ...] = ()


async def connect(node: Node, env: Environment, hello: Hello, link: Link) -> tuple[Session, list[Held]]:
    """Opens a session, or takes up the one the worker had; answers with it and the residents it does not hold.

    The link may be written to after the caller has sent Welcome, and calls opened() then. Raises InvalidError,
    StateError, FencedError, UnavailableError.
    """
    node.check_accepting()
    opening = node.spawn(_in_turn(node, env, hello, link))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The stream broke meanwhile: a session that opens all the same has lost its worker.
        opening.add_done_callback(lambda done: _forsaken(node, done))
        raise


def _forsaken(node: Node, opening: asyncio.Task[tuple[Session, list[Held]]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        stream_ended(node, opening.result()[0], goodbye=False)


async def _in_turn(node: Node, env: Environment, hello: Hello, link: Link) -> tuple[Session, list[Held]]:
    """Of two streams that take one session up at once the later one waits, and then ends the other's: both would write
    the same row, and each would take that for its own success (H8)."""
    while hello.session_id in node.connecting:
        await asyncio.wait((node.connecting[hello.session_id],))
    me = asyncio.current_task()
    if not hello.session_id or me is None:
        return await _connect(node, env, hello, link)
    node.connecting[hello.session_id] = me
    try:
        return await _connect(node, env, hello, link)
    finally:
        del node.connecting[hello.session_id]


async def _connect(node: Node, env: Environment, hello: Hello, link: Link) -> tuple[Session, list[Held]]:
    if not 0 <= hello.capacity <= LIMITS.capacity:
        raise InvalidError("BAD_CAPACITY", f"capacity is not 0 to {LIMITS.capacity}", fields=(("capacity", "range"),))
    missing = sorted(NEEDED - hello.capabilities)
    if missing:
        raise StateError("CAPABILITY_MISSING", f"this server needs workers with {', '.join(missing)}: update the SDK")
    if any(len(held.run_id) > LIMITS.key_bytes for held in hello.residents):
        raise InvalidError("TOO_LARGE", "a resident's run_id is too long", fields=(("residents", "run_id"),))
    for text, field in ((hello.instance, "instance"), (hello.sdk, "sdk")):
        if len(text) > LIMITS.name_bytes or not text.isprintable():
            raise InvalidError("BAD_TEXT", f"{field} is too long or not printable", fields=((field, "bad"),))
    flow.check_labels("worker", hello.labels)
    await register.register(node, env, hello.app, hello.deployment, hello.functions)
    old = await _find(node, env, hello)
    row = SessionRow(
        env.name,
        old.id if old is not None else ids.session_id(node.clock.now_ms(), node.entropy(10)),
        old.epoch + 1 if old is not None else 1,
        node.id,
        hello.app,
        hello.deployment,
        hello.instance,
        hello.sdk,
        hello.capacity,
        ",".join(sorted(served(hello))),
        old.opened_ms if old is not None else node.clock.now_ms(),
        None,
    )
    _detach(node, row.id)
    write = SessionWrite(old.epoch if old is not None else 0, row)
    result = await node.lane.apply(Commit(env.name, touches=(row.id,), decider=write))
    if result.verdict is not Verdict.APPLIED:
        raise FencedError("STALE_EPOCH", "another connection took the session up; connect again", retry_ms=100)
    if node.cluster is not None and old is not None and old.node != node.id:
        node.cluster.tell(Adopted(row.id, row.epoch), old.node)
    session = Session(row, hello.labels)
    refused = list(hello.residents)
    resumed: list[RunState] = []
    if old is not None:
        await dispatch.none_coming(node, row.id)
        refused, resumed = await _reconcile(node, env, session, hello.residents)
    session.link = link
    session.heard_ms = node.clock.monotonic_ms()
    node.sessions[row.id] = session
    known = {"environment": row.env, "session": row.id}
    log.info("worker %s of app %s has connected", row.instance, row.app, extra=known)
    for function_id in session.functions:
        env.serving.setdefault(function_id, []).append(session)
    parked = {held.run_id for held in hello.residents if held.parked}
    for state in resumed:
        _resume(node, session, state, state.run.id in parked)
    return session, refused


def served(hello: Hello) -> list[str]:
    """The functions whose labels the worker has: the others it registers, and leaves to others."""
    has = frozenset(hello.labels)
    return [function.id for function in hello.functions if has.issuperset(function.labels)]


def opened(node: Node, session: Session) -> None:
    """Welcome is on its way: outcomes that wait for resumed runs follow, then work."""
    link = session.link
    if link is None:
        return
    for resident in list(session.residents.values()):
        request = resident.cancel_unseen()
        if request is not None:
            dispatch.wake(session, resident)
            link.cancel(resident.turn, request)
        for outcome in resident.undelivered():
            if resident.executing:
                resident.received += 1
                link.outcome(resident.turn, outcome)
            else:
                resident.unseen = {k: v for k, v in (resident.unseen or {}).items() if k != outcome.key}
                wake.deliver(node, resident, outcome)
    recover.fitting_worker(node, session)
    if node.cluster is not None:
        for function_id in session.functions:
            node.queue.learn(session.row.env, function_id, sure=True)
        node.cluster.say_room()
    dispatch.pump(node, node.environment(session.row.env))


async def _find(node: Node, env: Environment, hello: Hello) -> SessionRow | None:
    """The open session that the worker names, if it is of the same app."""
    if not hello.session_id:
        return None
    known = node.sessions.get(hello.session_id)
    rows = [known.row] if known is not None else await node.store.sessions(env.name)
    for row in rows:
        if row.id == hello.session_id and row.app == hello.app and row.env == env.name:
            return row
    return None


def _detach(node: Node, session_id: str) -> None:
    """An older stream of the session ends; what it held in memory is read anew (see connect)."""
    old = node.sessions.get(session_id)
    if old is None:
        return
    fence.drop(node, old)
    if old.link is not None:
        old.link.close("STALE_EPOCH", "the session was taken up by a newer connection")
        old.link = None


async def _reconcile(
    node: Node, env: Environment, session: Session, residents: Sequence[Held]
) -> tuple[list[Held], list[RunState]]:
    """Hello's list is the truth for its session (H10): missing runs are queued anew, extra ones refused."""
    claimed = {held.run_id: held for held in residents}
    held_rows = {row.id: row for row in await recover.held_by(node, env.name, session.id)}
    kept = [run_id for run_id, row in held_rows.items() if run_id in claimed and claimed[run_id].turn == row.turn]
    refused = [held for held in residents if held.run_id not in kept]
    missing = [row for run_id, row in held_rows.items() if run_id not in kept]
    await recover.requeue_rows(node, env.name, missing, lost=False, fence=session.fence)
    came = {run_id: list[OutcomeRow]() for run_id in kept}
    node.adopting.update(came)
    states: list[RunState] = []
    try:
        for at in range(0, len(kept), 256):
            states.extend((await loading.read(node, env.name, kept[at : at + 256])).values())
    finally:
        for run_id, outcomes in came.items():
            if node.adopting.get(run_id) is outcomes:
                del node.adopting[run_id]
    now = node.clock.now_ms()
    return refused, [_with(state, came[state.run.id], now) for state in states if state.run.status in _LIVE]


def _with(state: RunState, came: Sequence[OutcomeRow], now: int) -> RunState:
    """A run with the outcomes that became durable while it was read. Of two for one key the first one came.

    A child's end that may have come too late is left out: the sweep finds what did not.
    """
    new: dict[str, OutcomeRow] = {}
    there, open_ = {row.key for row in state.outcomes}, {wait.key: wait for wait in state.waits}
    for row in came:
        wait = open_.get(row.key)
        late = wait is not None and row.kind == StepKind.INVOKE and not wake.sure(wait, now)
        if row.key not in there and not late and (wait is not None or row.kind in UNWINDING):
            new.setdefault(row.key, row)
    if not new:
        return state
    waits = tuple(wait for wait in state.waits if wait.key not in new)
    return replace(state, outcomes=(*state.outcomes, *new.values()), waits=waits)


def _resume(node: Node, session: Session, state: RunState, parked: bool) -> None:
    """A run stays with the worker that has it in memory."""
    resident = Resident.of(session, state)
    if node.cluster is not None:
        dispatch.ring(node, state.waits)
    if parked:
        resident.executing = False
        keys = {base_key(key) for key in resident.open or ()} | {base_key(key) for key in resident.unseen or ()}
        resident.tree = Tree(False, tuple(keys), ())
        resident.stored = RunStatus(state.run.status)
        limits.release(node, state.run.id)
    else:
        session.executing += 1
        if resident.cancel is None:
            limits.count(node, state.run)
    session.residents[resident.run_id] = resident
    node.residents[resident.run_id] = resident


def stream_ended(node: Node, session: Session, goodbye: bool) -> None:
    """A stream is gone: after Goodbye the session ends at once, else after a short grace (H12a)."""
    session.link = None
    if node.stopping or node.sessions.get(session.id) is not session:
        return
    if goodbye:
        node.spawn(expire(node, session, lost=False))
        return
    delay_ms = node.tuning.stream_grace_ms
    session.until_ms = node.clock.now_ms() + delay_ms
    session.expiry = node.loop.call_later(delay_ms / 1000, _expire_soon, node, session)


def _expire_soon(node: Node, session: Session) -> None:
    session.expiry = None
    if session.link is None and node.sessions.get(session.id) is session:
        node.spawn(expire(node, session, lost=True))


async def expire(node: Node, session: Session, *, lost: bool) -> None:
    """Raises the epoch for the last time; the session's runs are moved."""
    node.busy += 1
    try:
        fence.drop(node, session)
        await close(node, session.row, lost=lost)
    finally:
        node.busy -= 1


async def close(node: Node, row: SessionRow, *, lost: bool) -> None:
    """Closes a session's row, if nobody has taken it up, and moves its runs."""
    closed = row._replace(epoch=row.epoch + 1, closed_ms=node.clock.now_ms(), node=node.id)
    node.closing.add(row.id)
    try:
        result = await node.lane.apply(Commit(row.env, touches=(row.id,), decider=SessionWrite(row.epoch, closed)))
        if result.verdict is not Verdict.APPLIED:
            return
        await dispatch.none_coming(node, row.id)
        rows = await recover.held_by(node, row.env, row.id)
        known = {"environment": row.env, "session": row.id}
        log.info("worker %s has left; %d runs move", row.instance, len(rows), extra=known)
        await recover.requeue_rows(node, row.env, rows, lost=lost)
    finally:
        node.closing.discard(row.id)


def check_heartbeat(session: Session, residents: int, resident_hash: int, frames_read: int) -> bool:
    """Whether the worker holds the same runs as the server believes, as of the last server frame it has read (H10).

    One difference may be a frame that crosses another; two in a row are real.
    """
    expected = 0
    count = 0
    for resident in session.residents.values():
        if resident.assigned_frame <= frames_read:
            count += 1
            expected += hash_of(resident.run_id, resident.turn)
    for run_id, (turn, _, frame) in list(session.ended.items()):
        if frame > frames_read:
            count += 1
            expected += hash_of(run_id, turn)
        else:
            del session.ended[run_id]
    alike = count == residents and expected % 2**64 == resident_hash
    session.unlike = 0 if alike else session.unlike + 1
    return session.unlike < 2


def hash_of(run_id: str, turn: int) -> int:
    """One resident's part of the heartbeat's hash: see Heartbeat.resident_hash."""
    return int.from_bytes(blake2b(f"{run_id}:{turn}".encode(), digest_size=8).digest(), "big")
