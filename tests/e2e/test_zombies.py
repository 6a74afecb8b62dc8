"""A server that is frozen for longer than its lease, while another takes over: what it then still does, nobody sees."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import pytest
from stepwell.client import Client
from stepwell.v1 import event_pb2, event_pb2_grpc, function_pb2, function_pb2_grpc

from tests.e2e.conftest import APPS, Databases
from tests.e2e.raw_worker import told
from tests.support.servers import Process, Server, ended, until

LEASES_S = 4.0


def tuned(database: str, folder: Path, *flags: str) -> Server:
    folder.mkdir()
    server = Server(database, folder, profile="serve").tuned(lease_ms=1_500, heartbeat_ms=400)
    server.command += flags
    return server


def sent(client: Client, first: int, count: int) -> list[str]:
    ids = [client.send("losing/innocent", {"n": n}) for n in range(first, first + count)]
    return [run_id for event_id in ids for run_id in client.get_event(event_id).run_ids]


def check(client: Client, runs: list[str]) -> None:
    """Each has ended once, with a journal without gaps."""
    for run_id in runs:
        assert ended(client, run_id, 60).output == [0, 1, 2]
        assert [entry.number for entry in client.journal(run_id)] == [1, 2, 3]


def test_h31_what_a_zombie_was_asked_is_refused_and_its_runs_go_on_elsewhere(
    databases: Databases, tmp_path: Path
) -> None:
    database = databases("postgres", tmp_path)
    effects = tmp_path / "effects"
    effects.touch()
    first = tuned(database, tmp_path / "first")
    second = tuned(database, tmp_path / "second", "--standby")
    addresses = f"ipv4:{first.address},{second.address}"
    with first, grpc.insecure_channel(first.address) as channel:
        worker = first.worker(APPS / "losing.py", "one", EFFECTS=str(effects), STEPWELL_ADDRESS=addresses)
        try:
            Process.start(second)
            until(lambda: "standing by" in second.text(), "it stands by")
            worker.start().connected(first.client())
            runs = sent(first.client(), 0, 10)
            until(lambda: len(effects.read_text().splitlines()) > 5, "bodies execute")
            grpc.channel_ready_future(channel).result(10)
            first.signal(signal.SIGSTOP)
            # These lie in its socket until it goes on.
            events, functions = event_pb2_grpc.EventServiceStub(channel), function_pb2_grpc.FunctionServiceStub(channel)
            event = event_pb2.NewEvent(name="losing/innocent", data={"data": b'{"n":"zombie"}'})
            late = [
                events.SendEvents.future(event_pb2.SendEventsRequest(events=[event]), timeout=60),
                functions.Invoke.future(function_pb2.InvokeRequest(function_id="losing/innocent"), timeout=60),
            ]
            until(lambda: "listens on" in second.text(), "the second takes over")
            client = second.client()
            worker.connected(client)
            runs += sent(client, 10, 10)
            first.signal(signal.SIGCONT)
            for call in late:
                with pytest.raises(grpc.RpcError) as refused:
                    call.result()
                assert told(refused.value).code == "UNAVAILABLE"
            assert first.wait() == 4
            assert "another server has taken over" in first.text()
            check(client, runs)
            names = [one.event.data for one in client.list_events("losing/innocent")]
            assert len(names) == 20
            assert {"n": "zombie"} not in names
            assert len(list(client.list_runs(app="losing"))) == 20
            assert "Traceback" not in first.text() + second.text()
        finally:
            first.signal(signal.SIGCONT)
            worker.kill()
            second.__exit__(None, None, None)


def test_h31_a_file_stays_with_the_frozen_server_that_holds_it(databases: Databases, tmp_path: Path) -> None:
    """Its lock outlasts the lease: there is no zombie on SQLite."""
    database = databases("sqlite", tmp_path)
    effects = tmp_path / "effects"
    effects.touch()
    first = tuned(database, tmp_path / "first")
    second = tuned(database, tmp_path / "second", "--standby")
    with first:
        worker = first.worker(APPS / "losing.py", "one", EFFECTS=str(effects))
        try:
            Process.start(second)
            until(lambda: "standing by" in second.text(), "it stands by")
            client = first.client()
            worker.start().connected(client)
            runs = sent(client, 0, 10)
            until(lambda: len(effects.read_text().splitlines()) > 5, "bodies execute")
            first.signal(signal.SIGSTOP)
            until(lambda: "stopping all bodies" in worker.text(), "the worker gives the server up")
            with pytest.raises(AssertionError):
                until(lambda: "listens on" in second.text(), "the second takes over", LEASES_S)
            first.signal(signal.SIGCONT)
            check(client, runs + sent(client, 10, 5))
            assert first.running
        finally:
            first.signal(signal.SIGCONT)
            worker.kill()
            second.__exit__(None, None, None)
