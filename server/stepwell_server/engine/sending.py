"""Events that a step sends under ids of its own: each is accepted once, then the step has its outcome (H21, H23)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson

from stepwell_server.engine import admission, ending, ingest, recover, serve, wake
from stepwell_server.engine.failures import failure_json
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.residents import Resident, Session
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.event import DedupRow, EventRow
from stepwell_server.model.journal import OutcomeRow
from stepwell_server.model.limits import LIMITS

log = logging.getLogger("stepwell.sending")


def send_known(
    node: Node,
    env: Environment,
    session: Session,
    resident: Resident,
    outcome: OutcomeRow,
    events: list[tuple[EventRow, Any]],
) -> None:
    """Accepts the events in the background. A crash before the outcome repeats the step; the ids make that harmless."""
    resident.expect(outcome.key)
    node.spawn(_send(node, env, session, resident, outcome, events))


async def _send(
    node: Node,
    env: Environment,
    session: Session,
    resident: Resident,
    outcome: OutcomeRow,
    events: list[tuple[EventRow, Any]],
) -> None:
    node.busy += 1
    try:
        named = [(row, data) for row, data in events if row.sender_id]
        expires_ms = outcome.ended_ms + LIMITS.dedup_ms
        results = await asyncio.gather(
            *(
                ingest.accept(node, env, [(row, data)], DedupRow(env.name, "e:" + row.sender_id, row.id, expires_ms))
                for row, data in named
            )
        )
        outcome = _with_ids(
            outcome, [row for row, _ in events], dict(zip([row.id for row, _ in named], results, strict=True))
        )
        await _conclude(node, env, session, resident, outcome, [pair for pair in events if not pair[0].sender_id])
    except Exception:
        # Our fault: the run pays for it as for a frame that cannot be applied, since nothing else would ever wake it.
        known = {"environment": resident.env, "run_id": resident.run_id, "session": session.id}
        log.exception("the events of step %s of run %s could not be sent", outcome.key, resident.run_id, extra=known)
        if node.residents.get(resident.run_id) is resident and not resident.ended:
            session.evict(resident)
            recover.requeue(node, session, resident, lost=True)
    finally:
        node.busy -= 1
        if resident.pending is not None:
            resident.pending.discard(outcome.key)


def _with_ids(outcome: OutcomeRow, rows: list[EventRow], results: dict[str, CommitResult]) -> OutcomeRow:
    """The outcome with the ids that stand: of a duplicate, the first one's."""
    refused = next((result for result in results.values() if result.verdict is Verdict.REFUSED), None)
    if refused is not None:
        return _refused(outcome, refused)
    ids: list[str] = []
    for row in rows:
        result = results.get(row.id)
        ids.append(result.existing if result is not None and result.verdict is Verdict.LOST else row.id)
    return outcome._replace(output=orjson.dumps(ids))


def _refused(outcome: OutcomeRow, result: CommitResult) -> OutcomeRow:
    failure = {"type": "InvalidError", "message": f"the store refused an event: {result.existing}"}
    failure |= {"reason": "STORE_REFUSED", "non_retriable": True}
    return outcome._replace(output=None, failure=failure_json(failure))


async def _conclude(
    node: Node,
    env: Environment,
    session: Session,
    resident: Resident,
    outcome: OutcomeRow,
    plain: list[tuple[EventRow, Any]],
) -> None:
    """The events without an id and the step's outcome are one commit.

    Where the store refuses it the step fails; where it refuses even that the run does: nothing would ever wake it.
    """
    starts: list[admission.Start] = []
    batch: serve.Accepted | None = None
    commit = Commit(env.name)
    if plain and outcome.failure is None:
        commit, starts, batch = ingest.accepting(node, env, plain, None, at_once=node.cluster is None)
    run_id = resident.run_id
    commit.touches = (*commit.touches, run_id, f"{run_id}/{outcome.key}")
    commit.fences = session.fence
    commit.outcomes = (outcome,)
    result = await node.lane.apply(commit)
    applied = result.verdict is Verdict.APPLIED
    ingest.settled(node, env, commit, applied)
    admission.started(node, starts, applied)
    if result.verdict is Verdict.FENCED:
        return  # the session is held elsewhere: the step is sent again there
    if not applied and outcome.failure is None:
        await _conclude(node, env, session, resident, _refused(outcome, result), plain)
        return
    if not applied:
        message = f"the store refused: {result.existing}"
        ending.fail_now(node, session, resident, "STORE_REFUSED", message, node.clock.now_ms())
        return
    if batch is not None:
        serve.accepted(node, batch)
        for watcher in tuple(node.event_watchers):
            for row, _ in plain:
                watcher(row)
    if resident.pending is not None:
        resident.pending.discard(outcome.key)
    wake.arrived(node, resident.function_id, outcome)
