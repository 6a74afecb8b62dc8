"""CEL conditions: compiled once, bounded, and false when they cannot be evaluated."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from cel_expr_python import cel

from stepwell_server.model.errors import InvalidError
from stepwell_server.model.limits import LIMITS

_TRIGGER = cel.NewEnv(variables={"event": cel.Type.DYN})
_WAIT = cel.NewEnv(variables={"event": cel.Type.DYN, "async": cel.Type.DYN})


def check_trigger(text: str, field: str) -> None:
    """Raises InvalidError (BAD_EXPRESSION) unless the text is a condition over `event`."""
    _compile(_TRIGGER, text, field)


def check_wait(text: str, field: str) -> None:
    """Raises InvalidError (BAD_EXPRESSION) unless the text is a condition over `event` and `async`."""
    _compile(_WAIT, text, field)


def trigger_fits(text: str, event: dict[str, Any]) -> bool:
    """Whether an event fits a checked condition; an evaluation error (a missing field) does not fit."""
    return _evaluate(_compile(_TRIGGER, text, ""), {"event": event})


def wait_fits(text: str, event: dict[str, Any], awaited: dict[str, Any]) -> bool:
    """Whether an awaited event fits a checked condition of a run that `event` started."""
    return _evaluate(_compile(_WAIT, text, ""), {"event": event, "async": awaited})


@lru_cache(maxsize=4096)
def _compile(env: Any, text: str, field: str) -> Any:
    if len(text.encode()) > LIMITS.condition_bytes:
        raise InvalidError(
            "BAD_EXPRESSION",
            f"{field}: the condition is longer than {LIMITS.condition_bytes} bytes",
            fields=((field, "too long"),),
        )
    if "\0" in text:
        raise InvalidError("BAD_EXPRESSION", f"{field}: the condition holds a NUL", fields=((field, "NUL"),))
    try:
        expression = env.compile(text)
    except RuntimeError as error:
        why = str(error).split("\n")[0].removeprefix("INVALID_ARGUMENT: ERROR: ")
        raise InvalidError(
            "BAD_EXPRESSION", f"{field}: not a CEL condition: {text!r}: {why}", fields=((field, why),)
        ) from error
    if expression.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise InvalidError(
            "BAD_EXPRESSION", f"{field}: {text!r} is not true or false", fields=((field, "not a boolean"),)
        )
    return expression


def _evaluate(expression: Any, data: dict[str, Any]) -> bool:
    try:
        value = expression.eval(data=data)
        return value.type() == cel.Type.BOOL and bool(value.value())
    except RuntimeError:
        return False
