"""What is known of a run's keys before its code asks: recorded outcomes, undelivered ones, keys open at the server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from stepwell.v1 import step_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stepwell.v1.common_pb2 import Failure
    from stepwell.v1.step_pb2 import Assign, OpenKey, Outcome

RUN_KEY = "$run"
CANCEL_KEY = "$cancel"
_RETRY = step_pb2.STEP_KIND_RETRY
_RUN = step_pb2.STEP_KIND_RUN
_TARGETED = (step_pb2.STEP_KIND_EVENT, step_pb2.STEP_KIND_INVOKE)
_PACKAGE = __name__.rpartition(".")[0]


class Asked(Protocol):
    """What the code asks for."""

    key: str
    kind: int
    target: str
    hash: bytes


class Journal:
    """The journal of an assigned run, and what came since for keys that the code has not asked for."""

    __slots__ = ("attempts", "function_attempt", "inbox", "open", "outcomes", "pending", "recorded", "skipped")

    def __init__(self, assign: Assign) -> None:
        # What the code has seen, in that order.
        self.outcomes: list[Outcome] = []
        # What it has not seen although it was there when the run was assigned.
        self.pending: list[Outcome] = []
        self.recorded: dict[str, Outcome] = {}
        # Recorded outcomes whose turn came while the code did not ask for them.
        self.skipped: set[str] = set()
        # Outcomes that came in this turn for keys the code has not asked for yet.
        self.inbox: dict[str, Outcome] = {}
        self.open: dict[str, OpenKey] = {}
        # Of bodies that were tried before: the attempt that may begin, and why.
        self.attempts: dict[str, tuple[int, Failure]] = {}
        self.function_attempt = 1
        # To walk through a message's empty list costs more than to ask whether it is; a new run's are.
        if assign.journal:
            self._read(assign.journal)
        if assign.open:
            for key in assign.open:
                # A back-off is found under the key of its step.
                self.open[split_attempt(key.key)[0] if key.kind == _RETRY else key.key] = key

    def _read(self, journal: Iterable[Outcome]) -> None:
        for outcome in journal:
            (self.outcomes if outcome.number else self.pending).append(outcome)
        self.outcomes.sort(key=lambda outcome: outcome.number)
        self.recorded.update((o.key, o) for o in self.outcomes if o.kind != _RETRY)
        self.note_function_attempt(self.outcomes)
        self.note_function_attempt(self.pending)

    def take_pending(self) -> list[Outcome]:
        """Takes out what the code had not seen when the run was assigned. Their keys count as begun."""
        pending, self.pending = self.pending, []
        for outcome in pending:
            if not outcome.key.startswith("$") or outcome.key.startswith("$timer"):
                key = split_attempt(outcome.key)[0] if outcome.kind == _RETRY else outcome.key
                self.open.setdefault(
                    key,
                    step_pb2.OpenKey(
                        key=outcome.key, kind=outcome.kind, target=outcome.target, input_hash=outcome.input_hash
                    ),
                )
        return pending

    def note_function_attempt(self, outcomes: Iterable[Outcome]) -> None:
        """Finds which attempt of the function these outcomes allow."""
        for outcome in outcomes:
            base, attempt = split_attempt(outcome.key)
            if outcome.kind == _RETRY and base == RUN_KEY:
                self.function_attempt = max(self.function_attempt, attempt)

    def known(self, key: str) -> bool:
        """Whether anything is known of a key."""
        return key in self.recorded or key in self.inbox or key in self.open or key in self.attempts

    def has_outcome(self, key: str) -> bool:
        """Whether its outcome is here, its turn passed or still to come."""
        return key in self.recorded or key in self.inbox

    def difference(self, asked: Asked) -> tuple[str, str] | None:
        """What is known of a key and what the code asks for, in words, if they differ (H15)."""
        known = self.recorded.get(asked.key) or self.inbox.get(asked.key) or self.open.get(asked.key)
        if known is not None:
            kind = _RUN if known.kind == _RETRY else known.kind
            target = "" if known.kind == _RETRY else known.target
            other_target = asked.kind in _TARGETED and target != asked.target
            other_input = bool(asked.hash) and bool(known.input_hash) and known.input_hash != asked.hash
            if kind != asked.kind or other_target or other_input:
                note = " with another input" if other_input and kind == asked.kind and not other_target else ""
                return (words(kind, target), words(asked.kind, asked.target) + note)
        elif asked.key in self.attempts and asked.kind != _RUN:
            return (words(_RUN, ""), words(asked.kind, asked.target))
        return None

    def is_due(self, key: str) -> bool:
        """Whether the outcome's turn has passed, so that it is delivered as soon as the code asks."""
        return key in self.skipped or key in self.inbox

    def take(self, key: str) -> Outcome:
        """Takes out the outcome whose turn had passed."""
        if key in self.skipped:
            self.skipped.discard(key)
            return self.recorded.pop(key)
        return self.inbox.pop(key)


def split_attempt(key: str) -> tuple[str, int]:
    """("charge", 2) for "charge#2"; attempt 0 for a plain key."""
    base, mark, attempt = key.rpartition("#")
    return (base, int(attempt)) if mark and attempt.isascii() and attempt.isdecimal() else (key, 0)


_WORDS = {
    step_pb2.STEP_KIND_RUN: "run",
    step_pb2.STEP_KIND_SLEEP: "sleep",
    step_pb2.STEP_KIND_EVENT: "wait for event",
    step_pb2.STEP_KIND_INVOKE: "invoke",
    step_pb2.STEP_KIND_SEND: "send",
    step_pb2.STEP_KIND_RETRY: "run",
}


def words(kind: int, target: str) -> str:
    """Kind and target for people: the same words in every SDK."""
    known: dict[int, str] = {int(key): text for key, text in _WORDS.items()}
    word = known.get(kind, f"kind {kind}")
    return f"{word} {target}" if target else word


def location() -> str:
    """The line of the user's code that is executing, for example "app.py:12"."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        module: str = frame.f_globals.get("__name__", "")
        if module != _PACKAGE and not module.startswith((_PACKAGE + ".", "asyncio.", "contextlib")):
            return f"{frame.f_code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
