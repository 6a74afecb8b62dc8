"""The gates of functions: what comes to one key is decided by one at a time, together with all that came meanwhile.

A gate remembers by a claim in the store (H28), whose next version decides the commit that also writes the runs. What
the last commit wrote is kept; where it is stale the commit loses, and is decided anew. Every event has a cursor until
it is decided; one that comes again is found by its run, or by the run that it joined (H21).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from stepwell_server.engine import gathering, joining, loading, matching, singles
from stepwell_server.engine.arrivals import Arrival, Plan
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.serve import Countdown
from stepwell_server.model.claim import ClaimRow
from stepwell_server.model.commit import Verdict
from stepwell_server.model.event import EventRow
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.journal import GATE_KEY, WaitRow
from stepwell_server.model.run import RunStatus
from stepwell_server.ports.store import RunState

log = logging.getLogger("stepwell.gates")
_AT_ONCE = 250
_KEPT = 10_000
_TRIES = 10
_AGAIN_MS = 500
_DECIDES = {"rate": joining.rate, "batch": joining.batch, "debounce": joining.debounce}


class Gate:
    """One key. row: its claim as last known; None: none is known."""

    __slots__ = ("busy", "key", "row", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.row: ClaimRow | None = None
        self.waiting: deque[Arrival] = deque()
        self.busy = False


class Gates:
    """Implements engine/node.py's Gates on one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._gates: dict[tuple[str, str], Gate] = {}
        self._here: set[tuple[str, str]] = set()  # events at functions that are being decided
        node.gates = self

    # -- what comes ----------------------------------------------------------------------------------------------

    def admit(
        self, env: Environment, pairs: Sequence[tuple[FunctionSpec, EventRow]], then: Callable[[], None], *, again: bool
    ) -> None:
        """Durable events came to the gates of functions. then: called once for each that is decided. again: some may
        have been decided before."""
        arrivals = [self._arrival(env, function, row, then) for function, row in pairs]
        if again:
            self._node.spawn(self._admit_again(env, arrivals))
            return
        for arrival in arrivals:
            self._arrive(env, arrival)

    def waiting(self, state: RunState) -> None:
        """A run that waits at a gate is durable."""
        env = self._node.environment(state.run.env)
        for wait in state.waits:
            if wait.key == GATE_KEY:
                self._arrive(env, self._returning(env, state, wait, lambda: None))

    async def due(self, waits: Sequence[WaitRow]) -> None:
        """Runs at gates are to be looked at; returns when they were."""
        node = self._node
        decided = asyncio.Event()
        left = Countdown(decided.set)
        by_env: dict[str, list[WaitRow]] = {}
        for wait in waits:
            by_env.setdefault(wait.env, []).append(wait)
        for env_name, of_env in by_env.items():
            env = node.environment(env_name)
            for at in range(0, len(of_env), _AT_ONCE):
                part = of_env[at : at + _AT_ONCE]
                states = await loading.read(node, env_name, [wait.run_id for wait in part])
                for wait in part:
                    state = states.get(wait.run_id)
                    if state is not None and wait in state.waits:
                        left.more()
                        self._arrive(env, self._returning(env, state, wait, left.one))
        left.armed()
        await decided.wait()

    def freed(self, env_name: str, key: str) -> None:
        """A claim was let go of: the run that was to come next, if there is one, comes now."""
        gate = self._gates.get((env_name, key))
        row = gate.row if gate is not None else None
        if key.startswith("single:") and (row is None or singles.next_of(row)):
            self._node.spawn(self._pass_on(env_name, key))

    def until_ms(self, wait: WaitRow) -> int:
        """When a run that gathers starts, as far as this node knows: a debounce is put off without its wait."""
        gate = self._gates.get((wait.env, wait.target))
        held = gathering.of_claim(gate.row) if gate is not None else None
        return held.due_ms if held is not None and held.run_id == wait.run_id else wait.due_ms or 0

    async def _pass_on(self, env_name: str, key: str) -> None:
        node = self._node
        node.busy += 1
        try:
            run_id = singles.next_of(await singles.read_claim(node, env_name, key))
            state = (await loading.read(node, env_name, [run_id])).get(run_id) if run_id else None
            wait = next((wait for wait in state.waits if wait.target == key), None) if state is not None else None
            if state is not None and wait is not None and state.run.status == RunStatus.PARKED:
                env = node.environment(env_name)
                self._arrive(env, self._returning(env, state, wait, lambda: None))
        finally:
            node.busy -= 1

    def _arrival(self, env: Environment, function: FunctionSpec, row: EventRow, then: Callable[[], None]) -> Arrival:
        arrival = Arrival("", then, function, row, matching.event_value(row))
        arrival.key = joining.first_key(env, arrival)
        return arrival

    def _returning(self, env: Environment, state: RunState, wait: WaitRow, then: Callable[[], None]) -> Arrival:
        function = env.triggers.known.get(state.run.function_id)
        return Arrival(wait.target, then, function, state=state, wait=wait)

    async def _admit_again(self, env: Environment, arrivals: list[Arrival]) -> None:
        self._node.busy += 1
        try:
            left = await self._undecided(env, arrivals)
            # Whoever is still here has a cursor of its own: the second one goes when a sweep finds it decided.
            for arrival in left:
                if _event_at(arrival) not in self._here:
                    self._arrive(env, arrival)
        finally:
            self._node.busy -= 1

    async def _undecided(self, env: Environment, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Without those that an earlier try decided; of those that had passed the rate limit, at the gate behind it."""
        node = self._node
        events = [arrival for arrival in arrivals if arrival.event is not None]
        run_ids = [arrival.run_id(env.name) for arrival in arrivals]
        event_ids = sorted({arrival.event.id for arrival in events if arrival.event is not None})
        joined = await loading.patiently(lambda: node.claims.joined(env.name, event_ids)) if event_ids else []
        marks = {(row.event_id, row.function_id): row.run_id for row in joined}
        there = await loading.read(node, env.name, run_ids)
        left: list[Arrival] = []
        for arrival, run_id in zip(arrivals, run_ids, strict=True):
            state = there.get(run_id)
            at = _event_at(arrival)
            if arrival.wait is not None:
                decided = state is None or arrival.wait not in state.waits
                arrival.state = state
            else:
                decided = state is not None or bool(marks.get(at))
            if decided:
                self._here.discard(at)
                arrival.then()
                continue
            if arrival.wait is None and at in marks:
                arrival.key = joining.inner_key(env, arrival)
            left.append(arrival)
        return left

    async def _still_at(self, env: Environment, gate: Gate, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """The claim is read anew, and what came to it: those that still have to be decided here."""
        gate.row = await singles.read_claim(self._node, env.name, gate.key)
        left = await self._undecided(env, arrivals)
        for arrival in left:
            if arrival.key != gate.key:
                self._arrive(env, arrival)
        return [arrival for arrival in left if arrival.key == gate.key]

    # -- one key -------------------------------------------------------------------------------------------------

    def _arrive(self, env: Environment, arrival: Arrival) -> None:
        at = (env.name, arrival.key)
        gate = self._gates.get(at)
        if gate is None:
            if len(self._gates) >= _KEPT:
                self._forget_idle()
            gate = self._gates[at] = Gate(arrival.key)
        gate.waiting.append(arrival)
        if arrival.event is not None:
            self._here.add(_event_at(arrival))
        if not gate.busy:
            gate.busy = True
            self._node.busy += 1
            self._node.spawn(self._work(env, gate))

    def _forget_idle(self) -> None:
        idle = [at for at, gate in self._gates.items() if not gate.busy]
        for at in idle[: _KEPT // 10]:
            del self._gates[at]

    async def _work(self, env: Environment, gate: Gate) -> None:
        """Decides what is there, and what came meanwhile, until nothing is."""
        try:
            while gate.waiting:
                count = min(len(gate.waiting), _AT_ONCE)
                arrivals = [gate.waiting.popleft() for _ in range(count)]
                try:
                    await self._decided(env, gate, arrivals)
                except Exception:
                    # Their cursor, or their wait, stays: a sweep, or the timer, brings them again.
                    log.exception("%d arrivals at %s could not be decided", len(arrivals), gate.key)
                    self._give_up(arrivals)
        finally:
            gate.busy = False
            self._node.busy -= 1

    def _give_up(self, arrivals: Sequence[Arrival]) -> None:
        """They are not decided now: the cursor of an event stays, and the wait of a run."""
        self._here.difference_update(map(_event_at, arrivals))
        if any(arrival.wait is not None for arrival in arrivals):
            self._node.wake_timers(self._node.clock.now_ms() + _AGAIN_MS)
        for arrival in arrivals:
            if arrival.wait is not None:
                arrival.then()

    async def _decided(self, env: Environment, gate: Gate, arrivals: list[Arrival]) -> None:
        tries = 0
        while arrivals:
            if any(arrival.wait is not None and not _is_for(gate.row, arrival.wait) for arrival in arrivals):
                # Not what was kept: the claim is read before a run leaves the gate without one.
                arrivals = await self._still_at(env, gate, arrivals)
            plan = await self._plan(env, gate, arrivals)
            commit = plan.commit()
            verdict = Verdict.APPLIED if commit is None else (await self._node.lane.apply(commit)).verdict
            if verdict is Verdict.APPLIED:
                gate.row = plan.claim or gate.row
                plan.applied()
                for work in plan.after:
                    await work()
                self._here.difference_update(map(_event_at, arrivals))
                for arrival in arrivals:
                    if arrival.onward:
                        arrival.key, arrival.onward = arrival.onward, ""
                        self._arrive(env, arrival)
                    else:
                        arrival.then()
                return
            plan.undone()
            if verdict is not Verdict.LOST:
                log.error("what came to %s was not written: %s", gate.key, verdict.name)
                self._give_up(arrivals)
                return
            tries += 1
            if tries % _TRIES == 0:
                await asyncio.sleep(0.05)
            arrivals = await self._still_at(env, gate, arrivals)

    async def _plan(self, env: Environment, gate: Gate, arrivals: list[Arrival]) -> Plan:
        kind = gate.key.partition(":")[0]
        if kind == "single":
            gate.row, holder = await singles.holder_of(self._node, gate.row)
            plan = Plan(self._node, env, gate.key, self._node.clock.now_ms())
            singles.decide(plan, gate.row, holder, arrivals)
            return plan
        plan = Plan(self._node, env, gate.key, self._node.clock.now_ms())
        _DECIDES[kind](plan, gate.row, arrivals)
        return plan


def _event_at(arrival: Arrival) -> tuple[str, str]:
    """What an arrival is about."""
    event = arrival.event.id if arrival.event is not None else ""
    return event, arrival.function.id if arrival.function is not None else ""


def _is_for(row: ClaimRow | None, wait: WaitRow) -> bool:
    return row is not None and row.run_id == wait.run_id
