"""Gates of functions where many nodes accept their events: no key counts twice, and a pause holds everywhere."""

from __future__ import annotations

import subprocess
import sys
import threading

from stepwell.client import Client
from stepwell.event import NewEvent
from stepwell.values import RunStatus

from tests.e2e.test_cluster import Cluster, cluster, redis
from tests.support.servers import ROOT, Server, ended, environment, until

__all__ = ["cluster", "redis"]


def burst(name: str, user: str, clients: list[Client], rounds: int) -> list[str]:
    """Events of one key, sent to all nodes at once; their ids."""
    ids: list[str] = []

    def load(client: Client, at: int) -> None:
        for n in range(rounds):
            events = [NewEvent(name, {"user": user, "n": at * 1_000 + n * 5 + m}) for m in range(5)]
            ids.extend(status.event_id for status in client.send_many(events))

    threads = [threading.Thread(target=load, args=(client, at)) for at, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ids


def runs_of(client: Client, ids: list[str]) -> set[str]:
    """The runs of all events, once every event has its one."""

    def look() -> set[str]:
        found = [client.get_event(event_id).run_ids for event_id in ids]
        return {run_ids[0] for run_ids in found} if all(len(run_ids) == 1 for run_ids in found) else set()

    return until(look, "every event has one run")


def test_gates_hold_over_nodes_that_accept_events_of_one_key(cluster: Cluster) -> None:
    one, two = cluster.node(), cluster.node()
    clients = [one.client(), two.client()]
    cluster.worker("gated.py", "a", one)
    cluster.worker("gated.py", "b", two)
    rated = runs_of(clients[0], burst("gate/rated", "r", clients, 10))
    states = [ended(clients[1], run_id).status for run_id in rated]
    assert states.count(RunStatus.COMPLETED) == 3
    assert len(states) == 100
    small = runs_of(clients[1], burst("gate/small", "s", clients, 10))
    numbers = sorted(n for run_id in small for n in ended(clients[0], run_id).output)
    assert numbers == sorted([*range(50), *range(1_000, 1_050)])
    assert cluster.twice() == []


def test_a_function_that_is_paused_at_one_node_waits_at_the_other(cluster: Cluster) -> None:
    one, two = cluster.node(sweep_ms=500), cluster.node(sweep_ms=500)
    client = two.client()
    cluster.worker("gated.py", "a", one)
    cluster.worker("gated.py", "b", two)
    _switch(one, "pause")
    until(lambda: _is_held(client), "the other node holds runs back")
    _switch(one, "resume")
    assert ended(client, client.start("gated/rated", {"n": 2}).run_id).output == 2


def _is_held(client: Client) -> bool:
    run = client.get_run(client.start("gated/rated", {"n": 1}).run_id)
    return [reason.kind for reason in run.waiting_for] == ["FUNCTION_PAUSED"]


def _switch(node: Server, what: str) -> None:
    command = [sys.executable, "-m", "stepwell", "functions", what, "gated/rated", "--address", node.address]
    subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=True)
