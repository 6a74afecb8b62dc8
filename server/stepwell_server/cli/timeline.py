"""A run as bars over time: queue, executions, back-offs, sleeps, waits, invokes. Pure: journal in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING

from stepwell_server.cli.output import clean, clock_time, payload

if TYPE_CHECKING:
    from rich.text import Text
    from stepwell.v1.common_pb2 import Failure
    from stepwell.v1.run_pb2 import JournalEntry, Run, WaitingFor

LABEL_CELLS = 28
SHOWN_ROWS = 60


class Bar(Enum):
    """What happened in a piece of time: the letter that draws it, and its colour."""

    QUEUED = ("░", "bright_black")
    EXECUTED = ("█", "green")
    FAILED = ("▓", "red")
    BACKOFF = ("╌", "yellow")
    SLEPT = ("─", "blue")
    WAITED = ("┄", "magenta")
    INVOKED = ("▒", "cyan")
    SENT = ("▪", "green")
    STOPPED = ("✕", "red")


_OF_KIND = {
    "run": Bar.EXECUTED,
    "sleep": Bar.SLEPT,
    "event": Bar.WAITED,
    "invoke": Bar.INVOKED,
    "send": Bar.SENT,
}


# What unwinds a run, and its label.
_STOPS = {"cancel": "cancel requested", "timeout": "timed out"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one bar. Open pieces reach to now."""

    bar: Bar
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the timeline: a step with all its attempts, or the time in the queue."""

    label: str
    pieces: tuple[Piece, ...]
    note: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """All lines, and the time they span."""

    start_ms: int
    end_ms: int
    rows: tuple[Row, ...]
    hidden: int = 0


def timeline(run: Run, journal: Sequence[JournalEntry], waiting: Iterable[WaitingFor], now_ms: int) -> Timeline:
    """The lines of a run. An execution has no record of its beginning; it starts when the code last heard something."""
    end_ms = max(run.ended_ms or now_ms, run.created_ms, *(entry.ended_ms for entry in journal))
    began_ms = run.started_ms or end_ms
    rows = [Row("queued", (Piece(Bar.QUEUED, run.created_ms, began_ms),), length(began_ms - run.created_ms))]
    attempts = _attempts(journal)
    last_ms = began_ms
    finals = {entry.key for entry in journal if entry.kind.lower() != "retry"}
    for entry in journal:
        base = _base(entry)
        if entry.kind.lower() == "retry" and (base in finals or attempts[base][-1] is not entry):
            continue  # Drawn with the step's outcome, or with its latest back-off.
        rows.append(_row(entry, attempts.get(base, []), last_ms, end_ms, live=not run.ended_ms))
        if entry.number and entry.ended_ms:
            last_ms = max(last_ms, entry.ended_ms)
    if not run.ended_ms:
        for item in waiting:
            if _kind_name(item) == "EXECUTING":
                note = length(end_ms - last_ms) + " so far"
                rows.append(Row(item.key or "(code)", (Piece(Bar.EXECUTED, last_ms, end_ms),), note))
    shown = rows if len(rows) <= SHOWN_ROWS else rows[: SHOWN_ROWS // 2] + rows[-SHOWN_ROWS // 2 :]
    return Timeline(run.created_ms, end_ms, tuple(shown), len(rows) - len(shown))


def _base(entry: JournalEntry) -> str:
    """The step of a back-off: "charge#2" → "charge"."""
    return entry.key.rpartition("#")[0] if entry.kind.lower() == "retry" and "#" in entry.key else entry.key


def _attempts(journal: Sequence[JournalEntry]) -> dict[str, list[JournalEntry]]:
    """Back-offs by step, in the order of their attempts."""
    found: dict[str, list[JournalEntry]] = {}
    for entry in sorted((e for e in journal if e.kind.lower() == "retry"), key=lambda e: e.attempt):
        found.setdefault(_base(entry), []).append(entry)
    return found


def _row(entry: JournalEntry, backoffs: Sequence[JournalEntry], last_ms: int, now_ms: int, *, live: bool) -> Row:
    kind, open_ = entry.kind.lower(), not entry.ended_ms
    if kind in _STOPS:
        at = (Piece(Bar.STOPPED, entry.ended_ms, entry.ended_ms),)
        return Row(_STOPS[kind], at, failure_line(entry.failure), failed=kind == "timeout")
    failed = entry.HasField("failure") and not open_ and kind != "retry"
    pieces: list[Piece] = []
    begin_ms = min(last_ms, backoffs[0].started_ms) if backoffs else (entry.started_ms or last_ms)
    for backoff in backoffs:
        due_ms = backoff.ended_ms or min(backoff.until_ms or now_ms, now_ms)
        pieces += [Piece(Bar.FAILED, begin_ms, backoff.started_ms), Piece(Bar.BACKOFF, backoff.started_ms, due_ms)]
        begin_ms = due_ms
    note: list[str] = []
    if kind != "retry":
        if backoffs:
            begin_ms = max(begin_ms, entry.started_ms)
        bar = _OF_KIND.get(kind, Bar.EXECUTED)
        pieces.append(Piece(Bar.FAILED if failed and bar is Bar.EXECUTED else bar, begin_ms, entry.ended_ms or now_ms))
        note.append(length((entry.ended_ms or now_ms) - pieces[0].start_ms) + (" so far" if open_ else ""))
    elif open_:
        note.append(f"next attempt {until(entry.until_ms, now_ms)}" if entry.until_ms else "next attempt is due")
    if backoffs:
        tries = len(backoffs) + (0 if kind == "retry" else 1)
        note.append(f"{tries} attempts" if tries != 1 else "1 attempt")
    if kind in ("event", "invoke") and entry.target != entry.key:
        note.append(("← " if kind == "event" else "→ ") + entry.target + (f" {entry.run_id}" if entry.run_id else ""))
    if kind == "event" and not open_ and not failed and payload(entry.output) is None:
        note.append("timed out")
    if open_ and kind in ("sleep", "event") and entry.until_ms:
        note.append(until(entry.until_ms, now_ms))
    if entry.HasField("failure"):
        note.append(failure_line(entry.failure))
    if entry.ended_ms and not entry.number and kind != "retry":
        note.append("not yet seen by the code" if live else "never seen by the code")
    return Row(_label(entry), tuple(pieces), " · ".join(note), failed)


def _label(entry: JournalEntry) -> str:
    base = _base(entry)
    return "(function)" if base == "$run" else base


def _kind_name(item: WaitingFor) -> str:
    return item.Kind.Name(item.kind).removeprefix("KIND_")


def failure_line(failure: Failure) -> str:
    """ "StepError: charge ← ValueError: no such sku": the failure and those beneath it, each said once."""
    chain = [failure]
    while chain[-1].HasField("cause"):
        chain.append(chain[-1].cause)
    said = [_said(one) for one in chain]
    parts: list[str] = []
    for number, text in enumerate(said):
        # A step's error repeats the text of the one it stands for.
        beneath = next((other for other in reversed(said[number + 1 :]) if text.endswith(f": {other}")), None)
        own = text if beneath is None else text.removesuffix(f": {beneath}")
        if text not in said[number + 1 :]:
            parts.append(own)
    if len(parts) > 3:
        parts[2:-1] = ["…"]
    return short_text(" ← ".join(parts), 160)


def _said(failure: Failure) -> str:
    name = failure.type or failure.reason
    first = failure.message.strip().splitlines()[0] if failure.message.strip() else ""
    return clean(": ".join(part for part in (name, first) if part)) or "failed"


def short_text(text: str, width: int) -> str:
    """Cut to a width."""
    return text if len(text) <= width else text[: width - 1] + "…"


def length(ms: int) -> str:
    """A time span as a person says it: 12 ms, 3.4 s, 2 m 10 s, 4 d 1 h."""
    if ms < 1_000:
        return f"{max(ms, 0)} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    for unit, size, lower, lower_size in (
        ("d", 86_400_000, "h", 3_600_000),
        ("h", 3_600_000, "m", 60_000),
        ("m", 60_000, "s", 1_000),
    ):
        if ms >= size:
            rest = ms % size // lower_size
            return f"{ms // size} {unit}" + (f" {rest} {lower}" if rest else "")
    raise AssertionError("every span of a minute or more has a unit")


def until(at_ms: int, now_ms: int) -> str:
    """ "until 2026-01-02 03:04:05, in 4 d"."""
    return f"until {clock_time(at_ms)}, in {length(at_ms - now_ms)}" if at_ms > now_ms else "due now"


def cells(pieces: Sequence[Piece], start_ms: int, end_ms: int, width: int) -> list[Bar | None]:
    """The pieces on a scale of ``width`` cells. A piece has at least one cell; a later one never hides an earlier."""
    span = max(end_ms - start_ms, 1)
    line: list[Bar | None] = [None] * width
    free = 0
    for piece in pieces:
        if piece.end_ms <= piece.start_ms and len(pieces) > 1 and piece.bar is Bar.BACKOFF:
            continue
        first = max((piece.start_ms - start_ms) * width // span, free)
        last = max(-(-(piece.end_ms - start_ms) * width // span), first + 1)
        first, last = min(first, width - 1), min(last, width)
        line[first:last] = [piece.bar] * (last - first)
        free = last
    return line


def render(drawn: Timeline, width: int) -> Text:
    """The timeline as coloured text of ``width`` cells; notes take what the bars leave."""
    from rich.text import Text

    label_width = min(max((len(row.label) for row in drawn.rows), default=0), LABEL_CELLS)
    bar_width = max(min((width - label_width) * 11 // 20, 60), 10)
    out = Text(no_wrap=True, overflow="ellipsis")
    for index, row in enumerate(drawn.rows):
        if drawn.hidden and index == SHOWN_ROWS // 2:
            out.append(f"{'':<{label_width}} … {drawn.hidden} more\n", "bright_black")
        out.append(f"{short_text(clean(row.label), label_width):<{label_width}} ", "bold red" if row.failed else "bold")
        for bar in cells(row.pieces, drawn.start_ms, drawn.end_ms, bar_width):
            out.append(" " if bar is None else bar.value[0], None if bar is None else bar.value[1])
        room = max(width - label_width - bar_width - 2, 12)
        out.append(" " + short_text(clean(row.note), room) + "\n", "red" if row.failed else "bright_black")
    scale = length(drawn.end_ms - drawn.start_ms)
    out.append(f"{'':<{label_width}} └{'─' * max(bar_width - 2, 0)}┘ {scale}\n", "bright_black")
    used = dict.fromkeys(piece.bar for piece in chain.from_iterable(row.pieces for row in drawn.rows))
    for bar in used:
        out.append(f"{bar.value[0]} ", bar.value[1]).append(f"{bar.name.lower()}  ", "bright_black")
    out.rstrip()
    return out


def waiting_lines(waiting: Iterable[WaitingFor], now_ms: int) -> list[str]:
    """What a run waits for, a line each."""
    lines: list[str] = []
    for item in waiting:
        text = item.message or _kind_name(item).lower().replace("_", " ")
        said = text.lower()
        extra = [f"step {item.key}"] if item.key and item.key.lower() not in said else []
        if item.event and item.event.lower() not in said:
            extra.append(f"event {item.event}" + (f" where {item.match}" if item.match else ""))
        if item.run_id and item.run_id not in text:
            extra.append(item.run_id)
        if item.until_ms:
            extra.append(until(item.until_ms, now_ms))
        lines.append(clean(text + (f" ({', '.join(extra)})" if extra else "")))
    return lines
