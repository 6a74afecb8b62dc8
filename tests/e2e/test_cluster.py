"""Many nodes on one Postgres, with Redis: work finds its worker whichever node was asked, and survives any of them."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from stepwell.client import Client
from stepwell.event import NewEvent
from stepwell.values import RunStatus

from tests.e2e.conftest import APPS, Databases
from tests.support.redis import RedisServer
from tests.support.servers import Process, Server, Worker, ended, reached, until

LEASE = {"lease_ms": 2_000, "heartbeat_ms": 500}


class Cluster:
    """Nodes on one database; where each one's workers and log lie."""

    def __init__(self, database: str, redis: RedisServer, folder: Path, stack: contextlib.ExitStack) -> None:
        self.redis = redis
        self.database = database
        self.effects = folder / "effects"
        self.effects.touch()
        self._folder = folder
        self._stack = stack
        self._count = 0

    def node(self, *, running: bool = True, **tuning: int) -> Server:
        """One more node; it is killed at the end."""
        self._count += 1
        folder = self._folder / f"node-{self._count}"
        folder.mkdir()
        node = Server(self.database, folder, profile="serve").tuned(**{**LEASE, **tuning})
        node.command += ["--redis", self.redis.url]
        self._stack.callback(node.__exit__, None, None, None)
        if running:
            node.start()
        return node

    def worker(self, app: str, instance: str, *nodes: Server, **variables: str) -> Worker:
        """A worker that connects to the first of these nodes that answers, and is connected."""
        address = ",".join(node.address for node in nodes)
        worker = nodes[0].worker(APPS / app, instance, EFFECTS=str(self.effects), **variables)
        worker._options["env"]["STEPWELL_ADDRESS"] = address
        self._stack.callback(worker.kill)
        worker.start()
        if len(nodes) == 1:
            worker.connected(nodes[0].client())
        return worker

    def begun(self) -> Counter[tuple[str, str]]:
        """How often the body of each step of each run began."""
        lines = self.effects.read_text().splitlines()
        return Counter((run, key) for run, key, *_ in (line.split("\t") for line in lines))

    def twice(self) -> list[tuple[str, str]]:
        """Bodies that began more than once."""
        return [step for step, count in self.begun().items() if count > 1]


@pytest.fixture
def redis(tmp_path: Path) -> Generator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def cluster(databases: Databases, redis: RedisServer, tmp_path: Path) -> Generator[Cluster]:
    with contextlib.ExitStack() as stack:
        yield Cluster(databases("postgres", tmp_path), redis, tmp_path, stack)


def home(worker: Worker, *nodes: Server) -> Server:
    """The node that a worker is connected to."""
    clients = [(node, node.client()) for node in nodes if node.running]

    def look() -> list[Server]:
        found = []
        for node, client in clients:
            for info in client.workers():
                if info.connected and info.instance == f"{worker.instance}:{worker.pid}":
                    found.append(node)
        return found

    return until(look, f"worker {worker.instance} is connected")[0]


def runs_of(client: Client, event_id: str) -> list[str]:
    return list(client.get_event(event_id).run_ids)


def test_an_event_at_one_node_starts_a_run_at_a_worker_of_another(cluster: Cluster) -> None:
    here, there = cluster.node(), cluster.node()
    cluster.worker("losing.py", "one", there)
    client = here.client()
    sent = [client.send("losing/innocent", {"n": n}) for n in range(20)]
    for run_id in [run_id for event_id in sent for run_id in runs_of(client, event_id)]:
        assert ended(client, run_id).output == [0, 1, 2]
    assert sum(cluster.begun().values()) == 60
    assert "Traceback" not in here.text() + there.text()


def test_a_parent_at_one_node_and_its_child_at_another(cluster: Cluster) -> None:
    here, there = cluster.node(), cluster.node()
    cluster.worker("pair.py", "parent", here, WHICH="parent")
    cluster.worker("pair.py", "child", there, WHICH="child")
    client = there.client()
    handles = [client.start("parent/call", {}) for _ in range(10)]
    for handle in handles:
        assert ended(client, handle.run_id).output == [0, 10, 20]
    assert cluster.twice() == []
    assert sum(cluster.begun().values()) == 10 * 6


def test_an_event_that_one_node_accepts_wakes_a_run_in_memory_at_another(cluster: Cluster) -> None:
    here, there = cluster.node(), cluster.node()
    worker = cluster.worker("features.py", "one", there)
    waits = [{"event": "w/go", "match": "data.u", "timeout": "1h"}]
    handles = [there.client().start("features/waiter", {"waits": waits, "u": n}) for n in range(5)]
    for handle in handles:
        reached(there.client(), handle.run_id, lambda run: any(one.event == "w/go" for one in run.waiting_for))
    client = here.client()
    client.send_many([NewEvent("w/go", {"u": n, "n": n}) for n in range(5)])
    for n, handle in enumerate(handles):
        run = ended(client, handle.run_id)
        assert (run.output, run.turn) == ([n], 1), "it stayed in its worker's memory"
    assert worker.running


def test_a_run_at_another_node_is_cancelled_and_its_child_with_it(cluster: Cluster) -> None:
    here, there = cluster.node(), cluster.node()
    cluster.worker("pair.py", "parent", there, WHICH="parent")
    cluster.worker("pair.py", "child", here, WHICH="child")
    client = here.client()
    parent = client.start("parent/hold").run_id

    def child() -> str:
        found = [one.id for one in client.list_runs(function="child/sleep") if one.status is RunStatus.PARKED]
        return found[0] if found else ""

    child_id = until(child, "the child sleeps")
    client.cancel_run(parent, "enough")
    assert ended(client, parent).status is RunStatus.CANCELLED
    assert ended(there.client(), child_id).status is RunStatus.CANCELLED


def test_whoever_waits_for_a_run_at_another_node_learns_its_end(cluster: Cluster) -> None:
    here, there = cluster.node(), cluster.node()
    cluster.worker("features.py", "one", there)
    client = here.client()
    assert client.invoke("features/sleeper", {"for": "1500ms"}, timeout=20)
    run_id = client.start("features/sleeper", {"for": "1500ms"}).run_id
    seen = [change.run.status for change in client.watch_run(run_id)]
    assert seen[-1] is RunStatus.COMPLETED


def test_a_killed_node_costs_no_run_anything(cluster: Cluster) -> None:
    """Its workers come to another node with what they have in memory: no body begins twice."""
    one, two = cluster.node(), cluster.node()
    worker = cluster.worker("losing.py", "one", one, two)
    sleeper = cluster.worker("features.py", "two", one, two)
    first = home(worker, one, two)
    second = two if first is one else one
    home(sleeper, one, two)
    slept = second.client().start("features/sleeper", {"for": "3s"}).run_id
    runs = [run for n in range(20) for run in runs_of(first.client(), first.client().send("losing/innocent", {"n": n}))]
    until(lambda: len(cluster.begun()) > 10, "bodies execute")
    first.kill()
    for run_id in runs:
        run = ended(second.client(), run_id, 60)
        assert (run.output, run.turn) == ([0, 1, 2], 1)
    run = ended(second.client(), slept, 60)
    assert (run.status, run.turn) == (RunStatus.COMPLETED, 1)
    assert cluster.twice() == []
    assert "stopping all bodies" not in worker.text()


def test_the_runs_of_a_killed_worker_move_to_a_worker_at_another_node(cluster: Cluster) -> None:
    here, there = cluster.node(), cluster.node()
    victim = cluster.worker("losing.py", "victim", here)
    runs = [run for n in range(10) for run in runs_of(here.client(), here.client().send("losing/innocent", {"n": n}))]
    until(lambda: len(cluster.begun()) > 5, "bodies execute")
    cluster.worker("losing.py", "heir", there)
    victim.kill()
    for run_id in runs:
        assert ended(here.client(), run_id, 60).output == [0, 1, 2]
        assert [entry.number for entry in here.client().journal(run_id)] == [1, 2, 3]


def test_h31_a_node_that_froze_for_longer_than_its_lease_writes_nothing_more(cluster: Cluster) -> None:
    zombie, other = cluster.node(), cluster.node()
    worker = cluster.worker("losing.py", "one", zombie)
    runs = [run for n in range(10) for run in runs_of(zombie.client(), zombie.client().send("losing/innocent", {}))]
    until(lambda: len(cluster.begun()) > 5, "bodies execute")
    heir = cluster.worker("losing.py", "heir", other)
    zombie.signal(signal.SIGSTOP)
    try:
        client = other.client()
        for run_id in runs:
            run = ended(client, run_id, 60)
            assert run.output == [0, 1, 2]
            assert [entry.number for entry in client.journal(run_id)] == [1, 2, 3]
    finally:
        zombie.signal(signal.SIGCONT)
    assert zombie.wait() == 4
    assert "silent for longer than its lease" in zombie.text()
    assert heir.running
    assert worker.running


def test_a_node_that_leaves_by_sigterm_costs_no_run_anything(cluster: Cluster) -> None:
    one, two, three = cluster.node(), cluster.node(), cluster.node()
    worker = cluster.worker("losing.py", "one", one, two)
    leaver = home(worker, one, two)
    client = three.client()
    sent: list[str] = []
    for n in range(30):
        sent.append(client.send("losing/innocent", {"n": n}))
    until(lambda: len(cluster.begun()) > 10, "bodies execute")
    assert leaver.stop() == 0
    sent += [client.send("losing/innocent", {"n": n}) for n in range(30, 40)]
    for run_id in [run_id for event_id in sent for run_id in runs_of(client, event_id)]:
        run = ended(client, run_id, 60)
        assert (run.output, run.turn) == ([0, 1, 2], 1)
    assert cluster.twice() == []
    assert [word for word in ("the stream ended", "stopping all bodies", "Traceback") if word in worker.text()] == []


@pytest.mark.parametrize("harm", ["flush", "drop", "restart", "freeze"])
def test_h30_what_befalls_redis_costs_no_work(cluster: Cluster, harm: str) -> None:
    here, there = cluster.node(), cluster.node()
    cluster.worker("pair.py", "parent", here, WHICH="parent")
    cluster.worker("pair.py", "child", there, WHICH="child")
    client = there.client()
    handles = [client.start("parent/call", {}) for _ in range(5)]
    redis = cluster.redis
    if harm == "flush":
        redis.flush()
    elif harm == "drop":
        redis.drop_connections()
    elif harm == "restart":
        redis.kill()
    else:
        redis.signal(signal.SIGSTOP)
    handles += [client.start("parent/call", {}) for _ in range(5)]
    for handle in handles:
        assert ended(client, handle.run_id, 60).output == [0, 10, 20]
    if harm == "restart":
        until(lambda: "Redis is not available" in here.text(), "it is noticed")
        redis.start()
    if harm == "freeze":
        redis.signal(signal.SIGCONT)
    if harm in ("restart", "freeze"):
        until(lambda: "hear each other again" in here.text() + there.text(), "it is noticed")
    assert client.invoke("parent/call", {}, timeout=30) == [0, 10, 20]
    assert cluster.twice() == []
    assert "Traceback" not in here.text() + there.text()


def test_h22_two_nodes_learn_of_each_others_functions(cluster: Cluster) -> None:
    here, there = cluster.node(), cluster.node()
    cluster.worker("losing.py", "one", here)
    first = there.client().send("losing/innocent", {})
    until(lambda: runs_of(there.client(), first), "it starts a run")
    cluster.worker("features.py", "two", there)
    second = here.client().send("t/exact", {})
    (run_id,) = until(lambda: runs_of(here.client(), second), "it starts a run")
    assert ended(here.client(), run_id).output == "t/exact"
    assert {one.id for one in here.client().functions()} == {one.id for one in there.client().functions()}


def test_h31_one_server_alone_and_a_cluster_exclude_each_other(
    databases: Databases, cluster: Cluster, tmp_path: Path
) -> None:
    node = cluster.node()
    alone = Server(cluster.database, tmp_path, profile="serve").tuned(**LEASE)
    with contextlib.closing(alone.client()):
        Process.start(alone)
        assert alone.wait() == 4
        assert "a cluster of servers (--redis) serves this database" in alone.text()
        assert node.stop() == 0
        alone.start()
        try:
            late = cluster.node(running=False)
            Process.start(late)
            assert late.wait() == 4
            assert "serves this database alone" in late.text()
            alone.kill()
            late.start()
        finally:
            alone.kill()
