"""Steps through a recorded run with today's code: its journal in, what the code would do next out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepwell.core import ENDED
from stepwell.errors import describe, innermost
from stepwell.function import Function
from stepwell.journal import words
from stepwell.reentry import Reentry
from stepwell.v1 import step_pb2


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the code no longer fits: the step, what the journal holds, what the code asks for, and its line."""

    key: str
    recorded: str
    asked: str
    line: str


@dataclass(frozen=True, slots=True)
class Stepped:
    """How far the code came over a journal.

    unasked: keys of recorded outcomes that the code has not asked for. next: what it would do now, each in words.
    difference: None where it fits.
    """

    unasked: tuple[str, ...]
    next: tuple[str, ...]
    difference: Difference | None


def step_through(function: Function[Any, Any], assign: step_pb2.Assign) -> Stepped:
    """Runs the code of a function over the journal of a run, up to where that ends or differs. No body is executed."""
    core = Reentry(function, assign, step_pb2.Limits())
    try:
        core.start()
        difference = None
        for command in core.commands:
            if isinstance(command, step_pb2.Mismatch):
                difference = Difference(command.key, command.recorded, command.attempted, command.location)
        bodies = [f"run {body.key} (attempt {body.attempt})" for body in core.bodies]
        following = [] if difference else [*bodies, *filter(None, map(_words, core.commands))]
        return Stepped(core.unasked(), tuple(following), difference)
    finally:
        if core.state is not ENDED:
            core.evict()


def _words(command: Any) -> str:
    match command:
        case step_pb2.Sleep():
            return f"{words(step_pb2.STEP_KIND_SLEEP, '')} ({command.key})"
        case step_pb2.WaitForEvent():
            return words(step_pb2.STEP_KIND_EVENT, command.event)
        case step_pb2.Invoke():
            return words(step_pb2.STEP_KIND_INVOKE, command.function_id)
        case step_pb2.SendEvents():
            return f"{words(step_pb2.STEP_KIND_SEND, '')} {', '.join(event.name for event in command.events)}"
        case step_pb2.Complete():
            return f"complete with {command.output.data.decode('utf-8', 'replace')}"
        case step_pb2.Fail():
            return f"fail with {describe(innermost(command.failure))}"
        case step_pb2.Cancelled():
            return "end as cancelled"
        case _:
            return ""
