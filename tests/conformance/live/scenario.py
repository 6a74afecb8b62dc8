"""Scenarios: what they say, and the values that are too large or too late to be written down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = Any

FOLDER = Path(__file__).with_name("scenarios")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One entry of scenarios/*.json, as README.md describes it."""

    file: str
    name: str
    start: Json
    event: Json
    acts: list[Json]
    then: Json

    @property
    def hands_over(self) -> bool:
        """Another worker may take its run over."""
        return any("handover" in act for act in self.acts)

    @property
    def parks(self) -> bool:
        """Its run is parked in the middle."""
        return any("parked" in act for act in self.acts)

    @property
    def opens(self) -> bool:
        """Something of it becomes durable at a moment that the test chooses."""
        return any("open" in act for act in self.acts)


def load() -> list[Scenario]:
    """All of them."""
    return [
        Scenario(file.stem, one["name"], one.get("start"), one.get("event"), one.get("acts", []), one["then"])
        for file in sorted(FOLDER.glob("*.json"))
        for one in parse(file.read_bytes())
    ]


def parse(text: bytes) -> Json:
    """JSON, with the sign of zero and whole numbers of any size."""
    return json.loads(text, parse_int=lambda digits: -0.0 if digits == "-0" else int(digits))


def filled(value: Json, now_ms: int) -> Json:
    """A value with what its members named `$…` stand for."""
    match value:
        case {"$repeat": [text, times]}:
            return text * times
        case {"$nested": depth}:
            made: Json = "end"
            for _ in range(depth):
                made = {"in": [made]}
            return made
        case {"$from_now_ms": later}:
            return now_ms + later
        case dict():
            return {key: filled(inner, now_ms) for key, inner in value.items()}
        case list():
            return [filled(inner, now_ms) for inner in value]
        case _:
            return value
