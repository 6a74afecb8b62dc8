"""After an event is durable: the runs and waits it can serve are looked up in a new snapshot (H17, H21b, H22)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from stepwell_server.engine import admission, expressions, loading, matching, wake
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.register import refresh
from stepwell_server.model import ids
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.event import CursorDelete, CursorRow, EventRow
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.journal import WaitRow
from stepwell_server.ports.store import Probe, RunState

log = logging.getLogger("stepwell.serve")
RUNS_AT_ONCE = 250
_TIDY_S = 1.0


class Accepted(NamedTuple):
    """A batch of accepted events. cursor: None where there is nothing to serve. rest: runs that its commit had no room
    for, or that have a gate to pass. triggers: the registry that it was matched with. again: some of it may be done."""

    env: Environment
    events: list[tuple[EventRow, Any]]
    cursor: CursorRow | None
    rest: list[tuple[FunctionSpec, EventRow]]
    triggers: matching.TriggerIndex
    again: bool = False


def accepted(node: Node, batch: Accepted) -> None:
    """Events are durable: what they have not started and whom they can wake is looked up in a new snapshot."""
    if batch.cursor is not None:
        node.unserved.append(batch)
        if len(node.unserved) == 1:
            node.loop.call_soon(_serve_start, node)


def is_gated(function: FunctionSpec) -> bool:
    """Whether an event has to pass a gate before it starts a run of the function."""
    return function.flow is not None and function.flow.gated


async def serve_again(node: Node, cursor: CursorRow, events: list[EventRow]) -> None:
    """A cursor that a crash left: its runs are started (those that exist stay), its waits served."""
    env = node.environment(cursor.env)
    await refresh(node, env)
    pairs = [(row, matching.event_data(row)) for row in events]
    rest = [(function, row) for row, data in pairs for function in env.triggers.fitting(row, data)]
    missing: list[tuple[FunctionSpec, EventRow]] = []
    for at in range(0, len(rest), RUNS_AT_ONCE):
        part = rest[at : at + RUNS_AT_ONCE]
        run_ids = [ids.run_id_for_event(env.name, row.id, function.id) for function, row in part]
        there = await loading.read(node, env.name, run_ids)
        missing.extend(pair for pair, run_id in zip(part, run_ids, strict=True) if run_id not in there)
    accepted(node, Accepted(env, pairs, cursor, missing, env.triggers, again=True))


def _serve_start(node: Node) -> None:
    node.spawn(_serve(node))


async def _serve(node: Node) -> None:
    """Serves all cursors there are; more that come meanwhile are served together afterwards."""
    while node.unserved:
        batch = list(node.unserved)
        try:
            by_env: dict[str, list[Accepted]] = {}
            for item in batch:
                by_env.setdefault(item.env.name, []).append(item)
            for items in by_env.values():
                await _serve_env(node, items[0].env, items)
        except UnavailableError:
            await asyncio.sleep(0.5)
            continue
        except Exception:
            await _serve_alone(node, batch)
        del node.unserved[: len(batch)]


async def _serve_alone(node: Node, batch: list[Accepted]) -> None:
    """Something broke: the events that it comes from must not hold up the others. They keep their cursor."""
    for item in batch:
        try:
            await _serve_env(node, item.env, [item])
        except Exception:
            log.exception("events from %s on could not be served", item.events[0][0].id)


async def _serve_env(node: Node, env: Environment, items: list[Accepted]) -> None:
    waits, keys = await _matches(node, env, items)
    for item in items:
        assert item.cursor is not None, "what has no cursor is not served"
        left = Countdown(_done_with(node, item.cursor))
        rest = item.rest
        for row, data in item.events:
            _wake_for(node, env, row, data, waits, keys.get(row.id, ()), left)
        if rest:
            now = node.clock.now_ms()
            gated = [pair for pair in rest if is_gated(pair[0])]
            if gated:
                rest = [pair for pair in rest if not is_gated(pair[0])]
                for _ in gated:
                    left.more()
                node.gates.admit(env, gated, left.one, again=item.again)
            for at in range(0, len(rest), RUNS_AT_ONCE):
                _start_more(node, env, rest[at : at + RUNS_AT_ONCE], now, left)
        left.armed()


async def _matches(
    node: Node, env: Environment, items: list[Accepted]
) -> tuple[dict[tuple[str, str], list[WaitRow]], dict[str, tuple[str, ...]]]:
    """Waits by (event name, match key), and the match keys of each event, at the registry's present version."""
    while True:
        probes: dict[str, set[str]] = {}
        keys: dict[str, tuple[str, ...]] = {}
        for item in items:
            for row, data in item.events:
                shapes = env.shapes.get(row.name)
                if shapes:
                    found = matching.match_keys(matching.event_value(row, data), shapes)
                    keys[row.id] = found
                    probes.setdefault(row.name, set()).update(found)
        asked = [Probe(name, tuple(sorted(found))) for name, found in probes.items() if found]
        if not asked and node.alone_since_ms is not None:
            return {}, keys  # nobody else registers anything
        matches = await node.store.match(env.name, asked)
        if matches.registry_version == env.version:
            break
        await refresh(node, env)
    for item in items:
        # Whoever refreshed the registry since the events were accepted: what it did not know then starts too (H22).
        if item.triggers is not env.triggers:
            _start_missing(env, item)
    waits: dict[tuple[str, str], list[WaitRow]] = {}
    for wait in matches.waits:
        waits.setdefault((wait.target, wait.match_key or ""), []).append(wait)
    return waits, keys


def _start_missing(env: Environment, item: Accepted) -> None:
    """Functions that were registered when the events were accepted, but not known here (H22)."""
    for row, data in item.events:
        had = {function.id for function in item.triggers.fitting(row, data)}
        item.rest.extend((function, row) for function in env.triggers.fitting(row, data) if function.id not in had)


def _start_more(
    node: Node, env: Environment, rest: list[tuple[FunctionSpec, EventRow]], now: int, left: Countdown
) -> None:
    # Another node may serve the same cursor, and insert the same runs: then a Take tells whose they are, and no insert.
    alone = node.cluster is None
    starts = [
        admission.start(
            node, env, function, ids.run_id_for_event(env.name, row.id, function.id), row, now, at_once=alone
        )
        for function, row in rest
    ]
    commit = Commit(env.name, runs=[item.run for item in starts], waits=admission.opened(starts))
    left.more()

    def done(result: CommitResult, _: Any) -> None:
        admission.started(node, starts, result.verdict is Verdict.APPLIED)
        left.one()

    node.lane.submit(commit, done)


def _wake_for(
    node: Node,
    env: Environment,
    row: EventRow,
    data: Any,
    waits: dict[tuple[str, str], list[WaitRow]],
    keys: tuple[str, ...],
    left: Countdown,
) -> None:
    """Resolves the waits that an event fits; those that need a closer look are judged with their run at hand."""
    candidates = [wait for key in keys for wait in waits.get((row.name, key), ())]
    if not candidates:
        return
    output = matching.event_json(row)
    now = node.clock.now_ms()
    closer: list[WaitRow] = []
    for wait in candidates:
        if wait.condition or wait.opened_ms >= row.accepted_ms:
            closer.append(wait)
            continue
        left.more()
        wake.resolve(
            node,
            wait.function_id,
            wake.outcome_of(wait, now, output=output, event_id=row.id),
            lambda _: left.one(),
        )
    if closer:
        left.more()
        node.spawn(_judge(node, env, row, data, closer, output, left))


async def _judge(
    node: Node, env: Environment, row: EventRow, data: Any, waits: list[WaitRow], output: bytes, left: Countdown
) -> None:
    """Waits with a condition, or opened after the event came: is it theirs, and did their run not take it before?"""
    node.busy += 1
    try:
        states = await loading.read(node, env.name, list({wait.run_id for wait in waits}))
    finally:
        node.busy -= 1
    now = node.clock.now_ms()
    for wait in waits:
        state = states.get(wait.run_id)
        if state is not None and may_take(env, wait, state, row, data):
            left.more()
            wake.resolve(
                node,
                wait.function_id,
                wake.outcome_of(wait, now, output=output, event_id=row.id),
                lambda _: left.one(),
            )
    left.one()


def may_take(env: Environment, wait: WaitRow, state: RunState, row: EventRow, data: Any) -> bool:
    """Whether an event is for a wait: its condition fits, and the run has neither begun with it nor taken it (H18)."""
    run = state.run
    if row.id <= run.event_id if run.event_id is not None else row.accepted_ms < run.created_ms:
        return False
    if any(outcome.event_id == row.id and outcome.number is not None for outcome in state.outcomes):
        return False
    if any(event.id == row.id for event in state.events):
        return False
    if not wait.condition:
        return True
    trigger = matching.event_value(state.event) if state.event is not None else {"data": matching.invoked_data(run)}
    try:
        return expressions.wait_fits(wait.condition, trigger, matching.event_value(row, data))
    except expressions.UnjudgedError as error:
        env.unjudged.note(f"{wait.run_id}/{wait.key}", expressions.Note(wait.condition, row.id, str(error)))
        return False


class Countdown:
    """Calls back once when all that was announced is done, and not before it is armed."""

    __slots__ = ("_count", "_then")

    def __init__(self, then: Callable[[], None]) -> None:
        self._count = 1
        self._then = then

    def more(self) -> None:
        """One more thing to wait for."""
        self._count += 1

    def one(self) -> None:
        """One thing is done."""
        self._count -= 1
        if self._count == 0:
            self._then()

    armed = one


def _done_with(node: Node, cursor: CursorRow) -> Callable[[], None]:
    def done() -> None:
        node.cursor_deletes.append(CursorDelete(cursor.env, cursor.id))
        tidy_soon(node)

    return done


def tidy_soon(node: Node) -> None:
    """Small deletes ride along with the next batch of events; if none comes within a second they go alone."""
    if not node.tidying:
        node.tidying = True
        node.loop.call_later(_TIDY_S, tidy, node)


def tidy(node: Node) -> None:
    """Submits the small deletes there are."""
    node.tidying = False
    if node.stopping:
        return
    deletes, node.cursor_deletes = node.cursor_deletes, []
    marks, node.looked_back = node.looked_back, []
    for env in {item.env for item in (*deletes, *marks)}:
        looked_back = [item for item in marks if item.env == env]
        commit = Commit(
            env,
            touches=tuple(f"{item.run_id}/{item.key}" for item in looked_back),
            cursor_deletes=[item for item in deletes if item.env == env],
            looked_back=looked_back,
        )
        node.lane.submit(commit, _tidied)


def _tidied(result: CommitResult, argument: object) -> None:
    """Nothing follows."""
