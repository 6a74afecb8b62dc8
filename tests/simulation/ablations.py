"""Guards that can be turned off, to prove that the simulation would miss them: each must make some seed fail."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any
from unittest import mock

from stepwell_server.adapters.memory import decide
from stepwell_server.adapters.memory import store as memory_store
from stepwell_server.adapters.memory.tables import Tables
from stepwell_server.engine import dispatch, ingest, lookback, recover, settle
from stepwell_server.engine.lane import Lane
from stepwell_server.model.commit import APPLIED
from stepwell_server.model.journal import OutcomeRow

from tests.simulation.store import FaultyStore
from tests.simulation.world import Options
from tests.support.programs import PLAIN, RACES, STEPS, WAITS

_RESTARTS = {"crash_server": 2.0, "crash_worker": 1.0, "break_stream": 1.0}


@dataclass(frozen=True)
class Ablation:
    """A guard, how to turn it off, the world in which that shows soonest, and the problems that count as its miss.

    finds: a pattern of what a checker says of a broken promise. Whatever else goes wrong without the guard, such as an
    exception that the patch itself raises, proves nothing.
    """

    off: Callable[[contextlib.ExitStack], None]
    options: Options
    finds: str

    def found(self, problems: Iterable[str]) -> list[str]:
        """Those of the problems that count."""
        return [problem for problem in problems if re.match(self.finds, problem)]


def _patch(stack: contextlib.ExitStack, target: Any, name: str, value: Any) -> None:
    stack.enter_context(mock.patch.object(target, name, value))


def _epoch(stack: contextlib.ExitStack) -> None:
    """The store takes the commits of fenced sessions (H8)."""
    _patch(stack, decide, "holds", lambda tables, fence: True)


def _owner(stack: contextlib.ExitStack) -> None:
    """A server that another one has replaced goes on writing (H31)."""
    _patch(stack, memory_store, "holds", lambda tables, fence: True)


def _first_wins(stack: contextlib.ExitStack) -> None:
    """The last outcome of a key wins, not the first (H19)."""

    def overwrite(tables: Tables, row: OutcomeRow) -> bool:
        tables.remove_wait(row.env, row.run_id, row.key)
        if not tables.add_outcome(row):
            there = tables.outcome[row.env, row.run_id]
            there[row.key] = row._replace(number=there[row.key].number)
        return True

    _patch(stack, decide, "_outcome_wins", overwrite)
    _patch(stack, decide, "_resolve", overwrite)


def _idempotency(stack: contextlib.ExitStack) -> None:
    """A request id or a sender's event id that comes twice is taken twice (H21a)."""
    _patch(stack, decide, "_dedup_wins", lambda tables, row: APPLIED)


def _commit_before_ack(stack: contextlib.ExitStack) -> None:
    """Results and events are acknowledged when they are submitted, not when they are durable."""
    submit = Lane.submit

    def hasty(self: Lane, commit: Any, callback: Any, argument: Any = None) -> None:
        if callback in (settle.committed, settle.all_committed):
            _, session, named, *_ = argument
            for draft in named if callback is settle.all_committed else [named]:
                if draft.named and session.link is not None:
                    session.link.ack(draft.resident.run_id, draft.resident.turn, draft.number)
        elif callback is ingest._accepted:
            argument[-1].set_result(APPLIED)
        submit(self, commit, callback, argument)

    _patch(stack, Lane, "submit", hasty)


def _cursor(stack: contextlib.ExitStack) -> None:
    """What an accepted event has still to serve is forgotten with its server (H21b)."""
    patched: Any = FaultyStore
    stranded = FaultyStore.__getattr__

    def forgetful(self: Any, name: str) -> Any:
        read = stranded(self, name)
        if name != "stranded":
            return read

        async def without_cursors(*args: Any) -> Any:
            return dataclasses.replace(await read(*args), cursors=())

        return without_cursors

    _patch(stack, patched, "__getattr__", forgetful)


def _look_back(stack: contextlib.ExitStack) -> None:
    """A new wait does not look for an event that came before it (H17)."""
    _patch(stack, lookback, "look_back", lookback._mark)


def _losses(stack: contextlib.ExitStack) -> None:
    """Nobody counts how often a run was lost with its worker (H13)."""
    _patch(stack, recover, "requeue_rows", _forgiving(recover.requeue_rows))


def _forgiving(requeue: Callable[..., Any]) -> Callable[..., Any]:
    async def forgiving(*args: Any, lost: bool, **kwargs: Any) -> None:
        await requeue(*args, lost=False, **kwargs)

    return forgiving


def _alone(stack: contextlib.ExitStack) -> None:
    """A run that was lost is given out again at once and beside others (H13)."""
    ready_row = dispatch.ready_row

    def careless(node: Any, env: str, run_id: str, function_id: str, losses: int = 0, **kwargs: Any) -> Any:
        return ready_row(node, env, run_id, function_id, **kwargs)

    _patch(stack, dispatch, "ready_row", careless)


def _fitting_worker(stack: contextlib.ExitStack) -> None:
    """A paused run is not tried where another build is connected (H15)."""
    _patch(stack, recover, "fitting_worker", lambda node, session: None)


def _inbox(stack: contextlib.ExitStack) -> None:
    """An owner does not look through its own inbox again (H16)."""
    _patch(stack, recover, "_reread", lambda node, unseen: 0)


ABLATIONS = {
    "epoch": Ablation(
        _epoch,
        Options(STEPS, {"break_stream": 2.0, "store_slow": 1.0, "store_faults": 2.0}, "plain"),
        r"a commit of epoch \d+ was applied",
    ),
    "owner": Ablation(
        _owner,
        Options(PLAIN, {"freeze_server": 3.0, "store_slow": 1.0, "store_away": 1.0}, "plain", rest_s=200),
        r"event \S+ has not started|run \w+( of \S+ never ended: (RUNNING|PARKED)|: \S+ timed out \d+ ms after)",
    ),
    "first-wins": Ablation(
        _first_wins,
        Options(RACES, {"store_slow": 1.0, "store_faults": 1.0, "crash_server": 0.3}, "plain"),
        r"run \w+ (of \S+ ended|does not end again)|run \w+: (step \S+ ended with attempt|the numbers of its journal)",
    ),
    "idempotency": Ablation(
        _idempotency, Options(STEPS, {"lose_answers": 1.0}, "plain"), r"event .+ was accepted \d+ times"
    ),
    "commit-before-ack": Ablation(
        _commit_before_ack,
        Options(STEPS, {**_RESTARTS, "store_slow": 2.0}, "plain"),
        r"\S+ runs \S+ of \w+ although its result was acknowledged|acknowledged event \w+ is lost",
    ),
    "losses": Ablation(
        _losses, Options(story="deadly", faults={}, rest_s=60), r"\S+ of \w+ kills one worker after the other"
    ),
    "alone": Ablation(
        _alone, Options(story="deadly", faults={}), r"run \w+ of \S+ was paused \(2\), although it kills"
    ),
    "fitting-worker": Ablation(_fitting_worker, Options(story="changing"), r"run \w+ of \S+ never ended: PAUSED"),
    "inbox": Ablation(
        _inbox,
        Options(WAITS, {"lose_hints": 1.0}, "plain", rest_s=200),
        r"run \w+( of \S+ never ended: PARKED|: \S+ timed out \d+ ms after)",
    ),
    "cursor": Ablation(
        _cursor,
        Options(WAITS, {"crash_server": 2.0, "store_slow": 2.0}, "plain", rest_s=200),
        r"run \w+: \S+ timed out \d+ ms after|event \S+ has not started",
    ),
    "look-back": Ablation(
        _look_back, Options(WAITS, {}, "plain"), r"run \w+: \S+ timed out \d+ ms after \w+ was accepted"
    ),
}


@contextlib.contextmanager
def turned_off(name: str) -> Generator[None]:
    """The guard is off while the block runs."""
    with contextlib.ExitStack() as stack:
        ABLATIONS[name].off(stack)
        yield
