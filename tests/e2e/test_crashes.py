"""kill -9 of server and workers at seeded random moments under a mixed load: nothing lost, doubled or stuck.

CRASH_SEEDS=2,3 tries other moments.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from stepwell.values import RunStatus

from tests.e2e.conftest import APPS
from tests.e2e.mixed_load import Load, all_ended, no_event_is_lost, no_step_ran_again, repeats
from tests.e2e.raw_worker import RawWorker
from tests.support.servers import Server, Worker, ended, until

KILLS = 9
WORKER_KILLS_MOST = 4  # a run that is lost five times without progress is paused, and rightly so
LOAD_S = 14.0


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
