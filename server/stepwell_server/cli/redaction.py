"""Takes out of an event what must not leave: rules by path, which replace a value or drop it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepwell_server.cli.failures import UsageFailure

MASK = "***"
_RULE = re.compile(r"(?P<path>(?:data|metadata|output)(?:(?:\[\])*\.[A-Za-z0-9_$@:/-]+)*(?:\[\])*)(?:=(?P<how>\w+))?")
_PART = re.compile(r"\[\]|[^.\[\]]+")
_EVERY = "[]"


@dataclass(slots=True)
class Rule:
    """One rule: the names on its way, "[]" for every item of an array. hits: how many values it has taken out."""

    text: str
    path: tuple[str, ...]
    drop: bool
    hits: int = 0


def parse(texts: Sequence[str], roots: Sequence[str] = ("data", "metadata")) -> list[Rule]:
    """Rules as they are typed: data.email, data.items[].card=drop. roots: where a path begins. Raises UsageFailure."""
    return [_parse(text, roots) for text in texts]


def _parse(text: str, roots: Sequence[str]) -> Rule:
    found = _RULE.fullmatch(text)
    if found is None or _PART.findall(found["path"])[0] not in roots:
        raise UsageFailure(
            f"--redact {text!r}: expected a path such as data.email or data.items[].card, and maybe =drop"
        )
    if found["how"] not in (None, "drop"):
        raise UsageFailure(f"--redact {text!r}: after = only drop is known")
    path = tuple(_PART.findall(found["path"]))
    if found["path"] in ("data", "metadata"):  # an output may be any value
        raise UsageFailure(f"--redact {text!r}: an event has {text.partition('=')[0]}; name something in it")
    return Rule(text, path, found["how"] == "drop")


def redact(rules: Sequence[Rule], event: dict[str, Any]) -> None:
    """Applies rules to an event in place. Where nothing stands at a path, nothing happens."""
    for rule in rules:
        _apply(rule, event, 0)


def _apply(rule: Rule, value: Any, at: int) -> None:
    name, last = rule.path[at], at == len(rule.path) - 1
    if name == _EVERY:
        if not isinstance(value, list):
            return
        if not last:
            for item in value:
                _apply(rule, item, at + 1)
            return
        rule.hits += len(value)
        value[:] = [] if rule.drop else [masked(item) for item in value]
        return
    if not isinstance(value, dict) or name not in value:
        return
    if not last:
        _apply(rule, value[name], at + 1)
        return
    rule.hits += 1
    if rule.drop:
        del value[name]
    else:
        value[name] = masked(value[name])


def masked(value: Any) -> Any:
    """What stands in for a value: of its own kind, so that code which reads it still can."""
    if value is None or isinstance(value, bool):
        return None if value is None else False
    if isinstance(value, int | float):
        return type(value)(0)
    if isinstance(value, list | dict):
        return type(value)()
    return MASK
