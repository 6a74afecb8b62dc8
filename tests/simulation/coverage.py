"""Which edges of a run's state chart (model/run.py) seeds have taken, and which nothing can take."""

from __future__ import annotations

from collections import Counter

from stepwell_server.model.run import EDGES, RunStatus

Edge = tuple[RunStatus | None, RunStatus]

_Q, _P, _X = RunStatus.QUEUED, RunStatus.PARKED, RunStatus.PAUSED
_GATE = "no function of the stories has a gate"
_BY_A_WORKER = "only a run that executes, or is woken, ends by itself"
_RESUMED = "a paused run is tried at once"

# Edges that the chart has and no decision takes. One that is taken all the same must leave this list.
NEVER: dict[Edge, str] = {
    (None, _P): _GATE,
    **dict.fromkeys(((before, RunStatus.SKIPPED) for before in (None, _Q, _P)), _GATE),
    **{(before, end): _BY_A_WORKER for before in (_Q, _X) for end in (RunStatus.COMPLETED, RunStatus.FAILED)},
    (_X, _Q): _RESUMED,
    (_X, _P): _RESUMED,
    (_Q, _X): "a run is lost, or does not fit, where it executes",
}
# Edges that few seeds take, with the test that takes them always.
RARE: dict[Edge, str] = {
    (_X, RunStatus.TIMED_OUT): "tests/e2e/test_timeouts.py::test_a_paused_run_ends_at_once",
}
ALL: list[Edge] = [(before, after) for before, found in EDGES.items() for after in sorted(found)]


def name(edge: Edge) -> str:
    """An edge in words."""
    before, after = edge
    return f"{before.name if before is not None else 'new'} → {after.name}"


def missing(taken: Counter[Edge]) -> list[str]:
    """Edges that should have been taken, and those that should not."""
    found = [f"{name(edge)} was never taken" for edge in ALL if not (edge in NEVER or edge in RARE or taken[edge])]
    return found + [f"{name(edge)} was taken, although {why}" for edge, why in NEVER.items() if taken[edge]]


def table(taken: Counter[Edge]) -> str:
    """How often each edge was taken."""
    lines = ["edges of the state chart:"]
    for edge in ALL:
        count = f"{taken[edge]:>9,}" if taken[edge] or edge not in NEVER else f"{'':>9}  ({NEVER[edge]})"
        lines.append(f"  {name(edge):<22}{count}")
    return "\n".join(lines)
