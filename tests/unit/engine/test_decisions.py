"""Pure decisions of the engine as tables: when to try again, what fits, what a parent is told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from stepwell_server.engine import expressions
from stepwell_server.engine.failures import failure_json, of_child, tried
from stepwell_server.engine.ingest import check_text
from stepwell_server.engine.matching import TriggerIndex, event_data, match_key, match_keys, value_text
from stepwell_server.engine.query import check_run_id
from stepwell_server.engine.residents import Tree, base_key
from stepwell_server.engine.retry import next_delay_ms
from stepwell_server.model.errors import InvalidError, NotFoundError
from stepwell_server.model.event import EventRow
from stepwell_server.model.function import FunctionSpec, RetryPolicy, Trigger
from stepwell_server.model.limits import DAY_MS, LIMITS
from stepwell_server.model.run import RunRow, RunStatus

PLAIN = RetryPolicy(4, 1_000, 2.0, 600_000, False)
JITTER = RetryPolicy(4, 1_000, 2.0, 600_000, True)
LONG = RetryPolicy(100, 1_000, 2.0, 600_000, False)


@pytest.mark.parametrize(
    ("policy", "attempt", "after", "never", "chance", "delay"),
    [
        (PLAIN, 1, None, False, 0.5, 1_000),
        (PLAIN, 2, None, False, 0.5, 2_000),
        (PLAIN, 3, None, False, 0.5, 4_000),
        (PLAIN, 4, None, False, 0.5, None),
        (PLAIN, 2**32 - 1, None, False, 0.5, None),
        (PLAIN, 1, None, True, 0.5, None),
        (PLAIN, 1, 70, False, 0.5, 70),
        (PLAIN, 1, 0, False, 0.5, 0),
        (PLAIN, 4, 70, False, 0.5, None),
        (PLAIN, 1, 2**64 - 1, False, 0.5, 366 * DAY_MS),
        (JITTER, 2, None, False, 0.0, 0),
        (JITTER, 2, None, False, 0.25, 500),
        (LONG, 99, None, False, 0.5, 600_000),
    ],
)
def test_a_failed_body_is_tried_again_when_its_policy_says(
    policy: RetryPolicy, attempt: int, after: int | None, never: bool, chance: float, delay: int | None
) -> None:
    assert next_delay_ms(policy, attempt, after, never, chance) == delay


EVENT: dict[str, Any] = {"id": "1", "name": "n", "data": {"n": 5, "s": "x", "l": [1]}, "time_ms": 7, "metadata": {}}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("event.data.n", "5"),
        ("double(event.data.n)", "5"),
        ("event.data.s + '/' + event.name", '"x/n"'),
        ("event.data.l", "[1]"),
        ("{'b': 1, 'a': event.data.s}", '{"a":"x","b":1}'),
        ("event.data.missing", "null"),
        ("event.data.n / 0", "null"),
        ("'x'", '"x"'),
        ("''", '""'),
    ],
)
def test_the_value_of_a_key_is_json_and_null_where_it_cannot_be_evaluated(key: str, text: str) -> None:
    assert value_text(expressions.value_of(key, EVENT)) == text


def test_a_long_value_counts_by_its_hash() -> None:
    long, longer = (value_text(expressions.value_of("event.data.s", {"data": {"s": "x" * n}})) for n in (500, 501))
    assert len(long) == len(longer) < 64
    assert long != longer


def test_a_key_beyond_the_budget_of_iterations_is_not_judged() -> None:
    data = {"data": {"l": list(range(2_000))}}
    with pytest.raises(expressions.UnjudgedError, match="Iteration budget"):
        expressions.value_of("event.data.l.map(x, event.data.l.map(y, x + y))", data)


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ("event.data.n == 5", True),
        ("event.data.n > 5", False),
        ("event.data.missing == 1", False),
        ("has(event.data.missing) && event.data.missing == 1", False),
        ("event.data.s.startsWith('x') && event.name == 'n'", True),
        ("event.data.l[7] == 1", False),
        ("event.data.n / 0 == 1", False),
        ("event.data.s", False),
        ("event.time_ms == 7", True),
    ],
)
def test_a_condition_that_cannot_be_evaluated_does_not_fit(condition: str, fits: bool) -> None:
    expressions.check_trigger(condition, "f")
    assert expressions.trigger_fits(condition, EVENT) is fits


COSTLY = "event.data.l.all(x, x >= 0)"


def test_a_condition_that_takes_too_many_iterations_is_no_condition_that_does_not_fit() -> None:
    assert expressions.trigger_fits(COSTLY, EVENT | {"data": {"l": list(range(9_000))}})
    with pytest.raises(expressions.UnjudgedError, match="budget"):
        expressions.trigger_fits(COSTLY, EVENT | {"data": {"l": list(range(11_000))}})


def test_a_trigger_that_could_not_be_judged_is_noted_with_its_event_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unjudged = expressions.Unjudged()
    functions = [FunctionSpec("shop/f", "shop", "f", (Trigger("n", COSTLY), Trigger("*", COSTLY)))]
    index = TriggerIndex([*functions, FunctionSpec("shop/g", "shop", "g", (Trigger("n"),))], unjudged)
    for id_ in ("evt_1", "evt_2"):
        event = EventRow("dev", id_, "n", orjson.dumps({"l": list(range(11_000))}), "", "", 1, 1, b"")
        assert [found.id for found in index.fitting(event, event_data(event))] == ["shop/g"], "the others are started"
    said = f"condition {COSTLY!r} could not be judged for event evt_2: Iteration budget exceeded"
    assert unjudged.of("shop/f") == said
    assert unjudged.of("shop/g") == ""
    assert [record.message.split(":")[0] for record in caplog.records] == ["shop/f"]


def test_notes_of_what_could_not_be_judged_are_bounded() -> None:
    unjudged = expressions.Unjudged()
    for number in range(1_500):
        unjudged.note(f"run_{number}/wait", expressions.Note("c", "evt_1", "why"))
    assert sum(bool(unjudged.of(f"run_{number}/wait")) for number in range(1_500)) == 1_000
    assert unjudged.of("run_1499/wait")


@pytest.mark.parametrize("condition", ["", "event.", "1 + 1", "'x'", "async.data.x == 1", "a\0", "true || " * 999])
def test_a_text_that_is_no_condition_is_refused_by_field(condition: str) -> None:
    with pytest.raises(InvalidError) as raised:
        expressions.check_trigger(condition, "function a/f: if")
    assert raised.value.reason == "BAD_EXPRESSION"
    assert raised.value.fields[0][0] == "function a/f: if"


@pytest.mark.parametrize(
    "condition",
    ["event.name.matches('(')", "matches(event.name, '[a')", "event.data.l.exists(x, x.matches(r'\\d(' + \"b\"))"],
)
def test_a_constant_that_is_no_regular_expression_is_refused(condition: str) -> None:
    for check in (expressions.check_trigger, expressions.check_wait):
        with pytest.raises(InvalidError, match="not a regular expression") as raised:
            check(condition, "function a/f: if")
        assert raised.value.reason == "BAD_EXPRESSION"
    assert not expressions.trigger_fits(condition, EVENT), "one from before fits nothing, as ever"


@pytest.mark.parametrize(
    "condition",
    [
        "event.name == \"x.matches('(')\"",
        "event.name.matches('^[(]' + event.data.s)",
        "event.name.matches(event.data.s)",
    ],
)
def test_other_patterns_are_left_to_the_evaluation(condition: str) -> None:
    expressions.check_trigger(condition, "f")


@pytest.mark.parametrize("path", ["data.l.0", "data.s.0", "data.missing", "data.l"])
def test_a_path_leads_through_objects_and_not_through_lists(path: str) -> None:
    event = {"data": {"l": ["a"], "s": "a"}}
    assert match_keys(event, [path]) == ((match_key(path, ["a"]),) if path == "data.l" else ())


def test_a_wait_compares_both_events() -> None:
    assert expressions.wait_fits("async.data.n == event.data.n", EVENT, EVENT)
    assert not expressions.wait_fits("async.data.n != event.data.n", EVENT, EVENT)


@pytest.mark.parametrize(
    ("own", "reason", "told"),
    [
        (None, "RUN_FAILED", {"reason": "RUN_FAILED"}),
        ({"type": "E", "message": "m"}, "RUN_FAILED", {"type": "E", "message": "m", "reason": "RUN_FAILED"}),
        ({"type": "C", "reason": "CANCELLED"}, "CANCELLED", {"type": "C", "reason": "CANCELLED"}),
        (
            {"type": "StepTimeoutError", "reason": "TIMEOUT", "stack": "s"},
            "RUN_FAILED",
            {
                "type": "StepTimeoutError",
                "reason": "RUN_FAILED",
                "stack": "s",
                "cause": {"type": "StepTimeoutError", "reason": "TIMEOUT"},
            },
        ),
    ],
)
def test_a_parent_learns_how_its_child_ended_and_keeps_the_childs_own_words(
    own: dict[str, Any] | None, reason: str, told: dict[str, Any]
) -> None:
    assert orjson.loads(of_child(None if own is None else orjson.dumps(own), reason)) == told


def test_a_failure_stays_within_its_limit() -> None:
    huge = {"type": "E", "message": "m" * 200_000, "stack": "s" * 200_000, "details": "d" * 200_000}
    assert len(failure_json(huge)) <= LIMITS.failure_bytes
    assert orjson.loads(failure_json(huge))["type"] == "E"


@pytest.mark.parametrize(
    ("failure", "found"),
    [
        (None, set[str]()),
        (b"", set[str]()),
        (b"{", set[str]()),
        (b"[]", set[str]()),
        (b'{"details": {"deployments": ["a", "b"]}}', {"a", "b"}),
    ],
)
def test_deployments_that_did_not_fit_are_remembered(failure: bytes | None, found: set[str]) -> None:
    assert tried(failure) == found


@pytest.mark.parametrize(
    ("tree", "came", "wakes"),
    [
        (Tree(False, ("a", "b"), ()), {"b"}, True),
        (Tree(True, ("a", "b"), ()), {"b"}, False),
        (Tree(True, ("a", "b"), ()), {"a", "b"}, True),
        (Tree(False, ("a",), (Tree(True, ("b", "c"), ()),)), {"b"}, False),
        (Tree(False, ("a",), (Tree(True, ("b", "c"), ()),)), {"b", "c"}, True),
        (Tree(False, ("a",), ()), set[str](), False),
        (Tree(False, (), ()), set[str](), True),
    ],
)
def test_a_parked_run_wakes_when_its_tree_can_progress(tree: Tree, came: set[str], wakes: bool) -> None:
    assert tree.satisfied(came) is wakes


def test_an_inbox_key_belongs_to_its_step() -> None:
    assert [base_key(key) for key in ("charge", "charge:2", "charge#2", "$run#3")] == [
        "charge",
        "charge:2",
        "charge",
        "$run",
    ]


@pytest.mark.parametrize(
    "run_id", ["", "run_", "run_x", "evt_" + "0" * 32, "run_" + "0" * 31, "run_" + "0" * 31 + "\0"]
)
def test_an_id_that_no_run_can_have_is_not_found(run_id: str) -> None:
    with pytest.raises(NotFoundError):
        check_run_id(run_id)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ok", ""),
        ("ü😀 \u2028", ""),
        ("x" * 8, ""),
        ("", "MISSING_FIELD"),
        ("x" * 9, "TOO_LARGE"),
        ("😀😀😀", "TOO_LARGE"),
        ("a\0", "BAD_TEXT"),
        ("a\n", "BAD_TEXT"),
        ("\ud800", "BAD_TEXT"),
    ],
)
def test_text_is_short_and_without_control_characters(text: str, reason: str) -> None:
    if not reason:
        check_text(text, "field", 12 if "😀" in text else 8)
        return
    with pytest.raises(InvalidError) as raised:
        check_text(text, "field", 8)
    assert raised.value.reason == reason
    assert raised.value.fields[0][0] == "field"


def test_a_run_that_is_held_or_queued_differs_in_just_that() -> None:
    row = RunRow._make(range(len(RunRow._fields)))
    held = row.held("ses_1", 7, "d2", 99)
    changed = {"status": RunStatus.RUNNING, "session_id": "ses_1", "turn": 7, "deployment": "d2", "started_ms": 99}
    assert held == row._replace(**changed)
    assert row.in_place(5, 6) == row._replace(priority=5, queued_ms=6)
