"""What must hold in the end: no event lost, no acknowledged step run twice, nothing stuck, every counter right."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from stepwell.client import Client
from stepwell.values import JournalEntry, Run, RunStatus

from tests.support.programs import Expected, Program, Recorded, expected, walk
from tests.verification.app import APP
from tests.verification.ledger import Books, count
from tests.verification.load import Asked

_PAGE = 1_000


class Verdict:
    """Reads everything back; `problems` is empty where all promises were kept."""

    def __init__(self, client: Client, programs: list[Program], asked: Asked, books: Books, frozen: set[int]) -> None:
        self.problems: list[str] = []
        self._client = client
        self._by_name = {program["name"]: program for program in programs}
        self._asked = asked
        self._books = books
        self._frozen = frozen
        self.runs = {run.id: run for run in client.list_runs(page_size=_PAGE)}
        self._events = {one.event.id: one.event for one in client.list_events(page_size=_PAGE)}
        self._uids: dict[str, str] = {}
        self._journals: dict[str, list[JournalEntry]] = {}
        self._outputs: dict[str, Any] = {}
        self._children: dict[tuple[str, str], str] = {}

    def judge(self) -> list[str]:
        """All of it."""
        self._read()
        self._all_events()
        self._all_runs()
        self._no_repeats()
        return self.problems

    def _problem(self, text: str) -> None:
        self.problems.append(text)

    def _read(self) -> None:
        """Journals, outputs, and which run has which uid: that of its event, its invoke, or its parent's and key."""
        for run in sorted(self.runs.values(), key=lambda run: run.created):
            self._journals[run.id] = self._client.journal(run.id)
            self._outputs[run.id] = self._client.get_run(run.id).output
            if run.event_id:
                self._uids[run.id] = self._events[run.event_id].data["uid"]
            elif run.id in self._asked.invoked:
                self._uids[run.id] = self._asked.invoked[run.id][1]
        left = [run for run in self.runs.values() if run.id not in self._uids]
        while left:
            known = [run for run in left if run.parent_run_id in self._uids]
            if not known:
                self._problem(f"nobody asked for {len(left)} runs: {left[:3]}")
                return
            for run in known:
                self._uids[run.id] = f"{self._uids[run.parent_run_id]}/{run.parent_key}"
            left = [run for run in left if run.id not in self._uids]
        for run in self.runs.values():
            self._children[_program(run), self._uids[run.id]] = run.id

    def _all_events(self) -> None:
        """An acknowledged event is there once, and started one run of each function it triggers."""
        lost = [own for event_id, own in self._asked.events.items() if event_id not in self._events]
        if lost:
            self._problem(f"{len(lost)} acknowledged events are lost: {lost[:3]}")
        twice = [own for own, times in Counter(self._asked.events.values()).items() if times > 1]
        if twice:
            self._problem(f"events were accepted twice: {twice[:3]}")
        started: dict[str, list[str]] = defaultdict(list)
        for run in self.runs.values():
            if run.event_id:
                started[run.event_id].append(_program(run))
        for event_id, event in self._events.items():
            wanted = sorted(program["name"] for program in self._by_name.values() if program["on"] == event.name)
            if sorted(started[event_id]) != wanted:
                self._problem(f"event {event_id} {event.name} has started {started[event_id]}, not {wanted}")
        gone = [asked for run_id, asked in self._asked.invoked.items() if run_id not in self.runs]
        if gone:
            self._problem(f"{len(gone)} acknowledged runs are lost: {gone[:3]}")

    # -- runs ----------------------------------------------------------------------------------------------------

    def _all_runs(self) -> None:
        """Each run ended as the interpreter says, and did to the world what it had to; so every counter is right."""
        counters: dict[str, int] = {}
        for run in self.runs.values():
            effects = self._books.effects[run.id]
            journal = self._journals[run.id]
            numbers = [entry.number for entry in journal if entry.number]
            if run.status is RunStatus.CANCELLED:
                if run.id not in self._asked.cancelled and not run.parent_run_id:
                    self._problem(f"{self._name(run)} was cancelled, and nobody asked for it")
                self._kept(run, journal)
            else:
                want = self._expect(run)
                if numbers != list(range(1, len(numbers) + 1)):
                    self._problem(f"{self._name(run)}: the numbers of its journal are {numbers}")
                output = self._outputs[run.id] if run.status is RunStatus.COMPLETED else want.output
                if (run.status.name, output) != (want.status, want.output):
                    ended = f"{run.status.name} {output or run.failure}"
                    self._problem(f"{self._name(run)} ended {ended}, not {want.status} {want.output}")
                if want.status == "COMPLETED":
                    if effects != want.effects:
                        self._problem(f"{self._name(run)} did {_difference(effects, want.effects)}")
                    effects = want.effects
                    self._sends(run, want)
                else:
                    self._kept(run, journal)
            for effect in effects.values():
                count(counters, effect)
        wrong = {
            name: (self._books.counters.get(name), number)
            for name, number in counters.items()
            if self._books.counters.get(name) != number
        }
        if wrong or set(self._books.counters) - set(counters):
            self._problem(f"counters (found, expected): {wrong}, and {set(self._books.counters) - set(counters)}")

    def _kept(self, run: Run, journal: list[JournalEntry]) -> None:
        """What the journal holds was done, and nothing but what the program has."""
        nodes = {node["name"]: node for node in walk(self._by_name[_program(run)]["body"])}
        effects = self._books.effects[run.id]
        for entry in journal:
            node = nodes.get(entry.key.partition(":")[0], {})
            if entry.kind == "RUN" and entry.failure is None and node.get("effect") and entry.key not in effects:
                self._problem(f"{self._name(run)}: {entry.key} has a result, and was never done")
        strange = [key for key in effects if key.partition(":")[0] not in nodes]
        if strange:
            self._problem(f"{self._name(run)} did {strange}")

    def _expect(self, run: Run) -> Expected:
        seen = {entry.key: _recorded(entry) for entry in self._journals[run.id] if entry.number}
        return expected(self._by_name[_program(run)], self._uids[run.id], seen.get, self._output)

    def _output(self, program: str, uid: str) -> Any:
        run_id = self._children.get((program, uid))
        return self._outputs[run_id] if run_id is not None else "no such run"

    def _sends(self, run: Run, want: Expected) -> None:
        for key, uid in want.sends.items():
            times = sum(
                1 for event in self._events.values() if event.name == "sim/chained" and event.data["uid"] == uid
            )
            if times != 1:
                self._problem(f"{self._name(run)}: {key} has sent its event {times} times")

    def _no_repeats(self) -> None:
        """A step whose result was acknowledged never ran again, but in a process that was frozen and did not know."""
        for line in self._books.began:
            acked_ns = self._books.acked.get((line.run_id, line.key))
            if acked_ns is not None and line.at_ns > acked_ns and line.pid not in self._frozen:
                late_ms = (line.at_ns - acked_ns) // 1_000_000
                self._problem(f"{line.key} of {line.run_id} ran again {late_ms} ms after its result was acknowledged")

    def _name(self, run: Run) -> str:
        return f"run {run.id} of {run.function_id} ({self._uids.get(run.id)})"


def _program(run: Run) -> str:
    return run.function_id.removeprefix(f"{APP}/")


def _recorded(entry: JournalEntry) -> Recorded:
    return Recorded(entry.number, entry.output, entry.failure.type if entry.failure is not None else "")


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    missing = {key: effect for key, effect in wanted.items() if found.get(key) != effect}
    extra = {key: effect for key, effect in found.items() if wanted.get(key) != effect}
    return f"not {missing}, but {extra}"
