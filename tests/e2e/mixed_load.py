"""A mixed load on the app mixed.py, and what must hold of its runs and events whatever happened meanwhile."""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from pathlib import Path

import grpc
from stepwell.api_errors import ApiError
from stepwell.client import Client
from stepwell.event import NewEvent
from stepwell.values import EventOutcome, Run, RunStatus

from tests.support.servers import until

PROGRAMS = ("chain", "plain", "parallel", "sleepy", "waiting", "parent", "retrying", "sending", "racing")
END_S = 40.0


class Load:
    """Sends events until it is stopped, and keeps those that were acknowledged: the server's id by our own."""

    def __init__(self, client: Client, seed: int) -> None:
        self._client = client
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self.acknowledged: dict[str, str] = {}
        self.waiting: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            batch: list[NewEvent] = []
            for _ in range(self._random.randint(1, 6)):
                program, own = self._random.choice(PROGRAMS), f"{number}"
                number += 1
                # Half of them are recognised by their own id when they are sent again, the others by their request's.
                batch.append(NewEvent(f"mixed/{program}", {"id": own}, id=own if number % 2 else ""))
            self._send(batch)
            self._stop.wait(self._random.uniform(0.02, 0.12))
        for own in self.waiting:
            self._send([NewEvent("mixed/signal", {"id": own}, id=f"signal-{own}")])

    def _send(self, batch: list[NewEvent]) -> None:
        request_id = f"{self._random.getrandbits(64):x}"
        while True:
            try:
                statuses = self._client.send_many(batch, request_id=request_id, timeout_s=5)
                break
            except ApiError as error:
                if not error.retriable and error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
        for event, status in zip(batch, statuses, strict=True):
            assert status.outcome is not EventOutcome.REFUSED, status
            if event.name == "mixed/signal":
                continue
            self.acknowledged[event.data["id"]] = status.event_id
            if event.name == "mixed/waiting":
                # Every other wait is answered while its run is on its way, the rest at the end.
                if len(self.waiting) % 2:
                    self._send([NewEvent("mixed/signal", {"id": event.data["id"]}, id=f"signal-{event.data['id']}")])
                self.waiting.append(event.data["id"])


def all_ended(client: Client, load: Load) -> list[Run]:
    """All runs, children too, once they have completed; fails with the reasons of those that are stuck."""

    def nothing_lives() -> bool:
        live = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.PARKED)
        return not list(client.list_runs(statuses=live, page_size=1_000))

    try:
        until(nothing_lives, "all runs end", END_S)
    except AssertionError:
        live = [run for run in client.list_runs(page_size=1_000) if not run.status.ended]
        stuck = "\n".join(f"{client.get_run(run.id)} {client.journal(run.id)}" for run in live[:5])
        raise AssertionError(f"{len(live)} runs are stuck\n{stuck}") from None
    runs = list(client.list_runs(page_size=1_000))
    assert {run.status for run in runs} == {RunStatus.COMPLETED}, [
        run for run in runs if run.status is not RunStatus.COMPLETED
    ]
    assert len(load.acknowledged) > 50, "there was a load"
    return runs


def repeats(effects: Path) -> int:
    """Bodies that a kill cut off before their result was kept; each ran again."""
    begun = Counter(tuple(line.split("\t")[:3]) for line in effects.read_text().splitlines())
    return sum(times - 1 for times in begun.values())


def no_event_is_lost(client: Client, load: Load, runs: list[Run]) -> None:
    """Every acknowledged event is stored, and started exactly one run."""
    by_event = Counter(run.event_id for run in runs if run.event_id)
    stored = {one.event.id for one in client.list_events("mixed/*", page_size=1_000)}
    for event_id in load.acknowledged.values():
        assert event_id in stored
        assert by_event[event_id] == 1
    assert len(set(load.acknowledged.values())) == len(load.acknowledged)
    assert len(by_event) == len(load.acknowledged), "and no run comes from an event that was never acknowledged"


def no_step_ran_again(client: Client, runs: list[Run], effects: Path) -> None:
    """What is recorded of a step is its last execution: nothing ran after a result was acknowledged."""
    executed: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in effects.read_text().splitlines():
        run_id, key, _, token = line.split("\t")
        executed[run_id, key].append(token)
    recorded: dict[tuple[str, str], str] = {}
    for run in runs:
        for entry in client.journal(run.id):
            if entry.kind == "RUN":
                assert entry.failure is None
                recorded[run.id, entry.key] = entry.output
    for place, token in recorded.items():
        assert executed[place][-1] == token, f"{place} ran after its result was recorded: {executed[place]}, {token}"
    assert set(executed) == set(recorded), "nothing ran without being recorded"
    for run in runs:
        if not run.parent_run_id:
            tokens = client.get_run(run.id).output
            assert set(tokens) <= {token for (run_id, _), token in recorded.items() if run_id == run.id}
