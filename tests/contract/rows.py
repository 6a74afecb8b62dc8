"""Rows with sensible values, so that a test names only what it is about."""

from __future__ import annotations

from typing import Any

from stepwell_server.model.claim import ClaimEnd, ClaimRow, MemberRow
from stepwell_server.model.commit import Commit
from stepwell_server.model.event import CursorRow, DedupRow, EventRow
from stepwell_server.model.function import DeploymentRow, ShapeRow, Standing, SwitchRow
from stepwell_server.model.journal import OutcomeRow, StepKind, WaitRow
from stepwell_server.model.run import End, Enqueue, Move, PausedReason, ReadyRow, RunRow, RunStatus, Take
from stepwell_server.model.session import Fence, LeaseRow, SessionRow

ENV = "prod"
NOW = 1_800_000_000_000
FUNCTION = "shop/drip"
SIGNED_UP = "user/signed.up"
BOOKED = "booking/created"


def event_id(n: int) -> str:
    """The n-th event, accepted n milliseconds after NOW."""
    return f"evt_{NOW + n:012x}{n:020x}"


def run_id(n: int) -> str:
    return f"run_{NOW + n:012x}{n:020x}"


def session_id(n: int) -> str:
    return f"ses_{NOW + n:012x}{n:020x}"


def event(n: int = 1, **changes: Any) -> EventRow:
    row = EventRow(
        env=ENV,
        id=event_id(n),
        name=SIGNED_UP,
        data=b'{"n":%d}' % n,
        encoding="",
        sender_id="",
        time_ms=NOW + n,
        accepted_ms=NOW + n,
        metadata=b"",
    )
    return row._replace(**changes)


def run(n: int = 1, **changes: Any) -> RunRow:
    """A new run, queued: ``ready`` is its place."""
    row = RunRow(
        env=ENV,
        id=run_id(n),
        function_id=FUNCTION,
        app="shop",
        status=int(RunStatus.QUEUED),
        reason=int(PausedReason.NONE),
        turn=0,
        session_id=None,
        event_id=event_id(n),
        parent_id=None,
        parent_key=None,
        detached=False,
        depth=0,
        deployment="",
        losses=0,
        priority=0,
        queued_ms=NOW + n,
        created_ms=NOW + n,
        started_ms=None,
        ended_ms=None,
        input=None,
        input_encoding="",
        output=None,
        output_encoding="",
        failure=None,
        metadata=b"",
        line="",
    )
    return row._replace(**changes)


def held_run(n: int = 1, session: int = 1, **changes: Any) -> RunRow:
    """A run in its first turn, executed by a session."""
    running = {"status": int(RunStatus.RUNNING), "turn": 1, "session_id": session_id(session), "started_ms": NOW + n}
    return run(n, **{**running, "queued_ms": 0, **changes})


def parked_run(n: int = 1, **changes: Any) -> RunRow:
    """A run after its first turn that no session holds."""
    return run(n, **{"status": int(RunStatus.PARKED), "turn": 1, "started_ms": NOW + n, "queued_ms": 0, **changes})


def outcome(key: str = "charge", n: int = 1, **changes: Any) -> OutcomeRow:
    """An undelivered outcome of the n-th run."""
    row = OutcomeRow(
        env=ENV,
        run_id=run_id(n),
        key=key,
        number=None,
        kind=int(StepKind.RUN),
        target=key,
        output=b"1",
        output_encoding="",
        failure=None,
        attempt=1,
        started_ms=NOW,
        ended_ms=NOW + 1,
        input_hash=b"",
        event_id=None,
        child_id=None,
    )
    return row._replace(**changes)


def by_event(key: str = "booking", n: int = 1, event_n: int = 7, **changes: Any) -> OutcomeRow:
    """An event resolves a wait of the n-th run."""
    return outcome(
        key,
        n,
        **{"kind": int(StepKind.EVENT), "target": BOOKED, "output": None, "event_id": event_id(event_n), **changes},
    )


def by_time_out(key: str = "booking", n: int = 1, **changes: Any) -> OutcomeRow:
    """The time-out of a wait for an event."""
    return outcome(key, n, **{"kind": int(StepKind.EVENT), "target": BOOKED, "output": None, **changes})


def wait(key: str = "booking", n: int = 1, **changes: Any) -> WaitRow:
    """The n-th run waits for an event; it has looked back already."""
    row = WaitRow(
        env=ENV,
        run_id=run_id(n),
        key=key,
        kind=int(StepKind.EVENT),
        target=BOOKED,
        match_key="data.user=u1",
        condition="",
        due_ms=NOW + 1_000,
        child_id=None,
        detached=False,
        attempt=1,
        failure=None,
        input_hash=b"",
        opened_ms=NOW,
        after_event=None,
        function_id=FUNCTION,
    )
    return row._replace(**changes)


def sleep(key: str = "nap", n: int = 1, due_ms: int = NOW + 1_000, **changes: Any) -> WaitRow:
    asleep = {"kind": int(StepKind.SLEEP), "target": "", "match_key": None, "due_ms": due_ms}
    return wait(key, n, **{**asleep, **changes})


def session(n: int = 1, **changes: Any) -> SessionRow:
    """An open session in its first epoch."""
    row = SessionRow(
        env=ENV,
        id=session_id(n),
        epoch=1,
        node="node-1",
        app="shop",
        deployment="d1",
        instance="i1",
        sdk="python/0.1",
        capacity=100,
        function_ids=FUNCTION,
        opened_ms=NOW,
        closed_ms=None,
    )
    return row._replace(**changes)


def fence(n: int = 1, epoch: int = 1) -> Fence:
    return Fence(ENV, session_id(n), epoch)


def move(n: int = 1, expect_turn: int = 0, **changes: Any) -> Move:
    """The n-th run is assigned to session 1: one turn later."""
    row = Move(
        env=ENV,
        run_id=run_id(n),
        expect_turn=expect_turn,
        turn=expect_turn + 1,
        status=int(RunStatus.RUNNING),
        reason=int(PausedReason.NONE),
        session_id=session_id(1),
        losses=0,
        started_ms=NOW + 5,
        deployment="d1",
        failure=None,
    )
    return row._replace(**changes)


def take(n: int = 1, session: int = 1, **changes: Any) -> Take:
    return Take(ENV, run_id(n), session_id(session), NOW + 5, "d1")._replace(**changes)


def enqueue(n: int = 1, **changes: Any) -> Enqueue:
    """The n-th run is queued again: ``ready`` is its place."""
    return Enqueue(ENV, run_id(n), 0, NOW + n)._replace(**changes)


def end(n: int = 1, turn: int = 1, **changes: Any) -> End:
    row = End(
        env=ENV,
        run_id=run_id(n),
        turn=turn,
        status=int(RunStatus.COMPLETED),
        ended_ms=NOW + 9,
        output=b'"done"',
        output_encoding="",
        failure=None,
    )
    return row._replace(**changes)


def ready(n: int = 1, **changes: Any) -> ReadyRow:
    """The place of the n-th run."""
    return ReadyRow(ENV, run_id(n), FUNCTION, 0, NOW + n)._replace(**changes)


def dedup(key: str = "r:1", value: str = "evt_1", **changes: Any) -> DedupRow:
    return DedupRow(ENV, key, value, NOW + 86_400_000)._replace(**changes)


def cursor(n: int = 1, **changes: Any) -> CursorRow:
    return CursorRow(ENV, event_id(n), event_id(n))._replace(**changes)


def deployment(id_: str = "d1", **changes: Any) -> DeploymentRow:
    return DeploymentRow(ENV, "shop", id_, NOW, b'[{"id":"shop/drip"}]')._replace(**changes)


def shape(path: str = "data.user", **changes: Any) -> ShapeRow:
    return ShapeRow(ENV, BOOKED, path)._replace(**changes)


def switch(at_ms: int = NOW, standing: Standing = Standing.KEEP, **changes: Any) -> SwitchRow:
    """How the function stands from a moment on."""
    return SwitchRow(ENV, FUNCTION, at_ms, int(standing))._replace(**changes)


def lease(holder: str = "node-1", beat: int = 1, **changes: Any) -> LeaseRow:
    return LeaseRow("serve", holder, beat, "")._replace(**changes)


def claim(version: int = 1, n: int = 1, **changes: Any) -> ClaimRow:
    """The n-th run's claim."""
    return ClaimRow(ENV, "s:shop/drip:1", version, run_id(n), "{}", NOW + 1_000)._replace(**changes)


def claim_end(n: int = 1, **changes: Any) -> ClaimEnd:
    return ClaimEnd(ENV, "s:shop/drip:1", run_id(n), NOW + 60_000)._replace(**changes)


def member(event_n: int = 1, n: int = 1, **changes: Any) -> MemberRow:
    """An event joins the n-th run."""
    return MemberRow(ENV, event_id(event_n), FUNCTION, run_id(n))._replace(**changes)


def commit(**parts: Any) -> Commit:
    """A Commit in ENV; each part is what Commit calls it."""
    return Commit(ENV, **parts)
