"""Plays a transcript against the Python core and says what it did, in the transcript's own words."""

from __future__ import annotations

import json
from typing import Any

from stepwell.errors import NonRetriableError, RetryAfterError, StepTimeoutError
from stepwell.reentry import Reentry
from stepwell.v1 import common_pb2, event_pb2, step_pb2

Json = Any

ORDER = ("result", "failure", "sleep", "wait", "invoke", "send", "delivered", "abandon", "park", "mismatch", "complete",
         "fail", "cancelled")  # fmt: skip
SPECIAL: dict[str, Any] = {"pair": (1, 2), "no JSON": object(), "not a number": float("nan"), "big": 2**70}


def play(app: Any, transcript: Json) -> list[Json]:
    """What the core did after each input."""
    function = app.functions[transcript["program"]]
    core = Reentry(function, assign(transcript.get("assign", {})), step_pb2.Limits(**transcript.get("limits", {})))
    return [_apply(core, step) for step in transcript["steps"]]


def _apply(core: Reentry, step: Json) -> Json:
    commands: list[Any] | None = None
    match step:
        case {"start": _}:
            core.start()
        case {"resolve": spec}:
            core.resolve(outcome(spec))
        case {"finish": spec}:
            core.finish(
                spec["key"], spec.get("attempt", 1), **_end(spec),
                started_ms=spec.get("started_ms", 0), ended_ms=spec.get("ended_ms", 0),
            )  # fmt: skip
        case {"ack": number}:
            core.ack(number)
        case {"cancel": spec}:
            core.cancel(spec.get("failure", {}).get("message", ""))
        case {"evict": _}:
            core.evict()
        case {"reconnect": _}:
            commands = core.unacknowledged()
        case _:
            raise AssertionError(step)
    seen: Json = {"state": core.state.value}
    if commands is None:
        commands = core.commands.copy()
        core.commands.clear()
    if commands:
        words = [_command(command) for command in commands]
        seen["commands"] = sorted(words, key=lambda word: ORDER.index(next(iter(word))))
    if core.bodies:
        seen["bodies"] = [_body(body) for body in core.bodies]
        core.bodies = []
    if core.interrupts:
        seen["interrupts"] = core.interrupts
        core.interrupts = []
    return seen


def _end(spec: Json) -> dict[str, Any]:
    if "error" in spec:
        return {"error": _error(spec["error"])}
    if "special" in spec:
        return {"value": SPECIAL[spec["special"]]}
    if "text_bytes" in spec:
        return {"value": "x" * spec["text_bytes"]}
    return {"value": spec.get("value")}


def _error(spec: Json) -> BaseException:
    message = spec.get("message", "")
    if spec["type"] == "RetryAfterError":
        return RetryAfterError(spec["after_ms"] / 1000, message)
    if spec["type"] == "NonRetriableError":
        return NonRetriableError(message)
    if spec["type"] == "StepTimeoutError":
        return StepTimeoutError(message)
    return type(spec["type"], (Exception,), {})(message)


def _payload(value: Json) -> common_pb2.Payload:
    return common_pb2.Payload(data=json.dumps(value, ensure_ascii=False).encode())


def _value(payload: common_pb2.Payload) -> Json:
    return json.loads(payload.data)


def outcome(spec: Json) -> step_pb2.Outcome:
    message = step_pb2.Outcome(
        run_id="run_1", turn=1, key=spec["key"], number=spec.get("number", 0), target=spec.get("target", ""),
        kind=f"STEP_KIND_{spec.get('kind', 'RUN')}", attempt=spec.get("attempt", 1), time_ms=spec.get("time_ms", 0),
        input_hash=bytes.fromhex(spec.get("input_hash", "")),
    )  # fmt: skip
    if "failure" in spec:
        message.failure.CopyFrom(_failure_message(spec["failure"]))
    elif "output" in spec:
        message.output.CopyFrom(_payload(spec["output"]))
    else:
        message.output.data = b""
    return message


def _failure_message(spec: Json) -> common_pb2.Failure:
    return common_pb2.Failure(**spec)


def _event(spec: Json) -> event_pb2.Event:
    event = {"id": "evt_1", "name": "test/start", "data": {}, **spec}
    data = common_pb2.Payload() if event["data"] is None else _payload(event["data"])
    return event_pb2.Event(id=event["id"], name=event["name"], data=data, time_ms=1000)


def assign(spec: Json) -> step_pb2.Assign:
    events = [_event(item) for item in spec.get("events", [])]
    return step_pb2.Assign(
        run_id="run_1", turn=1, function_id="test/program", created_ms=1000, cancelled=spec.get("cancelled", False),
        cancel_failure=_failure_message(spec["cancel_failure"]) if "cancel_failure" in spec else None,
        event=events[0] if events else _event(spec.get("event", {})),
        events=events,
        journal=[outcome(item) for item in spec.get("journal", [])],
        open=[
            step_pb2.OpenKey(key=o["key"], kind=f"STEP_KIND_{o['kind']}", target=o.get("target", ""))
            for o in spec.get("open", [])
        ],
    )  # fmt: skip


def _body(body: Any) -> Json:
    words: Json = {"key": body.key, "attempt": body.attempt}
    if body.args:
        words["args"] = json.loads(json.dumps(body.args))
    if body.last_error is not None:
        words["last_error"] = body.last_error.type
    return words


def _failure(failure: common_pb2.Failure) -> Json:
    words: Json = {"type": failure.type}
    if failure.reason:
        words["reason"] = failure.reason
    if failure.non_retriable:
        words["non_retriable"] = True
    # What a language's own JSON says against a value is not the same everywhere.
    if failure.HasField("cause") and failure.type != "SerializationError":
        words["cause"] = failure.cause.type
    return words


def _command(command: Any) -> Json:
    match command:
        case step_pb2.StepResult(key=key, number=number, attempt=attempt, output=output):
            words = {"key": key, "number": number, "attempt": attempt, "output": _value(output)}
            return {"result": {**words, **_hash(command)}}
        case step_pb2.StepFailure(key=key, attempt=attempt, failure=failure):
            words = {"key": key, "attempt": attempt, "max_attempts": command.retry.max_attempts}
            return {"failure": {**words, "failure": _failure(failure), **_after(command), **_hash(command)}}
        case step_pb2.Sleep(key=key):
            option = command.WhichOneof("until")
            return {"sleep": {"key": key, option: getattr(command, option)}}
        case step_pb2.WaitForEvent(key=key, event=event, timeout_ms=timeout_ms):
            words = {"key": key, "event": event, "timeout_ms": timeout_ms}
            if command.match_path:
                words |= {"match_path": command.match_path, "match_value": json.loads(command.match_value)}
            return {"wait": words | ({"condition": command.condition} if command.condition else {})}
        case step_pb2.Invoke(key=key, function_id=function_id):
            words = {"key": key, "function_id": function_id, "input": _value(command.input)}
            words |= {"timeout_ms": command.timeout_ms} if command.timeout_ms else {}
            return {"invoke": words | ({"detached": True} if command.detached else {}) | _hash(command)}
        case step_pb2.SendEvents(key=key, events=events):
            sent = [[e.name, _value(e.data) if e.data.data else None] for e in events]
            return {"send": {"key": key, "events": sent, **_hash(command)}}
        case step_pb2.Delivered(keys=keys):
            return {"delivered": [[item.key, item.number] for item in keys]}
        case step_pb2.Abandon(key=key):
            return {"abandon": key}
        case step_pb2.Park(tree=tree, received=received):
            assert tree.combine == step_pb2.AwaitTree.COMBINE_ANY
            return {"park": {"any": list(tree.keys), "received": received}}
        case step_pb2.Mismatch(key=key, recorded=recorded, attempted=attempted):
            assert command.location, "a mismatch names the line"
            return {"mismatch": {"key": key, "recorded": recorded, "attempted": attempted}}
        case step_pb2.Complete(number=number, output=output):
            return {"complete": {"number": number, "output": _value(output)}}
        case step_pb2.Fail(number=number, attempt=attempt, failure=failure):
            return {"fail": {"number": number, "attempt": attempt, "failure": _failure(failure), **_after(command)}}
        case step_pb2.Cancelled(number=number):
            return {"cancelled": {"number": number}}
        case _:
            raise AssertionError(command)


def _after(command: Any) -> Json:
    return {"retry_after_ms": command.retry_after_ms} if command.HasField("retry_after_ms") else {}


def _hash(command: Any) -> Json:
    return {"input_hash": command.input_hash.hex()} if command.input_hash else {}
