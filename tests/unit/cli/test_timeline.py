"""A run's timeline: what is drawn for each kind of entry, and where."""

from __future__ import annotations

from typing import Any

from stepwell.v1 import common_pb2, run_pb2
from stepwell_server.cli.timeline import Bar, Piece, Row, cells, failure_line, length, render, timeline, waiting_lines

T = 1_700_000_000_000


def a_run(**fields: Any) -> run_pb2.Run:
    return run_pb2.Run(**{"id": "run_1", "function_id": "shop/f", "created_ms": T, "started_ms": T + 10, **fields})


def an_entry(key: str, kind: str, start: int, end: int, number: int, **fields: Any) -> run_pb2.JournalEntry:
    """start and end are milliseconds after T; end 0: open."""
    ended = T + end if end else 0
    fields.setdefault("attempt", 1)
    return run_pb2.JournalEntry(
        key=key,
        kind=kind,
        started_ms=T + start,
        ended_ms=ended,
        number=number,
        **fields,
    )


def row_of(rows: tuple[Row, ...], label: str) -> Row:
    return next(row for row in rows if row.label == label)


def test_the_queue_comes_first_then_a_row_for_each_step() -> None:
    run = a_run(ended_ms=T + 100)
    drawn = timeline(run, [an_entry("a", "run", 10, 40, 1), an_entry("b", "run", 40, 100, 2)], [], T + 500)
    assert [row.label for row in drawn.rows] == ["queued", "a", "b"]
    assert (drawn.start_ms, drawn.end_ms) == (T, T + 100)
    assert drawn.rows[0].pieces == (Piece(Bar.QUEUED, T, T + 10),)
    assert drawn.rows[2].pieces == (Piece(Bar.EXECUTED, T + 40, T + 100),)


def test_every_kind_of_entry_has_its_own_bar() -> None:
    kinds = {"run": Bar.EXECUTED, "sleep": Bar.SLEPT, "event": Bar.WAITED, "invoke": Bar.INVOKED, "send": Bar.SENT}
    journal = [an_entry(kind, kind, 10, 20, n) for n, kind in enumerate(kinds, 1)]
    drawn = timeline(a_run(ended_ms=T + 20), journal, [], T + 20)
    assert {row.label: row.pieces[0].bar for row in drawn.rows[1:]} == kinds


def test_what_unwinds_a_run_is_a_mark_and_says_why() -> None:
    late = common_pb2.Failure(type="RunTimedOutError", message="the run had not ended 1h after its start (timeout)")
    asked = common_pb2.Failure(type="RunCancelledError", message="the run was cancelled: ordered twice")
    journal = [
        an_entry("$cancel", "TIMEOUT", 10, 50, 1, failure=late),
        an_entry("clean", "run", 50, 60, 2),
        an_entry("$cancel", "CANCEL", 70, 70, 3, failure=asked),
    ]
    rows = timeline(a_run(ended_ms=T + 70), journal, [], T + 70).rows
    timed_out = row_of(rows, "timed out")
    assert timed_out.pieces == (Piece(Bar.STOPPED, T + 50, T + 50),)
    assert timed_out.failed
    assert timed_out.note == "RunTimedOutError: the run had not ended 1h after its start (timeout)"
    assert "ordered twice" in row_of(rows, "cancel requested").note


def test_retries_are_pieces_of_their_steps_bar() -> None:
    failure = common_pb2.Failure(type="Down", message="no answer")
    journal = [
        an_entry("charge#2", "retry", 30, 80, 1, attempt=2, failure=failure),
        an_entry("charge#3", "retry", 90, 150, 2, attempt=3, failure=failure),
        an_entry("charge", "run", 150, 170, 3, attempt=3),
    ]
    (_, charge) = timeline(a_run(ended_ms=T + 170), journal, [], T + 500).rows
    assert [(p.bar, p.start_ms - T, p.end_ms - T) for p in charge.pieces] == [
        (Bar.FAILED, 10, 30),
        (Bar.BACKOFF, 30, 80),
        (Bar.FAILED, 80, 90),
        (Bar.BACKOFF, 90, 150),
        (Bar.EXECUTED, 150, 170),
    ]
    assert "3 attempts" in charge.note


def test_an_open_back_off_says_when_it_ends_and_why() -> None:
    failure = common_pb2.Failure(type="Down", message="no answer")
    journal = [an_entry("charge#2", "retry", 30, 0, 0, attempt=2, failure=failure, until_ms=T + 60_030)]
    (_, charge) = timeline(a_run(), journal, [], T + 30).rows
    assert charge.label == "charge"
    assert "next attempt until" in charge.note
    assert "in 60.0 s" in charge.note or "in 1 m" in charge.note
    assert "Down: no answer" in charge.note


def test_a_failed_step_is_red_and_names_its_failure() -> None:
    journal = [an_entry("a", "run", 10, 20, 1, failure=common_pb2.Failure(type="ValueError", message="no sku\nmore"))]
    (_, row) = timeline(a_run(ended_ms=T + 20), journal, [], T + 20).rows
    assert row.failed
    assert row.pieces[-1].bar is Bar.FAILED
    assert row.note.endswith("ValueError: no sku")


def test_an_open_wait_reaches_to_now_and_says_until_when() -> None:
    journal = [an_entry("w", "event", 20, 0, 0, target="booking/created", until_ms=T + 4 * 86_400_000)]
    drawn = timeline(a_run(), journal, [], T + 1_000)
    assert drawn.rows[1].pieces == (Piece(Bar.WAITED, T + 20, T + 1_000),)
    assert "← booking/created" in drawn.rows[1].note
    assert "in 3 d 23 h" in drawn.rows[1].note


def test_a_wait_without_event_has_timed_out() -> None:
    drawn = timeline(a_run(ended_ms=T + 90), [an_entry("w", "event", 20, 90, 1)], [], T + 90)
    assert "timed out" in drawn.rows[1].note


def test_what_executes_now_is_drawn_from_the_last_outcome_on() -> None:
    waiting = [run_pb2.WaitingFor(kind=run_pb2.WaitingFor.KIND_EXECUTING)]
    drawn = timeline(a_run(), [an_entry("a", "run", 10, 40, 1)], waiting, T + 240)
    assert row_of(drawn.rows, "(code)").pieces == (Piece(Bar.EXECUTED, T + 40, T + 240),)


def test_a_run_that_never_started_is_all_queue() -> None:
    drawn = timeline(a_run(started_ms=0), [], [], T + 5_000)
    assert drawn.rows == (Row("queued", (Piece(Bar.QUEUED, T, T + 5_000),), "5.0 s"),)


def test_long_runs_show_both_ends() -> None:
    journal = [an_entry(f"s:{n}", "run", n, n + 1, n) for n in range(10, 2_000)]
    drawn = timeline(a_run(ended_ms=T + 2_000), journal, [], T + 2_000)
    assert len(drawn.rows) == 60
    assert drawn.hidden == 1_991 - 60
    assert drawn.rows[-1].label == "s:1999"
    assert f"{drawn.hidden} more" in render(drawn, 100).plain


def test_a_short_piece_still_has_a_cell() -> None:
    pieces = [Piece(Bar.EXECUTED, 0, 1), Piece(Bar.WAITED, 1, 1_000_000), Piece(Bar.EXECUTED, 1_000_000, 1_000_001)]
    line = cells(pieces, 0, 1_000_001, 20)
    assert line[0] is Bar.EXECUTED
    assert line[1:-1] == [Bar.WAITED] * 18
    assert line[-1] is Bar.EXECUTED


def test_no_line_is_wider_than_the_terminal() -> None:
    journal = [
        an_entry("a name that is much too long for any terminal " * 3, "run", 10, 40, 1),
        an_entry("b", "run", 40, 90, 2, failure=common_pb2.Failure(message="no " * 400)),
    ]
    for width in (40, 80, 200):
        drawn = render(timeline(a_run(ended_ms=T + 90), journal, [], T + 90), width)
        assert max(len(line) for line in drawn.plain.splitlines()[:-1]) <= max(width, 54)


def test_control_characters_of_others_do_not_reach_the_terminal() -> None:
    journal = [an_entry("a\x1b[2J", "run", 10, 40, 1, failure=common_pb2.Failure(message="x\x1b]0;title\x07"))]
    assert "\x1b" not in render(timeline(a_run(ended_ms=T + 40), journal, [], T + 40), 100).plain


def test_what_a_run_waits_for_is_said_in_a_line_each() -> None:
    day = 86_400_000
    waiting = [
        run_pb2.WaitingFor(
            kind=run_pb2.WaitingFor.KIND_EVENT,
            key="w",
            event="booking/created",
            match="data.user_id",
            until_ms=T + 4 * day,
        ),
        run_pb2.WaitingFor(kind=run_pb2.WaitingFor.KIND_NO_WORKER, message="no connected worker serves shop/f"),
    ]
    event, worker = waiting_lines(waiting, T)
    assert "booking/created where data.user_id" in event
    assert "in 4 d" in event
    assert worker == "no connected worker serves shop/f"


def test_lengths_read_as_a_person_says_them() -> None:
    table = {0: "0 ms", 999: "999 ms", 1_500: "1.5 s", 60_000: "1 m", 130_000: "2 m 10 s", 3_600_000: "1 h"}
    table |= {4 * 86_400_000: "4 d", 4 * 86_400_000 + 3_700_000: "4 d 1 h"}
    assert {ms: length(ms) for ms in table} == table


def test_a_failure_is_said_once_along_its_causes() -> None:
    first = common_pb2.Failure(type="ValueError", message="broken")
    step = common_pb2.Failure(type="StepError", message="charge: ValueError: broken", cause=first)
    child = common_pb2.Failure(type="RunFailedError", message="app/child: ValueError: broken", cause=step)
    assert failure_line(first) == "ValueError: broken"
    assert failure_line(step) == "StepError: charge ← ValueError: broken"
    assert failure_line(child) == "RunFailedError: app/child ← StepError: charge ← ValueError: broken"
    again = common_pb2.Failure(type="StepError", message=step.message, reason="RUN_FAILED", cause=step)
    assert failure_line(again) == failure_line(step)
    deep = common_pb2.Failure(type="RunFailedError", message="app/parent: ValueError: broken", cause=child)
    assert failure_line(deep) == "RunFailedError: app/parent ← RunFailedError: app/child ← … ← ValueError: broken"
