"""Events as lines, and what is taken out of them on the way."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from stepwell.v1 import event_pb2
from stepwell_server.cli import lines, redaction
from stepwell_server.cli.failures import UsageFailure
from stepwell_server.cli.lines import Bad, Line, LineError

EVENT: dict[str, Any] = {
    "name": "shop/paid",
    "data": {
        "email": "ada@example.com",
        "amount": 12.5,
        "paid": True,
        "note": None,
        "card": {"number": "4111", "cvc": 123},
        "items": [{"sku": "a", "card": "4111"}, {"sku": "b"}, 7],
        "tags": ["x", "y"],
        "grid": [[1, 2], [3]],
    },
    "metadata": {"user": "ada"},
}
RULES: list[tuple[str, str, Any, int]] = [
    ("data.email", "email", "***", 1),
    ("data.amount", "amount", 0.0, 1),
    ("data.paid", "paid", False, 1),
    ("data.note", "note", None, 1),
    ("data.card", "card", {}, 1),
    ("data.card.number", "card", {"number": "***", "cvc": 123}, 1),
    ("data.card.number=drop", "card", {"cvc": 123}, 1),
    ("data.card.cvc", "card", {"number": "4111", "cvc": 0}, 1),
    ("data.items[].card", "items", [{"sku": "a", "card": "***"}, {"sku": "b"}, 7], 1),
    ("data.items[].card=drop", "items", [{"sku": "a"}, {"sku": "b"}, 7], 1),
    ("data.tags[]", "tags", ["***", "***"], 2),
    ("data.tags[]=drop", "tags", [], 2),
    ("data.tags", "tags", [], 1),
    ("data.grid[][]", "grid", [[0, 0], [0]], 3),
    ("data.email.x", "email", "ada@example.com", 0),
    ("data.card[]", "card", EVENT["data"]["card"], 0),
    ("data.nothing.at.all", "email", "ada@example.com", 0),
]


@pytest.mark.parametrize(("rule", "field", "expected", "hits"), RULES)
def test_a_rule_takes_out_what_stands_at_its_path_and_nothing_else(
    rule: str, field: str, expected: Any, hits: int
) -> None:
    event = copy.deepcopy(EVENT)
    (parsed,) = redaction.parse([rule])
    redaction.redact([parsed], event)
    assert (event["data"].pop(field), parsed.hits) == (expected, hits)
    rest = copy.deepcopy(EVENT)
    del rest["data"][field]
    assert event == rest


NO_RULES = [
    *("", "email", "name", "data", "metadata=drop"),
    *("data.", "data..x", "data.items[0]", "data[x", "data.a=mask", "data.a="),
]


@pytest.mark.parametrize("rule", NO_RULES)
def test_a_rule_of_another_shape_is_refused(rule: str) -> None:
    with pytest.raises(UsageFailure):
        redaction.parse([rule])


def line_of(**changes: Any) -> bytes:
    return json.dumps({"name": "a", "data": {"n": 1}, "time": "2026-11-23T03:17:33.042Z", "id": "evt_1", **changes}).encode()  # fmt: skip  # noqa: E501


BAD_LINES: list[tuple[bytes, str]] = [
    (b"{", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b'{"name":"a","data":{"x":NaN}}', "NaN"),
    (b"\xff\xfe", "not JSON"),
    (b"[1]", "not a JSON object"),
    (line_of(name=""), "name is missing"),
    (line_of(name=7), "name is missing"),
    (line_of(nmae="a"), "no field 'nmae'"),
    (line_of(data=[1]), "data is no object"),
    (line_of(metadata={"a": 1}), "metadata"),
    (line_of(id=7), "id is no text"),
    (line_of(time="soon"), "time is neither"),
    (line_of(time=True), "time is neither"),
    (line_of(time=-1), "time is neither"),
    (line_of(time="2026-11-23T03:17:33"), "time has no offset"),
    (b'{"name":"\\ud800"}', "UTF-8 cannot hold"),
    (b'{"name":"a","data":{"x":"\\ud800"}}', "UTF-8 cannot hold"),
]


@pytest.mark.parametrize(("text", "why"), BAD_LINES)
def test_a_line_that_is_no_event_says_why(text: bytes, why: str) -> None:
    with pytest.raises(LineError, match=why):
        lines.to_event(text, keep_ids=False)


def test_an_event_comes_back_from_its_line() -> None:
    stored = event_pb2.Event(id="evt_1", name="a", time_ms=1_795_403_853_042, metadata={"b": "2", "a": "ü"})
    stored.data.data = '{"z":1,"a":"é"}'.encode()
    line = lines.from_event(stored)
    assert line is not None
    assert list(line) == ["name", "data", "metadata", "time", "id"]
    assert list(line["metadata"]) == ["a", "b"]
    text = json.dumps(line).encode()
    event = lines.to_event(text, keep_ids=True)
    assert (event.name, event.data.data, event.time_ms, event.id) == ("a", stored.data.data, stored.time_ms, "evt_1")
    assert lines.to_event(text, keep_ids=False).id == ""
    stored.sender_id = "order-1"
    assert lines.to_event(json.dumps(lines.from_event(stored)).encode(), keep_ids=True).id == "order-1"
    stored.data.encoding = "proto"
    assert lines.from_event(stored) is None


def test_bad_lines_are_numbered_and_empty_ones_passed_over() -> None:
    given = [line_of(), b"\n", b"{\n", line_of(data={"n": 2}), b"x" * (lines.LINE_BYTES + 1)]
    found = list(lines.read(given, keep_ids=False))
    assert [(type(one), one.number) for one in found] == [(Line, 1), (Bad, 3), (Line, 4), (Bad, 5)]


def test_requests_have_ids_of_their_place_and_content() -> None:
    def ids(texts: list[bytes]) -> list[tuple[str, int]]:
        good = [Line(n, lines.to_event(text, keep_ids=False)) for n, text in enumerate(texts)]
        return [(request_id, len(batch)) for request_id, batch in lines.batches(good)]

    texts = [line_of()] * (2 * lines.BATCH_EVENTS + 1)
    first = ids(texts)
    assert [n for _, n in first] == [lines.BATCH_EVENTS, lines.BATCH_EVENTS, 1]
    assert len({request_id for request_id, _ in first}) == 3, "equal batches of one file are two"
    assert ids(texts) == first
    assert ids([line_of(data={"n": 2}), *texts[1:]])[0] != first[0]
    large = [line_of(data={"x": "x" * 600_000})] * 3
    assert [n for _, n in ids(large)] == [1, 1, 1]
