"""Databases and addresses that cannot be used: taken, damaged, full, away. One clear line, and nothing lost."""

from __future__ import annotations

import resource
import time
from itertools import count
from pathlib import Path

import grpc
import pytest
from stepwell.api_errors import ApiError
from stepwell.event import NewEvent
from stepwell.v1 import event_pb2, event_pb2_grpc

from tests.e2e.conftest import APPS
from tests.e2e.raw_worker import Told, told
from tests.support.servers import Process, Server, ended, running, until

USAGE_EXIT = 2
UNAVAILABLE_EXIT = 4
KIB = 1024
STOP_S = 9.0
"""Two seconds for what is in flight and one for calls, three times over."""


def refused(server: Server) -> str:
    """Starts a server that cannot serve; the one line it says."""
    before = len(server.text())
    Process.start(server)
    code = server.wait()
    said = server.text()[before:]
    assert code == UNAVAILABLE_EXIT, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("stepwell: ")
    return said


def test_h31_a_second_server_on_the_same_database_says_who_holds_it(database: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Server(database, tmp_path) as first:
        client = first.client()
        said = refused(Server(database, other))
        assert "DATABASE_IN_USE" in said
        assert "standing by" not in said
        assert f" {first.pid}" in said, "whom to look for"
        assert client.send("still/here")


def test_a_server_takes_over_at_once_from_one_that_was_killed(database: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Server(database, tmp_path) as first:
        event_id = first.client().send("kept/event")
        first.kill()
        began = time.monotonic()
        with Server(database, other) as second:
            assert second.client().get_event(event_id).event.name == "kept/event"
            assert time.monotonic() - began < 10


def test_h31_a_standby_waits_for_the_database_and_takes_over(database: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Server(database, tmp_path, profile="serve") as first:
        event_id = first.client().send("kept/event")
        standby = Server(database, other, profile="serve")
        standby.command.append("--standby")
        try:
            Process.start(standby)
            until(lambda: "standing by" in standby.text(), "it stands by")
            assert standby.stop() == 0, "it can be stopped while it waits"
            Process.start(standby)
            until(lambda: standby.text().count("standing by") > 1, "it stands by again")
            assert "listens on" not in standby.text()
            assert first.client().send("still/here")
            first.stop()
            until(lambda: "listens on" in standby.text(), "it serves")
            assert standby.client().get_event(event_id).event.name == "kept/event"
        finally:
            standby.__exit__(None, None, None)


def test_a_port_in_use_is_named(database: str, tmp_path: Path) -> None:
    with Server(database, tmp_path) as first:
        other = tmp_path / "other"
        other.mkdir()
        second = Server(f"sqlite:///{other}/other.db", other)
        second.command[-1] = first.address
        assert f"cannot listen on {first.address}" in refused(second)
        assert not (other / "other.db").exists(), "nothing else was touched"
        assert first.client().send("still/here")


@pytest.mark.parametrize("url", ["foo://x", "sqlite://"])
def test_a_database_that_there_cannot_be_is_an_error_of_usage(url: str, tmp_path: Path) -> None:
    server = Server(url, tmp_path)
    Process.start(server)
    assert server.wait() == USAGE_EXIT
    assert "DATABASE_URL" in server.text()


def test_a_database_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    server = Server("postgresql://me:secret@127.0.0.1:1/nothing", tmp_path)
    said = refused(server)
    assert "Postgres cannot be reached" in said
    assert "secret" not in said
    folder = Server("sqlite:////proc/nowhere/x.db", tmp_path)
    assert "/proc/nowhere" in refused(folder)


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"my notes " * 2_000)
    said = refused(Server(f"sqlite:///{path}", tmp_path))
    assert "notes.txt" in said
    assert path.read_bytes() == b"my notes " * 2_000


@pytest.mark.parametrize("where", ["head", "middle"])
def test_a_damaged_database_is_refused_and_left_as_it_is(where: str, tmp_path: Path) -> None:
    path = tmp_path / "stepwell.db"
    server = Server(f"sqlite:///{path}", tmp_path)
    with server:
        server.client().send_many([NewEvent("some/event", {"x": "y" * 1_000}) for _ in range(500)])
        assert server.stop() == 0
        whole = path.read_bytes()
        assert len(whole) > 400 * KIB
        begin, end = (0, 8 * KIB) if where == "head" else (8 * KIB, len(whole))
        path.write_bytes(whole[:begin] + b"\xa5" * (end - begin) + whole[end:])
        said = refused(server)
        assert "database" in said
        assert path.stat().st_size == len(whole)


def test_a_full_disk_refuses_what_it_cannot_keep_and_loses_nothing(tmp_path: Path) -> None:
    """The disk is full for the server: it may not make its files longer. Then there is room again."""
    effects = tmp_path / "effects"
    server = Server(f"sqlite:///{tmp_path}/stepwell.db", tmp_path)
    with running(server, APPS / "features.py", EFFECTS=str(effects)) as (client, _):
        kept = client.send("full/event", {"n": -1})
        largest = max(file.stat().st_size for file in tmp_path.glob("stepwell.db*"))
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (largest + 256 * KIB, resource.RLIM_INFINITY))
        accepted = [kept]
        answer = fill(server.address, accepted)
        assert (answer.code, answer.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE"), answer
        assert "disk" in answer.message
        assert all(client.get_event(event_id).event.id == event_id for event_id in accepted), "reads go on"
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        handle = client.start("features/echo", 3)
        assert ended(client, handle.run_id).output == 3
        assert all(client.get_event(event_id).event.id == event_id for event_id in accepted)
        assert "Traceback" not in server.text()


def test_a_database_that_is_damaged_while_it_is_served_says_so_to_all_calls(tmp_path: Path) -> None:
    path = tmp_path / "stepwell.db"
    with Server(f"sqlite:///{path}", tmp_path) as server:
        client = server.client()
        client.send_many([NewEvent("some/event", {"x": "y" * 1_000}) for _ in range(3_000)])
        assert server.stop() == 0, "now all of it is in the file"
        server.start()
        with path.open("r+b") as file:
            size = file.seek(0, 2)
            file.seek(4 * KIB)
            file.write(b"\xa5" * (size - 4 * KIB))
        answer = fill(server.address, [])
        assert (answer.code, answer.reason) == ("DATA_LOSS", "DATABASE_DAMAGED"), answer
        for call in (lambda: client.send("some/event"), lambda: list(client.list_events("some/event"))):
            with pytest.raises(ApiError) as refusal:
                call()
            assert refusal.value.reason == "DATABASE_DAMAGED"
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < STOP_S
        assert "Traceback" not in server.text()


def test_a_server_with_a_full_disk_leaves_as_soon_as_any(tmp_path: Path) -> None:
    with Server(f"sqlite:///{tmp_path}/stepwell.db", tmp_path) as server:
        server.client().send("full/event")
        largest = max(file.stat().st_size for file in tmp_path.glob("stepwell.db*"))
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (largest + 256 * KIB, resource.RLIM_INFINITY))
        assert fill(server.address, [], timeout_s=3).code == "DEADLINE_EXCEEDED"
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < STOP_S


def fill(address: str, accepted: list[str], timeout_s: float = 30) -> Told:
    """Sends large events until one is refused; the ids of those that were not, and the refusal."""
    with grpc.insecure_channel(address) as channel:
        send = event_pb2_grpc.EventServiceStub(channel).SendEvents
        for n in count():
            event = {"name": "full/event", "data": {"data": b'{"x":"' + b"x" * 100_000 + b'"}'}, "id": f"e{n}"}
            try:
                answer = send(event_pb2.SendEventsRequest(events=[event]), timeout=timeout_s)
            except grpc.RpcError as error:
                return told(error)
            accepted.append(answer.statuses[0].event_id)
    raise AssertionError("unreachable")
