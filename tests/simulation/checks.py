"""What must hold when the world has come to rest: the promises, run by run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stepwell.core import State
from stepwell.reentry import Reentry
from stepwell.v1 import step_pb2
from stepwell_server.engine import query
from stepwell_server.model import ids
from stepwell_server.model.journal import GIVEN_UP, OutcomeRow, StepKind
from stepwell_server.model.run import LIVE, RunRow, RunStatus
from stepwell_server.ports.store import RunState
from stepwell_server.transport import convert

from tests.simulation.hosts import ENVIRONMENT
from tests.support import apps
from tests.support.programs import Expected, Recorded, expected, walk

if TYPE_CHECKING:
    from tests.simulation.world import World

_LIVE = frozenset(int(status) for status in LIVE)
_EARLY_MS = 6_000
"""An event that was accepted this long before a time-out must win against it."""
_LATE_MS = 10_000
"""A time-out fires no later than this after the faults are over."""


async def check(world: World) -> None:
    """All of it."""
    tables = world.store.memory.tables
    states = await world.store.memory.load(ENVIRONMENT, [run.id for run in tables.run.values()])
    _events(world, states)
    _invoked(world, states)
    outputs = _Outputs(world, states)
    for state in states.values():
        run = state.run
        if run.status in _LIVE:
            _stuck(world, state)
            continue
        _journal(world, state)
        _waits(world, state)
        _timeouts(world, run)
        outputs.check(state)
        _reentry(world, state)
    for (_, run_id), waits in tables.wait.items():
        if states[run_id].run.status not in _LIVE:
            world.problem(f"run {run_id} has ended, but its waits are left: {list(waits.values())}")
    _slots(world, states)
    if tables.cursor:
        world.problem(f"events are not served: {list(tables.cursor.values())[:3]}")


def _slots(world: World, states: dict[str, RunState]) -> None:
    """What ended holds no slot, and what holds one executes."""
    server = world.network.server
    if server is None:
        return
    node = server[1]["RunService"]._node
    for run_id, limits in {**node.resting.held, **node.resting.kept, **node.resting.keeping}.items():
        resident = node.residents.get(run_id)
        if states[run_id].run.status not in _LIVE or resident is None or not resident.executing:
            world.problem(f"run {run_id} does not execute, and holds {limits}")


def _stuck(world: World, state: RunState) -> None:
    run = state.run
    server = world.network.server
    node = server[1]["RunService"]._node if server is not None else None
    reasons = [reason.message for reason in query.reasons(node, state)] if node is not None else ["no server"]
    waits = [(wait.key, wait.due_ms and wait.due_ms - world.now_ms, wait.after_event) for wait in state.waits]
    unseen = [outcome.key for outcome in state.outcomes if outcome.number is None]
    world.problem(
        f"run {run.id} of {run.function_id} never ended: {RunStatus(run.status).name} turn {run.turn}, "
        f"session {run.session_id}; reasons {reasons}; waits {waits}; undelivered {unseen}"
    )


def _events(world: World, states: dict[str, RunState]) -> None:
    """An acknowledged event is there once, and has started one run of each function it triggers."""
    tables = world.store.memory.tables
    by_data: dict[tuple[str, str, int], list[str]] = {}
    for row in tables.event.values():
        data = json.loads(row.data)
        by_data.setdefault((row.name, data["uid"], data["n"]), []).append(row.id)
    for sent in world.clients.sent:
        found = by_data.get((sent.name, sent.data["uid"], sent.data["n"]), [])
        if not sent.event_id:
            world.problem(f"event {sent.name} {sent.data} was never acknowledged")
        elif (ENVIRONMENT, sent.event_id) not in tables.event:
            world.problem(f"acknowledged event {sent.event_id} is lost")
        if len(found) > 1:
            world.problem(f"event {sent.name} {sent.data} was accepted {len(found)} times: {found}")
    for row in tables.event.values():
        runs: dict[str, list[str]] = {}
        for state in states.values():
            if state.run.event_id == row.id:
                runs.setdefault(state.run.function_id, []).append(state.run.id)
        for program in world.programs:
            function_id = f"sim/{program['name']}"
            if program["on"] == row.name:
                run_id = ids.run_id_for_event(ENVIRONMENT, row.id, function_id)
                if runs.pop(function_id, None) != [run_id]:
                    world.problem(f"event {row.id} has not started exactly run {run_id} of {function_id}")
        if runs:
            world.problem(f"event {row.id} has started {runs}")


def _invoked(world: World, states: dict[str, RunState]) -> None:
    """An acknowledged invoke has started one run, however often it was asked for."""
    for invoked in world.clients.invoked:
        found = [
            state.run.id
            for state in states.values()
            if state.run.parent_id is None and state.run.event_id is None and _uid(state) == invoked.uid
        ]
        if found != [invoked.run_id]:
            world.problem(f"invoke {invoked} has started {found}")


def _journal(world: World, state: RunState) -> None:
    """Numbers are consecutive; only a send may have been given up before the code saw what came of it."""
    given_up = {outcome.kind for outcome in state.outcomes if outcome.number == GIVEN_UP}
    if given_up - {StepKind.SEND}:
        world.problem(f"run {state.run.id}: outcomes of kinds {given_up} were given up and kept")
    numbers = [outcome.number for outcome in state.outcomes if outcome.number]
    if numbers != list(range(1, len(numbers) + 1)):
        world.problem(f"run {state.run.id}: the numbers of its journal are {numbers}")


def _waits(world: World, state: RunState) -> None:
    """An event that came well before the time-out of a wait has resolved it (H17)."""
    program = world.by_name[state.run.function_id.partition("/")[2]]
    uid = _uid(state)
    matches = {node["name"]: node["match"] for node in walk(program["body"]) if node["do"] == "wait"}
    tables = world.store.memory.tables
    begin = state.run.event_id or f"evt_{ids.time_part(state.run.created_ms)}"
    for outcome in state.outcomes:
        if outcome.kind != StepKind.EVENT or outcome.event_id is not None or outcome.failure is not None:
            continue
        for event_id in tables.event_ids_by_name.get((ENVIRONMENT, outcome.target), ()):
            event = tables.event[ENVIRONMENT, event_id]
            fits = not matches[outcome.key] or json.loads(event.data)["uid"] == uid
            if fits and event.id > begin and event.accepted_ms < outcome.ended_ms - _EARLY_MS:
                early = outcome.ended_ms - event.accepted_ms
                world.problem(f"run {state.run.id}: {outcome.key} timed out {early} ms after {event.id} was accepted")


def _timeouts(world: World, run: RunRow) -> None:
    """A run ends TIMED_OUT when a time-out of its function is over, and says which; it never outlives one."""
    program = world.by_name[run.function_id.partition("/")[2]]
    began, option = (run.created_ms, "start_timeout") if run.started_ms is None else (run.started_ms, "timeout")
    limit = program.get(f"{option}_ms")
    assert run.ended_ms is not None, "only runs that have ended are checked"
    if run.status == RunStatus.TIMED_OUT:
        said = json.loads(run.failure or b"{}").get("details")
        if limit is None or said != {"option": option, "ms": limit}:
            world.problem(f"run {run.id} of {program} timed out by {option}, and says {said}")
        elif run.ended_ms < began + limit:
            world.problem(f"run {run.id} timed out {began + limit - run.ended_ms} ms before its {option} was over")
    slack = world.tuning.cancel_grace_ms + 2 * world.tuning.lease_ms + _LATE_MS
    if limit is not None and run.ended_ms > max(began + limit, world.faults_over_ms) + slack:
        world.problem(f"run {run.id} has outlived its {option} by {run.ended_ms - began - limit} ms")
    limit = program.get("start_timeout_ms")
    if run.started_ms is not None and limit is not None:
        late = run.started_ms - max(run.created_ms + limit, world.faults_over_ms)
        if late > _LATE_MS:
            world.problem(f"run {run.id} was started {late} ms after its start_timeout")


def _uid(state: RunState) -> str:
    data = state.event.data if state.event is not None else state.run.input or b"{}"
    return json.loads(data)["uid"]


def _recorded(outcome: OutcomeRow) -> Recorded:
    value = json.loads(outcome.output) if outcome.output else None
    failure = json.loads(outcome.failure)["type"] if outcome.failure is not None else ""
    return Recorded(outcome.number or 0, value, failure)


class _Outputs:
    """Every run ends as the interpreter says, and so do the children it invoked."""

    def __init__(self, world: World, states: dict[str, RunState]) -> None:
        self.world = world
        self.states = states
        self.by_child: dict[tuple[str, str], RunState] = {}
        for state in states.values():
            self.by_child[state.run.function_id, _uid(state)] = state

    def output(self, program: str, uid: str) -> Any:
        state = self.by_child.get((f"sim/{program}", uid))
        if state is None:
            return "no such run"
        return self.expect(state).output

    def expect(self, state: RunState) -> Expected:
        program = self.world.by_name[state.run.function_id.partition("/")[2]]
        seen = {outcome.key: _recorded(outcome) for outcome in state.outcomes if outcome.number is not None}
        return expected(program, _uid(state), seen.get, self.output)

    def check(self, state: RunState) -> None:
        run, world = state.run, self.world
        if run.status == RunStatus.TIMED_OUT:
            return
        if run.status == RunStatus.CANCELLED:
            if run.id not in world.clients.cancels and not self._may_be_cancelled(run):
                world.problem(f"run {run.id} was cancelled, and nobody asked for it")
            return
        want = self.expect(state)
        status = RunStatus(run.status).name
        output = json.loads(run.output) if run.output else None
        if status != want.status or (status == "COMPLETED" and output != want.output):
            world.problem(f"run {run.id} of {run.function_id} ended {status} {output or run.failure}, not {want.status} {want.output}")  # noqa: E501  # fmt: skip
            return
        if status == "COMPLETED":
            self._effects(state, want)

    def _may_be_cancelled(self, run: RunRow) -> bool:
        """Its parent was cancelled, ended, gave it up, or timed out waiting for it."""
        return run.parent_id is not None

    def _effects(self, state: RunState, want: Expected) -> None:
        """Each step that had to run has one result, of the attempt that was to make it."""
        rows = {outcome.key: outcome for outcome in state.outcomes if outcome.kind == StepKind.RUN}
        for key, attempt in want.runs.items():
            if key not in rows:
                self.world.problem(f"run {state.run.id}: step {key} has left no result")
            elif rows[key].attempt != attempt:
                self.world.problem(f"run {state.run.id}: step {key} ended with attempt {rows[key].attempt}, not {attempt}")  # noqa: E501  # fmt: skip
        events = self.world.store.memory.tables.event.values()
        for key, uid in want.sends.items():
            count = sum(1 for row in events if row.name == "sim/chained" and json.loads(row.data)["uid"] == uid)
            if count != 1:
                self.world.problem(f"run {state.run.id}: {key} has sent its event {count} times")


def _build_of(world: World, state: RunState) -> int:
    """The build that a run fits: the next one where a changed step is recorded as it is there."""
    program = world.by_name[state.run.function_id.partition("/")[2]]
    changed = {node["name"] for node in walk(program["body"]) if node["do"] == "sleep"}
    before = {node["name"] for node in walk(program["body"]) if node["do"] == "run"}
    kinds = {outcome.key: outcome.kind for outcome in state.outcomes}
    deadly = any(node["do"] == "deadly" for node in walk(program["body"]))
    return 2 if deadly or any(kinds.get(key) == StepKind.SLEEP for key in changed & before) else 1


def _reentry(world: World, state: RunState) -> None:
    """The code, entered once more over the final journal, ends at once and in the same way."""
    run = state.run
    if run.status not in (RunStatus.COMPLETED, RunStatus.FAILED):
        return
    app = apps.build(world.app, world.programs, world.monitor, _build_of(world, state))
    assign = step_pb2.Assign(run_id=run.id, turn=run.turn, function_id=run.function_id, created_ms=run.created_ms)
    convert.input_message(assign.event, state)
    for outcome in state.outcomes:
        if outcome.number is not None:
            convert.outcome_into(assign.journal.add(), outcome)
    reentry = Reentry(app.functions[run.function_id.partition("/")[2]], assign, step_pb2.Limits())
    reentry.start()
    *before, last = reentry.commands or [None]
    if run.status == RunStatus.COMPLETED:
        # A key that backed off when it was given up is given up once more.
        same = all(isinstance(command, step_pb2.Abandon) for command in before)
        same = same and isinstance(last, step_pb2.Complete) and last.output.data == run.output
    else:  # keys that were open when one branch failed are begun once more
        same = isinstance(last, step_pb2.Fail)
    if not same or reentry.bodies:
        world.problem(f"run {run.id} does not end again over its own journal: {reentry.state} {reentry.commands}")
    if reentry.state is not State.ENDED:
        reentry.evict()
