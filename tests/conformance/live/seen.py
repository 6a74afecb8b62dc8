"""What runs came to, without times and ids, and how it differs from what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from stepwell.client import Client
from stepwell.context import idempotency_token
from stepwell.v1 import common_pb2, run_pb2

from tests.conformance.live.scenario import parse

Json = Any

_IDS = re.compile(r"\b(evt|run)_[0-9a-f]{32}\b")
_STATUS = "RUN_STATUS_"


def messages_of(client: Client, run_id: str) -> tuple[run_pb2.Run, list[run_pb2.JournalEntry]]:
    """A run and its journal, as the server tells them."""
    run = client.call(lambda stubs: stubs.runs.GetRun, run_pb2.GetRunRequest(run_id=run_id)).run
    request = run_pb2.GetJournalRequest(run_id=run_id, page_size=10_000)
    return run, list(client.call(lambda stubs: stubs.runs.GetJournal, request).entries)


def run_of(client: Client, run_id: str) -> Json:
    """What a run came to, with its journal and the runs that it invoked."""
    run, journal = messages_of(client, run_id)
    numbers = [entry.number for entry in journal if entry.number]
    assert numbers == list(range(1, len(numbers) + 1)), f"{run_id}: the journal has the numbers {numbers}"
    found: Json = {"function": run.function_id, "status": run_pb2.RunStatus.Name(run.status).removeprefix(_STATUS)}
    tokens = {idempotency_token(run_id, entry.key): entry.key for entry in journal}
    found |= _payload(run, tokens) | {"journal": [_entry(entry, tokens) for entry in journal]}
    children = sorted(client.list_runs(parent_run_id=run_id), key=lambda child: child.parent_key)
    if children:
        found["children"] = [run_of(client, child.id) for child in children]
    return found


def _entry(entry: run_pb2.JournalEntry, tokens: dict[str, str]) -> Json:
    found: Json = {"key": entry.key, "kind": entry.kind}
    if entry.target:
        found["target"] = entry.target
    if not entry.number:
        found["open"] = True
    if entry.attempt > 1:
        found["attempt"] = entry.attempt
    return found | _payload(entry, tokens)


def _payload(message: run_pb2.Run | run_pb2.JournalEntry, tokens: dict[str, str]) -> Json:
    found: Json = {}
    if message.HasField("output") and message.output.data:
        found["output"] = _named(parse(message.output.data), tokens)
    if message.HasField("failure"):
        found["failure"] = _failure(message.failure)
    return found


def _failure(failure: common_pb2.Failure) -> Json:
    found: Json = {"type": failure.type, "message": _IDS.sub(r"\1_…", failure.message)}
    if failure.reason:
        found["reason"] = failure.reason
    if failure.non_retriable:
        found["non_retriable"] = True
    if failure.HasField("cause"):
        found["cause"] = _failure(failure.cause)
    return found


def _named(value: Json, tokens: dict[str, str]) -> Json:
    """A value with words for the ids in it, and for the time of an event."""
    match value:
        case str():
            return f"token of {tokens[value]}" if value in tokens else _IDS.sub(r"\1_…", value)
        case {"id": str(), "name": str(), "time_ms": int()}:
            return {key: _named(inner, tokens) for key, inner in value.items() if key != "time_ms"}
        case dict():
            return {key: _named(inner, tokens) for key, inner in value.items()}
        case list():
            return [_named(inner, tokens) for inner in value]
        case _:
            return value


def differences(expected: Json, found: Json, at: str = "it") -> Iterator[str]:
    """Where two values differ. `$any` fits anything and nothing; a list in a journal fits its entries in any order."""
    if _anything(expected):
        return
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            if key not in expected or key not in found:
                if _anything(expected.get(key)):
                    continue
                yield f"{at}.{key}: " + (f"there is {_short(found[key])}" if key in found else "it is missing")
            elif key == "journal":
                yield from _journals(expected[key], found[key], f"{at}.{key}")
            else:
                yield from differences(expected[key], found[key], f"{at}.{key}")
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{at}: {len(expected)} are expected, not {_short(found)}"
        for index, (one, other) in enumerate(zip(expected, found, strict=False)):
            yield from differences(one, other, f"{at}[{index}]")
    elif not _same(expected, found):
        yield f"{at}: {_short(expected)} is expected, not {_short(found)}"


def _anything(expected: Json) -> bool:
    return isinstance(expected, dict) and "$any" in expected


def _journals(expected: list[Json], found: list[Json], at: str) -> Iterator[str]:
    ordered: list[Json] = []
    rest = list(found)
    wanted: list[Json] = []
    for item in expected:
        group: list[Json] = item if isinstance(item, list) else [item]
        wanted += sorted(group, key=lambda entry: entry["key"])
        ordered += sorted(rest[: len(group)], key=lambda entry: entry["key"])
        del rest[: len(group)]
    yield from differences(wanted, ordered + rest, at)


def _same(expected: Json, found: Json) -> bool:
    """Equal, also in the sign of zero. 1 and 1.0 are the same: JavaScript cannot tell them apart."""
    if isinstance(expected, bool) or not isinstance(expected, int | float):
        return type(expected) is type(found) and expected == found
    if isinstance(found, bool) or not isinstance(found, int | float):
        return False
    return expected == found and math.copysign(1, expected) == math.copysign(1, found)


def _short(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:400]}… ({len(text)} characters)"
