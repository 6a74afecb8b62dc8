"""What comes to a gate, and the plan of what one commit makes of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from stepwell_server.engine import admission, dispatch, timeouts
from stepwell_server.engine.claims import gate_wait
from stepwell_server.engine.node import Environment, Node
from stepwell_server.model import ids
from stepwell_server.model.claim import ClaimRow, MemberRow
from stepwell_server.model.commit import Commit
from stepwell_server.model.event import EventRow
from stepwell_server.model.flow import Flow
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.journal import GATE_KEY, WaitDelete, WaitRow
from stepwell_server.model.run import Enqueue, ReadyRow, RunRow, RunStatus
from stepwell_server.ports.store import RunState

After = Callable[[], Coroutine[Any, Any, None]]


class Arrival:
    """An event at the gate of a function; or, with state, a run that waits there or gathers for it and is due.

    key: of the claim that it comes to now. onward: of the next one, once it has passed that. value: the event as
    expressions see it. then: called once it is decided.
    """

    __slots__ = ("event", "function", "key", "onward", "state", "then", "value", "wait")

    def __init__(
        self,
        key: str,
        then: Callable[[], None],
        function: FunctionSpec | None,
        event: EventRow | None = None,
        value: dict[str, Any] | None = None,
        state: RunState | None = None,
        wait: WaitRow | None = None,
    ) -> None:
        self.key = key
        self.onward = ""
        self.then = then
        self.function = function
        self.event = event
        self.value = value or {}
        self.state = state
        self.wait = wait

    @property
    def coming(self) -> tuple[FunctionSpec, Flow, EventRow]:
        """The event that comes, and whose gate it is at."""
        assert self.function is not None, "an event comes to a function"
        assert self.function.flow is not None, "a function with a gate has a flow"
        assert self.event is not None, "a run that returns is no event"
        return self.function, self.function.flow, self.event

    def run_id(self, env: str) -> str:
        """The run that is derived from the event and the function (H21), or the one that waits."""
        if self.event is not None and self.function is not None:
            return ids.run_id_for_event(env, self.event.id, self.function.id)
        assert self.state is not None, "an event or a run"
        return self.state.run.id


class Plan:
    """One commit for some arrivals at one claim, and what follows it.

    claim: decides it, where there is one. after: what has to be done before the arrivals count as decided.
    """

    def __init__(self, node: Node, env: Environment, key: str, now: int) -> None:
        self.node = node
        self.env = env
        self.key = key
        self.now = now
        self.claim: ClaimRow | None = None
        self.starts: list[admission.Start] = []
        self.places: list[ReadyRow] = []
        self.after: list[After] = []
        self._runs: list[RunRow] = []
        self._waits: list[WaitRow] = []
        self._wait_deletes: list[WaitDelete] = []
        self._enqueues: list[Enqueue] = []
        self._members: list[MemberRow] = []

    def next_claim(self, row: ClaimRow | None, run_id: str, value: str, until_ms: int) -> None:
        """The claim's next version decides the commit."""
        version = 1 if row is None else row.version + 1
        self.claim = ClaimRow(self.env.name, self.key, version, run_id, value, until_ms)

    def new_run(self, arrival: Arrival) -> RunRow:
        """The run that an event starts."""
        function, _, event = arrival.coming
        run = admission.new_run(self.env, function, arrival.run_id(self.env.name), event, self.now)
        return admission.in_line(self.env, function, run, event)

    def start(self, arrival: Arrival, run: RunRow, *waits: WaitRow) -> None:
        """An event starts its run. waits: that open with it."""
        function, _, event = arrival.coming
        # With other nodes a place would need its session's fence, and the decision would be made again without it.
        begun = admission.placed(self.node, self.env, function, run, event, at_once=self.node.cluster is None)
        self.starts.append(begun._replace(waits=(*begun.waits, *waits)))

    def skip(self, arrival: Arrival, failure: bytes) -> None:
        """An event starts no run: it leaves one that is skipped."""
        run = self.new_run(arrival)
        self._runs.append(run._replace(status=int(RunStatus.SKIPPED), ended_ms=self.now, failure=failure))

    def park(self, run: RunRow, due_ms: int) -> None:
        """A new run stays at the gate until it is due, or fired."""
        self._runs.append(run._replace(status=int(RunStatus.PARKED)))
        self._waits.append(gate_wait(run, self.key, self.now, due_ms))

    def queue(self, run: RunRow) -> None:
        """A new run is queued at once; its events are read when it is taken."""
        place = self._place(run)
        self._runs.append(run.in_place(place.priority, place.queued_ms))

    def fire(self, run_id: str, function_id: str, wait_key: str, event_id: str | None = None) -> None:
        """A run at the gate starts. event_id: the one that it starts with, if not that of its row."""
        place = dispatch.ready_row(self.node, self.env.name, run_id, function_id, priority=admission.NEW)
        self.places.append(place)
        self._enqueues.append(Enqueue(self.env.name, run_id, place.priority, place.queued_ms, event_id))
        self._wait_deletes.append(WaitDelete(self.env.name, run_id, wait_key))
        self._until_started(run_id, function_id)

    def look_again(self, wait: WaitRow, due_ms: int) -> None:
        """A run stays at the gate; its wait is due later, under another key: one key cannot take turns in a commit."""
        key = f"{GATE_KEY}#{due_ms}"
        if key == wait.key:
            return
        self._wait_deletes.append(WaitDelete(wait.env, wait.run_id, wait.key))
        self._waits.append(wait._replace(key=key, due_ms=due_ms))

    def open(self, wait: WaitRow) -> None:
        """A wait opens."""
        self._waits.append(wait)

    def join(self, arrival: Arrival, run_id: str) -> None:
        """An event joins a run; empty: it has only passed the first gate."""
        function, _, event = arrival.coming
        self._members.append(MemberRow(self.env.name, event.id, function.id, run_id))

    def joined(self, arrival: Arrival, run_id: str) -> None:
        """An event starts a run of its own; where it was noted as past the first gate, that is over."""
        if arrival.coming[1].rate_limit is not None:
            self.join(arrival, run_id)

    def _place(self, run: RunRow) -> ReadyRow:
        place = dispatch.ready_row(self.node, run.env, run.id, run.function_id, priority=admission.NEW)
        self.places.append(place)
        self._until_started(run.id, run.function_id)
        return place

    def _until_started(self, run_id: str, function_id: str) -> None:
        function = self.env.triggers.known.get(function_id)
        if function is not None:
            self._waits.extend(timeouts.until_started(function, self.env.name, run_id, self.now))

    def commit(self) -> Commit | None:
        """What is to be written, if anything is."""
        runs = [*self._runs, *(start.run for start in self.starts)]
        waits = [*self._waits, *admission.opened(self.starts)]
        if self.claim is None and not (runs or waits or self._members or self._wait_deletes):
            return None
        touches = {f"claim:{self.key}": None}
        touches.update(dict.fromkeys(run.id for run in runs))
        touches.update(dict.fromkeys(row.run_id for row in self._enqueues))
        touches.update(dict.fromkeys(f"{row.run_id}/{row.key}" for row in (*waits, *self._wait_deletes)))
        return Commit(
            self.env.name,
            touches=tuple(touches),
            decider=self.claim,
            runs=runs,
            waits=waits,
            wait_deletes=self._wait_deletes,
            enqueues=self._enqueues,
            members=self._members,
        )

    def applied(self) -> None:
        """It is durable: runs get their places, timers are armed."""
        admission.started(self.node, self.starts, True)
        dispatch.ring(self.node, self._waits)
        for place in self.places:
            dispatch.queued_again(self.node, place)
        for run_id in (*(run.id for run in self._runs), *(row.run_id for row in self._enqueues)):
            self.node.changed(run_id)

    def undone(self) -> None:
        """It was not written: what it reserved is given back."""
        admission.started(self.node, self.starts, False)
