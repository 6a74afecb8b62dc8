"""Generated messages to the model's values and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from stepwell.v1 import admin_pb2, common_pb2, event_pb2, function_pb2, run_pb2, step_pb2

from stepwell_server.engine import usage
from stepwell_server.engine.ingest import NewEvent
from stepwell_server.engine.query import Entry, Reason
from stepwell_server.engine.residents import Session, Tree, base_key
from stepwell_server.engine.trouble import FailurePage
from stepwell_server.model.errors import InvalidError
from stepwell_server.model.event import INVOKED, EventRow
from stepwell_server.model.flow import Scope
from stepwell_server.model.function import FunctionSpec, RetryPolicy, SwitchRow, Trigger
from stepwell_server.model.ids import time_of
from stepwell_server.model.journal import OutcomeRow, StepKind
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import RunRow, RunStatus
from stepwell_server.ports.store import RunState
from stepwell_server.transport.flow import flow_message, flow_value
from stepwell_server.transport.pause import pause_message

_DEFAULT = RetryPolicy()
_TREE_DEPTH = 16


def retry_policy(message: common_pb2.RetryPolicy) -> RetryPolicy:
    """A policy; zero fields take their defaults."""
    return RetryPolicy(
        message.max_attempts or _DEFAULT.max_attempts,
        message.initial_ms or _DEFAULT.initial_ms,
        message.factor or _DEFAULT.factor,
        message.max_ms or _DEFAULT.max_ms,
        message.jitter != common_pb2.RetryPolicy.JITTER_NONE,
    )


def failure_value(message: common_pb2.Failure, depth: int = 0) -> dict[str, Any]:
    """A failure as the model stores it (see engine/failures.py); causes deeper than 16 are cut."""
    value: dict[str, Any] = {"type": message.type, "message": message.message}
    if message.reason:
        value["reason"] = message.reason
    if message.stack:
        value["stack"] = message.stack
    if message.non_retriable:
        value["non_retriable"] = True
    if message.HasField("details"):
        try:
            value["details"] = orjson.loads(message.details.data)
            orjson.dumps(value["details"])
        except (orjson.JSONDecodeError, TypeError):
            value["details"] = message.details.data.decode("latin-1")
    if message.HasField("cause") and depth < 16:
        value["cause"] = failure_value(message.cause, depth + 1)
    return value


def failure_message(data: bytes | None) -> common_pb2.Failure:
    """A stored failure as a message."""
    return _failure(orjson.loads(data) if data else {})


def _failure(value: Mapping[str, Any]) -> common_pb2.Failure:
    message = common_pb2.Failure(
        type=value.get("type", ""),
        message=value.get("message", ""),
        reason=value.get("reason", ""),
        stack=value.get("stack", ""),
        non_retriable=bool(value.get("non_retriable")),
    )
    if "details" in value:
        message.details.data = orjson.dumps(value["details"])
    if value.get("cause"):
        message.cause.CopyFrom(_failure(value["cause"]))
    return message


def metadata_json(metadata: Mapping[str, str]) -> bytes:
    """A metadata map as stored: JSON, always in the same order, or nothing."""
    return orjson.dumps(dict(metadata), option=orjson.OPT_SORT_KEYS) if metadata else b""


def new_event(message: event_pb2.NewEvent) -> NewEvent:
    """An event as sent."""
    data = message.data
    return NewEvent(
        message.name, data.data, data.encoding, message.id, message.time_ms, metadata_json(message.metadata)
    )


def event_message(row: EventRow) -> event_pb2.Event:
    """An accepted event."""
    message = event_pb2.Event()
    event_into(message, row)
    return message


def event_into(message: event_pb2.Event, row: EventRow) -> None:
    """Fills in an accepted event."""
    message.id = row.id
    message.name = row.name
    message.sender_id = row.sender_id
    message.time_ms = row.time_ms
    message.accepted_ms = row.accepted_ms
    message.data.data = row.data or b"{}"
    message.data.encoding = row.encoding
    if row.metadata:
        message.metadata.update(orjson.loads(row.metadata))


def input_message(message: event_pb2.Event, state: RunState) -> None:
    """Fills in what started a run: its event, or its input as an event."""
    event, run = state.event, state.run
    if event is not None:
        message.id = event.id
        message.name = event.name
        message.data.data = event.data or b"{}"
        if event.encoding:
            message.data.encoding = event.encoding
        if event.sender_id:
            message.sender_id = event.sender_id
        message.time_ms = event.time_ms
        message.accepted_ms = event.accepted_ms
        if event.metadata:
            message.metadata.update(orjson.loads(event.metadata))
        return
    message.id = run.id
    message.name = INVOKED
    message.data.data = run.input or b"null"
    message.data.encoding = run.input_encoding
    message.time_ms = run.created_ms
    message.accepted_ms = run.created_ms
    if run.metadata:
        message.metadata.update(orjson.loads(run.metadata))


def outcome_into(message: step_pb2.Outcome, row: OutcomeRow) -> None:
    """Fills in an outcome, without its run."""
    message.key = row.key
    if row.number:
        message.number = row.number
    if row.kind <= StepKind.RETRY:
        message.kind = row.kind  # pyright: ignore[reportAttributeAccessIssue]
    if row.target:
        message.target = row.target
    if row.failure is not None:
        message.failure.CopyFrom(failure_message(row.failure))
    else:
        message.output.data = row.output or b""
        if row.output_encoding:
            message.output.encoding = row.output_encoding
    message.attempt = row.attempt
    message.time_ms = row.ended_ms
    if row.input_hash:
        message.input_hash = row.input_hash


def tree(message: step_pb2.AwaitTree, depth: int = 0) -> Tree | None:
    """An await tree; None where its parts combine in no known way. Raises InvalidError where it is too large."""
    if depth > _TREE_DEPTH or len(message.keys) > LIMITS.branches or len(message.parts) > LIMITS.branches:
        raise InvalidError("TOO_LARGE", "the await tree is too large")
    parts: list[Tree] = []
    for part in message.parts:
        inner = tree(part, depth + 1)
        if inner is None:
            return None
        parts.append(inner)
    if message.combine not in (step_pb2.AwaitTree.COMBINE_ANY, step_pb2.AwaitTree.COMBINE_ALL):
        return None
    all_of = message.combine == step_pb2.AwaitTree.COMBINE_ALL
    return Tree(all_of, tuple(base_key(key) for key in message.keys), tuple(parts))


def function_specs(app: str, deployment: str, messages: Iterable[function_pb2.FunctionSpec]) -> list[FunctionSpec]:
    """Registered functions. Raises InvalidError for what no enumeration has."""
    messages = list(messages)
    for message in messages:
        if message.retry.jitter not in common_pb2.RetryPolicy.Jitter.values():
            where = f"function {app}/{message.name}: retry"
            raise InvalidError("BAD_RETRY", f"{where}: there is no such jitter", fields=((where, "jitter"),))
    return [
        FunctionSpec(
            f"{app}/{message.name}",
            app,
            message.name,
            tuple(Trigger(trigger.event, trigger.condition, trigger.schema) for trigger in message.triggers),
            retry_policy(message.retry),
            message.input_schema,
            message.output_schema,
            message.strict,
            deployment,
            message.timeout_ms,
            message.start_timeout_ms,
            flow_value(f"function {app}/{message.name}", message.flow) if message.HasField("flow") else None,
            tuple(sorted(message.labels.items())),
        )
        for message in messages
    ]


def function_message(
    function: FunctionSpec, workers: int, unjudged: str, pause: SwitchRow | None = None
) -> function_pb2.Function:
    """A registered function."""
    spec = function_pb2.FunctionSpec(
        name=function.name,
        triggers=[
            function_pb2.Trigger(event=t.event, condition=t.condition, schema=t.schema) for t in function.triggers
        ],
        retry=common_pb2.RetryPolicy(
            max_attempts=function.retry.max_attempts,
            initial_ms=function.retry.initial_ms,
            factor=function.retry.factor,
            max_ms=function.retry.max_ms,
            jitter=common_pb2.RetryPolicy.JITTER_FULL if function.retry.jitter else common_pb2.RetryPolicy.JITTER_NONE,
        ),
        input_schema=function.input_schema,
        output_schema=function.output_schema,
        strict=function.strict,
        timeout_ms=function.timeout_ms,
        start_timeout_ms=function.start_timeout_ms,
        flow=flow_message(function.flow) if function.flow is not None else None,
        labels=dict(function.labels),
    )
    return function_pb2.Function(
        id=function.id,
        app=function.app,
        deployment=function.deployment,
        spec=spec,
        workers=workers,
        unjudged=unjudged,
        pause=pause_message(pause) if pause is not None else None,
    )


def run_message(
    run: RunRow, status: RunStatus | None = None, *, cancelled: bool = False, deadline_ms: int = 0
) -> run_pb2.Run:
    """A run. cancelled: somebody asked for its end."""
    message = run_pb2.Run(
        id=run.id,
        function_id=run.function_id,
        status=int(status or run.status),  # pyright: ignore[reportArgumentType]
        paused_reason=run.reason,  # pyright: ignore[reportArgumentType]
        event_id=run.event_id or "",
        parent_run_id=run.parent_id or "",
        parent_key=run.parent_key or "",
        deployment=run.deployment,
        turn=run.turn,
        created_ms=run.created_ms,
        started_ms=run.started_ms or 0,
        ended_ms=run.ended_ms or 0,
        cancel_requested=cancelled or run.status == RunStatus.CANCELLED,
        deadline_ms=deadline_ms,
    )
    if run.output is not None:
        message.output.data = run.output
        message.output.encoding = run.output_encoding
    if run.failure is not None:
        message.failure.CopyFrom(failure_message(run.failure))
    return message


def failures_message(page: FailurePage) -> run_pb2.ListFailuresResponse:
    """A page of failures."""
    message = run_pb2.ListFailuresResponse(next_page_token=page.token, scanned=page.scanned)
    if page.token:
        message.scanned_to_ms = time_of(page.token)
    for group in page.groups:
        message.groups.add(
            fingerprint=group.error.digest,
            function_id=group.function_id,
            statuses=sorted(group.statuses),  # pyright: ignore[reportArgumentType]
            count=group.count,
            first_seen_ms=group.first_ms,
            last_seen_ms=group.last_ms,
            run_id=group.run_id,
            type=group.error.type,
            reason=group.error.reason,
            message=group.error.message,
            frame=group.error.frame,
            key=group.error.key,
        )
    return message


def reason_message(reason: Reason) -> run_pb2.WaitingFor:
    """One thing that a run waits for."""
    return run_pb2.WaitingFor(
        kind=int(reason.kind),  # pyright: ignore[reportArgumentType]
        key=reason.key,
        message=reason.message,
        event=reason.event,
        match=reason.match,
        until_ms=reason.until_ms,
        run_id=reason.run_id,
        cut_after=reason.cut_after,
    )


def entry_message(entry: Entry) -> run_pb2.JournalEntry:
    """A line of a journal."""
    outcome, wait = entry.outcome, entry.wait
    if outcome is not None:
        message = run_pb2.JournalEntry(
            key=outcome.key,
            kind=StepKind(outcome.kind).name,
            target=outcome.target,
            number=outcome.number or 0,
            attempt=outcome.attempt,
            started_ms=outcome.started_ms,
            ended_ms=outcome.ended_ms,
            run_id=outcome.child_id or "",
        )
        if outcome.failure is not None:
            message.failure.CopyFrom(failure_message(outcome.failure))
        elif outcome.output is not None:
            message.output.data = outcome.output
            message.output.encoding = outcome.output_encoding
        return message
    assert wait is not None, "an entry is an outcome or a wait"
    message = run_pb2.JournalEntry(
        key=wait.key,
        kind=StepKind(wait.kind).name,
        target=wait.target,
        attempt=wait.attempt,
        started_ms=wait.opened_ms,
        until_ms=wait.due_ms or 0,
        run_id=wait.child_id or "",
    )
    if wait.failure is not None:
        message.failure.CopyFrom(failure_message(wait.failure))
    return message


_LIMIT_KINDS = {
    "executing": admin_pb2.Limit.KIND_EXECUTING,
    "run": admin_pb2.Limit.KIND_RUN,
    "throttle": admin_pb2.Limit.KIND_THROTTLE,
}


def limit_message(found: usage.Used, now_ms: int) -> admin_pb2.Limit:
    """A limit that is used or waited for."""
    name, use = found.name, found.use
    return admin_pb2.Limit(
        id=use.limit,
        kind=_LIMIT_KINDS[name.kind],
        name=found.label,
        function_id=name.owner if name.scope is Scope.FUNCTION else "",
        app=name.owner.partition("/")[0],
        value=name.value.encode(),
        used=use.used,
        bound=use.bound,
        waiting=found.waiting,
        more=found.more,
        free_ms=use.free_ms if use.free_ms > now_ms else 0,
    )


def worker_message(session: Session, silent_ms: int) -> admin_pb2.Worker:
    """A worker's session."""
    row = session.row
    return admin_pb2.Worker(
        session_id=row.id,
        app=row.app,
        deployment=row.deployment,
        instance=row.instance,
        sdk=row.sdk,
        connected=session.link is not None,
        draining=session.draining,
        capacity=session.capacity,
        executing=session.executing,
        parked=sum(not resident.executing for resident in session.residents.values()),
        opened_ms=row.opened_ms,
        function_ids=sorted(session.functions),
        silent_ms=max(silent_ms, 0),
        labels=dict(session.labels),
    )
