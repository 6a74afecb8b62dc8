"""What a run saw, what is on its way to it, and what it waits for."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

CANCEL_KEY = "$cancel"
GRACE_KEY = "$grace"
ASK_KEY = "$ask"
START_KEY = "$start"
GATE_KEY = "$gate"
CLAIM_KEY = "$claim"
RUN_KEY = "$run"


GIVEN_UP = 0
"""Number of an outcome that the code gave up before it saw it, where what the step did stands: events that it sent."""


class StepKind(IntEnum):
    """What kind of step a key stands for. 1–6 are the protocol's numbers; the others never leave the server."""

    RUN = 1
    SLEEP = 2
    EVENT = 3
    INVOKE = 4
    SEND = 5
    RETRY = 6
    CANCEL = 100
    GRACE = 101
    TIMEOUT = 102
    GATE = 103
    CLAIM = 104


INNER = frozenset(int(kind) for kind in StepKind if kind >= StepKind.CANCEL)
"""Kinds that no worker hears of as a step."""

CLAIMING = frozenset({int(StepKind.GATE), int(StepKind.CLAIM)})
"""Kinds of waits that name a claim, which the end of their run lets go of."""

UNWINDING = frozenset({int(StepKind.CANCEL), int(StepKind.TIMEOUT)})
"""Kinds of the outcome $cancel: somebody asked for the end of the run, or its time was over."""


class OutcomeRow(NamedTuple):
    """A row of ``outcomes``; as an operation: insert, or nothing if the key is there (first wins).

    number: place in the order in which the code saw it; None: undelivered, in the inbox; GIVEN_UP: never to be seen.
    output/failure: exactly one is set (JSON of a Failure), or neither: an empty result, such as a time-out.
    attempt: the attempt that made it; for RETRY the one that may begin.
    started_ms: when the step began. ended_ms: when the outcome was made. event_id: the event that resolved a wait.
    child_id: the child run of an invoke.
    """

    env: str
    run_id: str
    key: str
    number: int | None
    kind: int
    target: str
    output: bytes | None
    output_encoding: str
    failure: bytes | None
    attempt: int
    started_ms: int
    ended_ms: int
    input_hash: bytes
    event_id: str | None
    child_id: str | None


class Number(NamedTuple):
    """The code has seen an outcome in this place; nothing if it has a number already."""

    env: str
    run_id: str
    key: str
    number: int


class OutcomeDelete(NamedTuple):
    """The code no longer asks for a key: its outcome goes, if it has no number."""

    env: str
    run_id: str
    key: str


class WaitRow(NamedTuple):
    """A row of ``waits``: something open. As an operation: insert, or nothing if the key is there.

    kind SLEEP: due_ms. EVENT: target = event name, match_key (see engine/matching.py) or "" if only the condition
    decides, due_ms = time-out, failure = where the look-back was cut, if it was. INVOKE: target = function id,
    child_id, due_ms = time-out or None. RETRY: key =
    "step#attempt", due_ms, failure = of the attempt before. GRACE: due_ms = forced end of a cancelled run.
    CANCEL: the run is to be cancelled, because its parent no longer wants it; due at once.
    TIMEOUT: a time-out of the function, failure = what the run then ends with. Under $start that of the start; under
    $cancel that of the whole run, so that a request to cancel and the time-out are one key of which the first wins.
    GATE: the run has not started: it gathers events or waits at a gate; target = key of the claim, due_ms = when it is
    looked at. CLAIM: the run holds the claim of that key until its end.
    after_event: the look-back considers events with greater ids; None once it has looked back (H17).
    function_id: of the run, so that a wake knows who can take it.
    """

    env: str
    run_id: str
    key: str
    kind: int
    target: str
    match_key: str | None
    condition: str
    due_ms: int | None
    child_id: str | None
    detached: bool
    attempt: int
    failure: bytes | None
    input_hash: bytes
    opened_ms: int
    after_event: str | None
    function_id: str


class WaitDelete(NamedTuple):
    """A wait closes."""

    env: str
    run_id: str
    key: str


class LookedBack(NamedTuple):
    """A wait has looked back: only new events can resolve it from now on. cut: becomes the wait's failure."""

    env: str
    run_id: str
    key: str
    cut: bytes | None = None
