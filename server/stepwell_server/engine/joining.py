"""What a rate limit, a batch and a debounce make of all that came to one key: plans of commits."""

from __future__ import annotations

from stepwell_server.engine import allowance, expressions, gathering
from stepwell_server.engine.arrivals import Arrival, Plan
from stepwell_server.engine.claims import claim_key, skipped
from stepwell_server.engine.gathering import Gathering
from stepwell_server.engine.node import Environment
from stepwell_server.engine.timeouts import duration
from stepwell_server.model.claim import ClaimRow
from stepwell_server.model.flow import Batch
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.journal import GATE_KEY
from stepwell_server.model.limits import CLAIM_LEFT_MS, DAY_MS
from stepwell_server.model.run import GATHERED, RunRow


def first_key(env: Environment, arrival: Arrival) -> str:
    """Of the gate that an event comes to: the rate limit, or what is behind it."""
    function, flow, _ = arrival.coming
    if flow.rate_limit is None:
        return inner_key(env, arrival)
    return claim_key(env.unjudged, "rate", function.id, flow.rate_limit.key, arrival.value)


def inner_key(env: Environment, arrival: Arrival) -> str:
    """Of the gate behind the rate limit; empty if there is none."""
    function, flow, _ = arrival.coming
    for kind, said in (("batch", flow.batch), ("debounce", flow.debounce), ("single", flow.singleton)):
        if said is not None:
            return claim_key(env.unjudged, kind, function.id, said.key, arrival.value)
    return ""


def rate(plan: Plan, row: ClaimRow | None, arrivals: list[Arrival]) -> None:
    """The first so many pass, the others are skipped."""
    limit = arrivals[0].coming[1].rate_limit
    assert limit is not None, "it has a rate limit"
    allowed = allowance.allow(limit, row.value if row is not None else "", plan.now, len(arrivals))
    if allowed.passing:
        plan.next_claim(row, "", allowed.value, allowed.until_ms)
    for arrival in arrivals[: allowed.passing]:
        arrival.onward = inner_key(plan.env, arrival)
        if arrival.onward:
            plan.join(arrival, "")
        else:
            plan.start(arrival, plan.new_run(arrival))
    message = f"there were {limit.limit} runs of the same key in the last {duration(limit.period_ms)} (rate_limit)"
    failure = skipped("RATE_LIMITED", message, limit=limit.limit, period_ms=limit.period_ms, free_ms=allowed.free_ms)
    for arrival in arrivals[allowed.passing :]:
        arrival.onward = ""
        plan.skip(arrival, failure)


def _fits(plan: Plan, function: FunctionSpec, said: Batch, arrival: Arrival) -> bool:
    try:
        return not said.condition or expressions.trigger_fits(said.condition, arrival.value)
    except expressions.UnjudgedError as error:
        event_id = str(arrival.value.get("id", ""))
        plan.env.unjudged.note(function.id, expressions.Note(said.condition, event_id, str(error)))
        return False


def batch(plan: Plan, row: ClaimRow | None, arrivals: list[Arrival]) -> None:
    """Events join the batch that is open, or begin one; a full one starts, and one that is due."""
    current = gathering.of_claim(row)
    begun: dict[str, RunRow] = {}
    changed = False
    for arrival in arrivals:
        if arrival.wait is not None:
            plan.fire(arrival.wait.run_id, arrival.wait.function_id, arrival.wait.key)
            if current is not None and current.run_id == arrival.wait.run_id:
                current, changed = None, True
            continue
        function, flow, event = arrival.coming
        assert flow.batch is not None, "it gathers batches"
        if not _fits(plan, function, flow.batch, arrival):
            run = plan.new_run(arrival)
            plan.start(arrival, run)
            plan.joined(arrival, run.id)
            continue
        changed = True
        if current is not None and not gathering.fits(current, event):
            _start_batch(plan, current, begun, function.id)
            current = None
        if current is None:
            run = plan.new_run(arrival)
            begun[run.id] = run._replace(input_encoding=GATHERED)
        current = gathering.join(flow.batch, current, event, arrival.run_id(plan.env.name), plan.now)
        plan.join(arrival, current.run_id)
        if gathering.is_full(flow.batch, current):
            _start_batch(plan, current, begun, function.id)
            current = None
    if changed:
        _stay(plan, row, current, begun)


def _start_batch(plan: Plan, current: Gathering, begun: dict[str, RunRow], function_id: str) -> None:
    """One that began in this commit is queued with it; any other leaves the gate."""
    run = begun.pop(current.run_id, None)
    if run is not None:
        plan.queue(run)
    else:
        plan.fire(current.run_id, function_id, GATE_KEY)


def debounce(plan: Plan, row: ClaimRow | None, arrivals: list[Arrival]) -> None:
    """Each event may put off the run that waits; one that is due, and was put off, looks again."""
    current = gathering.of_claim(row)
    begun: dict[str, RunRow] = {}
    changed = False
    for arrival in arrivals:
        wait = arrival.wait
        if wait is None:
            _, flow, event = arrival.coming
            assert flow.debounce is not None, "it has a debounce"
            if current is None:
                run = plan.new_run(arrival)
                begun[run.id] = run
            current = gathering.settle(flow.debounce, current, event, arrival.run_id(plan.env.name), plan.now)
            plan.join(arrival, current.run_id)
            changed = True
        elif current is None or current.run_id != wait.run_id:
            plan.fire(wait.run_id, wait.function_id, wait.key)
        elif current.due_ms > plan.now:
            plan.look_again(wait, current.due_ms)
        else:
            plan.fire(wait.run_id, wait.function_id, wait.key, current.event_id)
            current, changed = None, True
    if changed:
        _stay(plan, row, current, begun)


def _stay(plan: Plan, row: ClaimRow | None, current: Gathering | None, begun: dict[str, RunRow]) -> None:
    """The claim names the run that is still at the gate, if there is one."""
    if current is None:
        plan.next_claim(row, "", "", plan.now + CLAIM_LEFT_MS)
        return
    run = begun.pop(current.run_id, None)
    if run is not None:
        plan.park(run, current.due_ms)
    plan.next_claim(row, current.run_id, gathering.value_of(current), current.due_ms + DAY_MS)
