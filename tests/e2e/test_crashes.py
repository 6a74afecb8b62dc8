"""kill -9 of server and workers at seeded random moments under a mixed load: nothing lost, doubled or stuck.

CRASH_SEEDS=2,3 tries other moments.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path

import grpc
import pytest
from stepwell.api_errors import ApiError
from stepwell.client import Client
from stepwell.event import NewEvent
from stepwell.values import EventOutcome, Run, RunStatus

from tests.e2e.conftest import APPS
from tests.e2e.raw_worker import RawWorker
from tests.support.servers import Server, Worker, ended, until

PROGRAMS = ("chain", "plain", "parallel", "sleepy", "waiting", "parent", "retrying", "sending", "racing")
KILLS = 9
WORKER_KILLS_MOST = 4  # a run that is lost five times without progress is paused, and rightly so
LOAD_S = 14.0
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


def kills(server: Server, workers: list[Worker], seed: int) -> Generator[str]:
    """Kills and restarts, now this, now that; yields what it did."""
    chance = random.Random(seed)
    worker_kills = 0
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.2, 2 * LOAD_S / KILLS - 0.2))  # the moment of a kill: random on purpose
        victims = ["server"] * 2
        if worker_kills < WORKER_KILLS_MOST:
            victims += ["worker"] * 2 + ["both"]
        victim = chance.choice(victims)
        if victim != "server":
            worker_kills += 1
            worker = chance.choice(workers)
            worker.kill()
            worker.start()
        if victim != "worker":
            server.kill()
            server.start()
        yield victim


@pytest.mark.parametrize("seed", [int(seed) for seed in os.environ.get("CRASH_SEEDS", "1").split(",")])
def test_nothing_is_lost_doubled_or_stuck_under_kill_9(database: str, tmp_path: Path, seed: int) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    with Server(database, tmp_path) as server:
        client = server.client()
        workers = [server.worker(APPS / "mixed.py", name, EFFECTS=str(effects)) for name in ("a", "b")]
        try:
            for worker in workers:
                worker.start().connected(client)
            with Load(client, seed) as load:
                done = Counter(kills(server, workers, seed))
            assert sum(done.values()) == KILLS
            runs = all_ended(client, load)
        finally:
            for worker in workers:
                worker.kill()
        print(f"{len(load.acknowledged)} events, {len(runs)} runs, {done}, {repeats(effects)} bodies ran again")
        no_event_is_lost(client, load, runs)
        no_step_ran_again(client, runs, effects)
        sent = Counter(one.event.data["id"] for one in client.list_events("mixed/sent", page_size=1_000))
        assert set(sent.values()) == {1}, "events are sent once"
        assert "Traceback" not in server.text(), server.text()


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


@pytest.mark.parametrize("child_is", ["held", "queued"])
def test_h16_a_server_killed_between_a_parents_end_and_its_childs_cancelling_cancels_it_after_all(
    database: str, tmp_path: Path, child_is: str
) -> None:
    """The order to cancel is part of the commit that closes the parent's wait: the server dies right after that."""
    marker = tmp_path / "died"
    server = Server(database, tmp_path)
    server.command[1:3] = [str(APPS / "dying_server.py"), str(marker), "{}"]
    with server:
        client = server.client()
        with RawWorker(server.address, "dying", capacity=2 if child_is == "held" else 1) as raw:
            session = raw.hello().session_id
            parent = client.start("dying/f", None).run_id
            turn = raw.work("assigns", lambda one: one.run_id == parent).turn
            raw.commands(invokes=[{"run_id": parent, "turn": turn, "key": "k", "function_id": "dying/f"}])
            (child,) = until(lambda: list(client.list_runs(parent_run_id=parent)), "the child is durable")
            named = {"run_id": child.id, "turn": 1}
            if child_is == "held":
                raw.work("assigns", lambda one: one.run_id == child.id)
            raw.commands(completes=[{"run_id": parent, "turn": turn, "number": 1, "output": {"data": b"7"}}])
            server.wait()
        assert marker.exists()
        server.start()
        assert client.get_run(parent).output == 7
        with RawWorker(server.address, "dying", capacity=1) as raw:
            raw.hello(session_id=session, residents=[named] if child_is == "held" else [])
            if child_is == "held":
                assert raw.work("cancels").run_id == child.id
                seen = {**named, "keys": [{"key": "$cancel", "number": 1}]}
                raw.commands(delivered=[seen], cancelled=[{**named, "number": 2}])
            assert ended(client, child.id).status is RunStatus.CANCELLED
