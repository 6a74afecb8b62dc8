"""Plays scenarios: starts their runs and does what their acts say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from stepwell.client import Client
from stepwell.values import Run, RunStatus

from tests.conformance.live.relay import Relay
from tests.conformance.live.scenario import Scenario, filled
from tests.conformance.live.seen import differences, messages_of, run_of
from tests.support.servers import ended, reached, until

Json = Any

APP = "conformance"


class Play:
    """One scenario under way. With a relay, what is said of steps that a gate lets end is lost."""

    def __init__(
        self, scenario: Scenario, client: Client, folder: Path, relay: Relay | None = None, *, hands_over: bool = False
    ) -> None:
        self._scenario = scenario
        self._client = client
        self._folder = folder
        self._relay = relay
        self._left = [act for act in scenario.acts if hands_over or "handover" not in act]
        self._runs: list[str] = []
        self._again: Counter[str] = Counter()

    def begin(self) -> None:
        """Starts its runs."""
        now_ms = round(self._client.server_info().now.timestamp() * 1000)
        if start := self._scenario.start:
            data = filled(start.get("input"), now_ms)
            self._runs = [self._client.start(f"{APP}/{start['function']}", data).run_id]
            return
        event = filled(self._scenario.event, now_ms)
        self._event_id = self._client.send(**event)
        if self._scenario.then:
            self._runs = list(until(lambda: self._client.get_event(self._event_id).run_ids, "a run starts"))

    def go_on(self) -> bool:
        """Does what is next, up to the next place where another worker takes over; whether there is one."""
        while self._left:
            act = self._left.pop(0)
            if "handover" in act:
                self._again.update(act["handover"])
                return True
            self._do(act)
        return False

    def _do(self, act: Json) -> None:
        match act:
            case {"parked": keys}:
                self._parked(self._run, keys)
            case {"child_parked": keys}:
                self._parked(self._child(), keys)
            case {"held": key}:
                until(lambda: self._executed(self._run)[key, 1] > self._again[key], f"{key} executes")
            case {"open": key, "lost": lost, "durable": durable}:
                self._open(key, lost)
                self._durable(durable)
            case {"advance": duration}:
                assert self._client.advance_clock(duration).complete
            case {"send": event}:
                self._client.send(**event)
            case {"cancel": reason}:
                self._client.cancel_run(self._run, reason)
            case {"cancel_child": reason}:
                self._client.cancel_run(self._child(), reason)
            case _:
                raise AssertionError(f"there is no act {act}")

    @property
    def _run(self) -> str:
        return self._runs[0]

    def _child(self) -> str:
        return until(lambda: list(self._client.list_runs(parent_run_id=self._run)), "a child starts")[0].id

    def _parked(self, run_id: str, keys: list[str]) -> None:
        def waits(run: Run) -> bool:
            return run.status is RunStatus.PARKED and sorted(one.key for one in run.waiting_for) == sorted(keys)

        reached(self._client, run_id, waits)

    def _open(self, key: str, lost: list[str]) -> None:
        """Lets a body end. A relay loses what the server says of these keys, and breaks the connection."""
        if self._relay:
            self._relay.withhold()
        (self._folder / f"{self._run} {key}").touch()
        if self._relay:
            self._durable(lost)
            self._relay.cut()

    def _durable(self, keys: list[str]) -> None:
        """Waits until these keys are in the journal; `end` is the end of the run."""

        def look() -> bool:
            run, journal = messages_of(self._client, self._run)
            return {entry.key for entry in journal}.union({"end"} if run.ended_ms else ()).issuperset(keys)

        until(look, f"{keys} are durable")

    def check(self) -> None:
        """Waits for the end, and compares what came with what was expected."""
        expected: Json = filled(self._scenario.then, 0)
        if not self._runs:
            assert expected == []
            assert not self._client.get_event(self._event_id).run_ids
            return
        for run_id in self._runs:
            ended(self._client, run_id)
            self._settled(run_id)
        found = sorted((run_of(self._client, run_id) for run_id in self._runs), key=lambda run: run["function"])
        wanted = expected if isinstance(expected, list) else [expected]
        told = [line for pair in zip(wanted, found, strict=True) for line in differences(*pair)]
        assert not told, "\n".join((self._scenario.name, *told))
        for run_id in self._runs:
            self._bodies(run_id)

    def turn(self) -> int:
        """How often its run was assigned to a worker."""
        return self._client.get_run(self._run).turn

    def _settled(self, run_id: str) -> None:
        """Waits for children that outlive their parent, or follow it."""
        for child in self._client.list_runs(parent_run_id=run_id):
            until(lambda id=child.id: self._at_rest(id), f"{child.id} comes to rest")
            self._settled(child.id)

    def _at_rest(self, run_id: str) -> bool:
        """Ended, or parked; but one that is to be cancelled with its parent may still be parked for a moment."""
        run = self._client.get_run(run_id)
        return run.status.ended or (run.status is RunStatus.PARKED and not run.cancel_requested)

    def _bodies(self, run_id: str) -> None:
        """Every attempt of a step that has ended was executed once, those apart that were cut short by a kill."""
        executed = self._executed(run_id)
        for entry in messages_of(self._client, run_id)[1]:
            if entry.kind == "RUN" and entry.number:
                times = [executed[entry.key, attempt] for attempt in range(1, entry.attempt + 1)]
                wanted = [1 + self._again[entry.key], *[1] * (entry.attempt - 1)]
                assert times == wanted, f"{self._scenario.name}: the bodies of {entry.key} were executed {times} times"

    def _executed(self, run_id: str) -> Counter[tuple[str, int]]:
        """How often each attempt of each step of a run began."""
        effects = self._folder / "effects"
        lines = [line.split("\t") for line in effects.read_text().splitlines()] if effects.exists() else []
        return Counter((key, int(attempt)) for run, key, attempt, _ in lines if run == run_id)
