"""CEL conditions: compiled once, bounded, and false when they cannot be evaluated.

One that takes more than its budget of iterations fits nothing either; that is noted, because nobody could guess it.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, NamedTuple

from cel_expr_python import cel

from stepwell_server.engine import patterns
from stepwell_server.model import ids
from stepwell_server.model.errors import InvalidError
from stepwell_server.model.limits import LIMITS

log = logging.getLogger("stepwell.expressions")
_NOTES = 1_000
_TRIGGER = cel.NewEnv(variables={"event": cel.Type.DYN})
_WAIT = cel.NewEnv(variables={"event": cel.Type.DYN, "async": cel.Type.DYN})
_RUN = cel.NewEnv(variables={"run": cel.Type.DYN, "output": cel.Type.DYN, "event": cel.Type.DYN})


class UnjudgedError(Exception):
    """The evaluation was broken off: the condition fits nothing, though nobody knows whether it would."""


class Note(NamedTuple):
    """What broke an evaluation off: of which condition, at which event or run, and why. what: it is, if no condition;
    instead: what counts then."""

    condition: str
    event_id: str
    why: str
    what: str = "condition"
    instead: str = "it does not fit"

    def __str__(self) -> str:
        at = "run" if self.event_id.startswith(ids.RUN_PREFIX) else "event"
        return f"{self.what} {self.condition!r} could not be judged for {at} {self.event_id}: {self.why}"


class Unjudged:
    """The last such evaluation of each function, or of each wait; the longest known ones are forgotten first."""

    def __init__(self) -> None:
        self._notes: dict[str, Note] = {}

    def note(self, owner: str, note: Note) -> None:
        """Keeps it; the first one of an owner is logged. owner: id of a function, or "run/key" of a wait."""
        if owner not in self._notes:
            log.warning("%s: %s; %s", owner, note, note.instead)
            if len(self._notes) >= _NOTES:
                del self._notes[next(iter(self._notes))]
        self._notes[owner] = note

    def of(self, owner: str) -> str:
        """In words; empty where there is none."""
        note = self._notes.get(owner)
        return "" if note is None else str(note)


def check_trigger(text: str, field: str) -> None:
    """Raises InvalidError (BAD_EXPRESSION) unless the text is a condition over `event`."""
    _compile(_TRIGGER, text, field)
    _check_patterns(text, field)


def check_wait(text: str, field: str) -> None:
    """Raises InvalidError (BAD_EXPRESSION) unless the text is a condition over `event` and `async`."""
    _compile(_WAIT, text, field)
    _check_patterns(text, field)


def check_run(text: str, field: str) -> None:
    """Raises InvalidError (BAD_EXPRESSION) unless the text is a condition over `run`, `output` and `event`."""
    _compile(_RUN, text, field)
    _check_patterns(text, field)


def check_value(text: str, field: str) -> None:
    """Raises InvalidError (BAD_EXPRESSION) unless the text is an expression over `event`, of any type."""
    _compile_any(_TRIGGER, text, field)
    _check_patterns(text, field)


def trigger_fits(text: str, event: dict[str, Any]) -> bool:
    """Whether an event fits a checked condition; an evaluation error (a missing field) does not fit.

    Raises UnjudgedError.
    """
    return _evaluate(_compile(_TRIGGER, text, ""), {"event": event})


def wait_fits(text: str, event: dict[str, Any], awaited: dict[str, Any]) -> bool:
    """Whether an awaited event fits a checked condition of a run that `event` started. Raises UnjudgedError."""
    return _evaluate(_compile(_WAIT, text, ""), {"event": event, "async": awaited})


def value_of(text: str, event: dict[str, Any]) -> Any:
    """What a checked expression makes of an event; None where it cannot be evaluated (a missing field).

    Raises UnjudgedError.
    """
    value = _run(_compile_any(_TRIGGER, text, ""), {"event": event})
    return None if value.type() == cel.Type.ERROR else value.plain_value()


def run_fits(text: str, facts: dict[str, Any]) -> bool:
    """Whether a run fits a checked condition: facts are `run`, `output` and `event`. Raises UnjudgedError."""
    return _evaluate(_compile(_RUN, text, ""), facts)


def sure_value_of(text: str, event: dict[str, Any]) -> Any:
    """As value_of, but what cannot be evaluated is an UnjudgedError that says why."""
    value = _run(_compile_any(_TRIGGER, text, ""), {"event": event})
    if value.type() == cel.Type.ERROR:
        raise UnjudgedError(str(value.value()))
    return value.plain_value()


@lru_cache(maxsize=4096)
def _compile(env: Any, text: str, field: str) -> Any:
    expression = _compile_any(env, text, field)
    if expression.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise InvalidError(
            "BAD_EXPRESSION", f"{field}: {text!r} is not true or false", fields=((field, "not a boolean"),)
        )
    return expression


@lru_cache(maxsize=4096)
def _compile_any(env: Any, text: str, field: str) -> Any:
    if len(text.encode()) > LIMITS.condition_bytes:
        raise InvalidError(
            "BAD_EXPRESSION",
            f"{field}: the expression is longer than {LIMITS.condition_bytes} bytes",
            fields=((field, "too long"),),
        )
    if "\0" in text:
        raise InvalidError("BAD_EXPRESSION", f"{field}: the expression holds a NUL", fields=((field, "NUL"),))
    try:
        expression = env.compile(text)
    except RuntimeError as error:
        why = str(error).split("\n")[0].removeprefix("INVALID_ARGUMENT: ERROR: ")
        raise InvalidError(
            "BAD_EXPRESSION", f"{field}: not a CEL expression: {text!r}: {why}", fields=((field, why),)
        ) from error
    return expression


def _check_patterns(text: str, field: str) -> None:
    """What was accepted before goes on: only a new condition is asked."""
    for pattern in patterns.constant(text):
        if why := _misshapen(pattern):
            message = f"{field}: {text!r}: {pattern} is not a regular expression: {why}"
            raise InvalidError("BAD_EXPRESSION", message, fields=((field, why),))


def _misshapen(pattern: str) -> str:
    """What is wrong with a constant regular expression; only an evaluation tells."""
    try:
        value = _TRIGGER.compile(f'"".matches({pattern})').eval(data={})
    except RuntimeError:
        return ""
    _, broken, why = str(value.value()).partition("invalid regular expression: ")
    return why if broken and value.type() == cel.Type.ERROR else ""


def _evaluate(expression: Any, data: dict[str, Any]) -> bool:
    value = _run(expression, data)
    return value.type() == cel.Type.BOOL and bool(value.value())


def _run(expression: Any, data: dict[str, Any]) -> Any:
    try:
        return expression.eval(data=data)
    except RuntimeError as error:
        raise UnjudgedError(str(error).split("\n")[0].removeprefix("INTERNAL: ").removesuffix(" [INTERNAL]")) from error
