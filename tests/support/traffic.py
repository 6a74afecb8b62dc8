"""What people send so that programs of programs.py go on: the events that their waits are for."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.support.programs import Program, walk


class Answer(NamedTuple):
    """An event for a wait, some time after the run was started; it may be too early, too late, or one of two."""

    event: str
    data: dict[str, Any]
    after_s: float


def answers(by_name: Mapping[str, Program], program: Program, uid: str, rng: random.Random) -> Iterator[Answer]:
    """Answers to most of the waits of a run and of the children that it invokes."""
    for node in walk(program["body"]):
        if node["do"] == "wait" and rng.random() < 0.8:
            after_s = rng.choice((0.0, rng.uniform(0, 0.1), rng.uniform(0, 3), rng.uniform(0, 30)))
            for _ in range(rng.choice((1, 1, 2))):
                yield Answer(node["event"], {"uid": uid, "n": rng.randrange(1_000_000)}, after_s)
        elif node["do"] == "invoke":
            yield from answers(by_name, by_name[node["program"]], f"{uid}/{node['name']}", rng)
