"""Registrations: checked at the door, kept by deployment, served from the app's current one (H15, H22)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from stepwell_server.engine import dispatch, expressions, fence, flow, lines, schemas
from stepwell_server.engine.matching import TriggerIndex
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.retry import ATTEMPTS_MAX, FACTOR_MAX
from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.errors import InvalidError, StateError, UnavailableError
from stepwell_server.model.event import RESERVED_PREFIX
from stepwell_server.model.function import (
    DeploymentRow,
    FunctionSpec,
    Registry,
    RetryPolicy,
    ShapeRow,
    Standing,
    Trigger,
)
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.notes import Registered

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")


def check_name(name: str, field: str) -> None:
    """Raises InvalidError unless a name is letters, digits, "-", "_", "." and short enough."""
    if not _NAME.match(name) or len(name) > LIMITS.key_bytes:
        raise InvalidError(
            "BAD_NAME",
            f"{field}: {name[:200]!r} is not a name (letters, digits, '-', '_', '.'; at most {LIMITS.key_bytes})",
            fields=((field, "not a name"),),
        )


def check_functions(app: str, functions: Sequence[FunctionSpec]) -> None:
    """Raises InvalidError, naming function and option, where a registration can never be right."""
    check_name(app, "app")
    if len(functions) > LIMITS.functions_per_app:
        raise InvalidError("TOO_MANY", f"{len(functions)} functions, more than {LIMITS.functions_per_app}")
    seen: set[str] = set()
    for function in functions:
        check_name(function.name, "functions.name")
        where = f"function {function.id}"
        if function.id in seen:
            raise InvalidError("DUPLICATE_FUNCTION", f"{where} is registered twice", fields=((where, "twice"),))
        seen.add(function.id)
        if len(function.triggers) > LIMITS.triggers_per_function:
            raise InvalidError(
                "TOO_MANY", f"{where} has more than {LIMITS.triggers_per_function} triggers", fields=((where, "on"),)
            )
        for trigger in function.triggers:
            _check_trigger(where, trigger)
        _check_retry(where, function.retry)
        _check_timeouts(where, function)
        if function.flow is not None:
            flow.check(where, function.flow)
        flow.check_labels(where, function.labels)
        for option, schema in (("input_schema", function.input_schema), ("output_schema", function.output_schema)):
            if schema:
                schemas.check(f"{where}: {option}", schema)


def _check_trigger(where: str, trigger: Trigger) -> None:
    field = f"{where}: on"
    name = trigger.event.removesuffix("*")
    if not trigger.event or len(trigger.event.encode()) > LIMITS.name_bytes or "*" in name or not name.isprintable():
        raise InvalidError(
            "BAD_TRIGGER",
            f"{field}: {trigger.event!r} is not an event name, or a prefix and '*'",
            fields=((field, "bad event name"),),
        )
    if name.startswith(RESERVED_PREFIX):
        raise InvalidError(
            "RESERVED_NAME", f"{field}: {trigger.event!r} is the server's", fields=((field, "reserved"),)
        )
    if trigger.condition:
        expressions.check_trigger(trigger.condition, f"{where}: if")
    if trigger.schema:
        schemas.check(f"{field} {trigger.event}: schema", trigger.schema)


def _check_retry(where: str, retry: RetryPolicy) -> None:
    field = f"{where}: retry"
    if not 1 <= retry.max_attempts <= ATTEMPTS_MAX:
        raise InvalidError("BAD_RETRY", f"{field}: max_attempts is not 1 to 100", fields=((field, "max_attempts"),))
    if not 1.0 <= retry.factor <= FACTOR_MAX:
        raise InvalidError("BAD_RETRY", f"{field}: factor is not 1 to 1,000", fields=((field, "factor"),))
    if retry.initial_ms > LIMITS.wait_ms or retry.max_ms > LIMITS.wait_ms:
        raise InvalidError("BAD_RETRY", f"{field}: a delay is longer than 366 days", fields=((field, "delay"),))


def _check_timeouts(where: str, function: FunctionSpec) -> None:
    for option, ms in (("timeout", function.timeout_ms), ("start_timeout", function.start_timeout_ms)):
        if ms > LIMITS.wait_ms:
            field = f"{where}: {option}"
            raise InvalidError("BAD_TIMEOUT", f"{field} is longer than 366 days", fields=((field, "too long"),))


def pack(functions: Sequence[FunctionSpec]) -> bytes:
    """The functions of a deployment as JSON."""
    packed: list[dict[str, Any]] = []
    for f in functions:
        item: dict[str, Any] = {
            "id": f.id,
            "name": f.name,
            "triggers": [_packed_trigger(t) for t in f.triggers],
            "retry": [f.retry.max_attempts, f.retry.initial_ms, f.retry.factor, f.retry.max_ms, f.retry.jitter],
            "input": f.input_schema.decode(),
            "output": f.output_schema.decode(),
            "strict": f.strict,
        }
        if f.timeout_ms or f.start_timeout_ms:
            item["timeouts"] = [f.timeout_ms, f.start_timeout_ms]
        if f.flow is not None:
            item["flow"] = flow.pack(f.flow)
        if f.labels:
            item["labels"] = dict(f.labels)
        packed.append(item)
    return orjson.dumps(packed)


def _packed_trigger(trigger: Trigger) -> dict[str, str]:
    packed = {"event": trigger.event, "if": trigger.condition}
    return {**packed, "schema": trigger.schema.decode()} if trigger.schema else packed


def unpack(row: DeploymentRow) -> list[FunctionSpec]:
    """The functions of a deployment."""
    functions: list[FunctionSpec] = []
    for item in orjson.loads(row.spec):
        attempts, initial, factor, longest, jitter = item["retry"]
        timeout_ms, start_timeout_ms = item.get("timeouts", (0, 0))
        functions.append(
            FunctionSpec(
                f"{row.app}/{item['name']}",
                row.app,
                item["name"],
                tuple(Trigger(t["event"], t["if"], t.get("schema", "").encode()) for t in item["triggers"]),
                RetryPolicy(attempts, initial, factor, longest, jitter),
                item["input"].encode(),
                item["output"].encode(),
                item["strict"],
                row.id,
                timeout_ms,
                start_timeout_ms,
                flow.unpack(item["flow"]) if "flow" in item else None,
                tuple(item.get("labels", {}).items()),
            )
        )
    return functions


async def register(node: Node, env: Environment, app: str, deployment: str, functions: Sequence[FunctionSpec]) -> None:
    """Keeps a deployment, if it was never seen; the newest first seen is the app's current one."""
    check_functions(app, functions)
    for function in functions:
        if node.cluster is not None and function.flow is not None:
            flow.check_cluster(f"function {function.id}", function.flow)
    if not deployment or len(deployment) > LIMITS.key_bytes or not deployment.isprintable():
        raise InvalidError("BAD_NAME", "deployment is empty or not a name", fields=(("deployment", "bad"),))
    row = DeploymentRow(env.name, app, deployment, node.clock.now_ms(), pack(functions))
    result = await node.lane.apply(Commit(env.name, touches=(f"registry:{env.name}",), deployments=(row,)))
    if result.verdict is Verdict.FENCED:
        raise fence.taken_over()
    registry = await node.store.registry(env.name)
    if node.cluster is not None and registry.version != env.version:
        node.cluster.tell(Registered(env.name))
    _apply(node, env, registry)
    for kept in registry.deployments:
        if kept.app == app and kept.id == deployment and _sorted(kept.spec) != _sorted(row.spec):
            raise StateError(
                "DEPLOYMENT_CHANGED",
                f"deployment {deployment!r} of {app} was registered with other functions or options: give this build "
                "another id, or none",
            )


def _sorted(spec: bytes) -> bytes:
    return orjson.dumps(sorted(orjson.loads(spec), key=lambda item: item["name"]), option=orjson.OPT_SORT_KEYS)


async def refresh(node: Node, env: Environment) -> None:
    """Reads the registry anew."""
    _apply(node, env, await node.store.registry(env.name))


def _apply(node: Node, env: Environment, registry: Registry) -> None:
    before, paused = env.limited, env.paused
    apply(env, registry)
    if env.limited != before:
        dispatch.limits_changed(node, env)
    if env.paused != paused:
        dispatch.pump(node, env)


async def look_up(node: Node, env: Environment, function_ids: Iterable[str]) -> None:
    """Reads the registry anew where one of these is not known: it may have been registered at another node just now."""
    while not all(function_id in env.triggers.known for function_id in function_ids):
        try:
            await refresh(node, env)
        except UnavailableError:
            await asyncio.sleep(0.5)
        else:
            return


def apply(env: Environment, registry: Registry) -> None:
    """The registry as rows becomes the one that is looked things up in.

    A read that was overtaken by a newer one changes nothing; a shape that a wait has asked for meanwhile stays.
    """
    if env.loaded and registry.version < env.version:
        return
    current: dict[str, DeploymentRow] = {}
    for row in registry.deployments:
        current[row.app] = row
    functions: list[FunctionSpec] = []
    for row in current.values():
        functions.extend(unpack(row))
    env.triggers = TriggerIndex(functions, env.unjudged)
    env.limited = {function.id: function for function in functions if lines.is_limited(function)}
    env.current = {app: row.id for app, row in current.items()}
    shapes_kept(env, registry.shapes)
    last = {row.function_id: row for row in registry.switches}
    env.paused = {id_: row for id_, row in last.items() if row.standing != Standing.RUNNING} or None
    env.version = registry.version
    env.loaded = True


def shapes_kept(env: Environment, shapes: Sequence[ShapeRow]) -> None:
    """These shapes are durable."""
    for shape in shapes:
        env.shapes[shape.event] = env.shapes.get(shape.event, frozenset()) | {shape.path}
        env.kept.add((shape.event, shape.path))
