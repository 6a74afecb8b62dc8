"""What probes are told: alive, ready, draining, standing by, without a store; and the warning about an open address."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from stepwell.v1 import admin_pb2, admin_pb2_grpc

from tests.e2e.raw_worker import told
from tests.support.databases import postgres_or_skip
from tests.support.servers import Process, Server, environment, until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNAVAILABLE_EXIT = 4


@contextmanager
def probing(server: Server) -> Generator[tuple[Any, Any]]:
    """Asks for the health of a service, and for what the server is."""
    with grpc.insecure_channel(server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        info = admin_pb2_grpc.AdminServiceStub(channel).GetServerInfo

        def health(service: str) -> int:
            return check(health_pb2.HealthCheckRequest(service=service), timeout=10, wait_for_ready=True).status

        yield health, lambda: info(admin_pb2.GetServerInfoRequest(), timeout=10)


def health(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stepwell", "health", "--address", server.address, *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


def test_a_server_that_serves_is_alive_and_ready(database: str, tmp_path: Path) -> None:
    with Server(database, tmp_path, profile="serve") as server:
        with probing(server) as (status, info):
            assert [status(name) for name in ("", "ready", "stepwell.v1.EventService")] == [SERVING] * 3
            assert info().ready
            assert not info().not_ready
            with pytest.raises(grpc.RpcError) as unknown:
                status("nobody")
            assert told(unknown.value).code == "NOT_FOUND"
        assert (health(server).returncode, health(server).stdout) == (0, "alive\n")
        assert json.loads(health(server, "--ready", "-o", "json").stdout) == {"status": "ready"}
        server.stop()
        gone = health(server, "--ready")
        assert gone.returncode == UNAVAILABLE_EXIT
        assert "no server answers" in gone.stderr


def test_a_server_that_leaves_tells_those_who_watch(database: str, tmp_path: Path) -> None:
    with Server(database, tmp_path, profile="serve") as server, grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="ready"), timeout=60)
        assert next(watch).status == SERVING
        server.signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING


def test_a_server_that_stands_by_is_alive_and_not_ready_until_it_takes_over(database: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Server(database, tmp_path, profile="serve") as first:
        standby = Server(database, other, profile="serve")
        standby.command.append("--standby")
        try:
            Process.start(standby)
            until(lambda: "standing by" in standby.text(), "it stands by")
            with probing(standby) as (status, info):
                assert status("") == SERVING
                assert status("ready") == NOT_SERVING
                with pytest.raises(grpc.RpcError) as refusal:
                    info()
                answer = told(refusal.value)
                assert (answer.code, answer.reason) == ("UNAVAILABLE", "STANDING_BY")
                assert answer.retry_ms
            assert health(standby).returncode == 0
            assert "STANDING_BY" in health(standby, "--ready").stderr
            first.stop()
            until(lambda: "listens on" in standby.text(), "it serves")
            assert health(standby, "--ready").returncode == 0
        finally:
            standby.__exit__(None, None, None)


def test_a_server_without_its_store_is_alive_and_not_ready(tmp_path: Path) -> None:
    with (
        postgres_or_skip() as postgres,
        Server(postgres.create_database("away"), tmp_path, profile="serve") as server,
        probing(server) as (status, info),
    ):
        assert status("ready") == SERVING
        postgres.stop()
        until(lambda: status("ready") == NOT_SERVING, "it says so")
        assert status("") == SERVING
        assert "store" in info().not_ready
        postgres.start()
        until(lambda: status("ready") == SERVING, "it serves again")
        assert info().ready


def test_an_address_that_others_reach_is_warned_of_once(tmp_path: Path) -> None:
    server = Server(f"sqlite:///{tmp_path}/open.db", tmp_path, profile="serve")
    server.command[-1] = server.address.replace("127.0.0.1", "0.0.0.0")
    with server:
        assert server.text().count("whoever reaches 0.0.0.0:") == 1
        server.stop()
    local = Server(f"sqlite:///{tmp_path}/open.db", tmp_path / "local", profile="serve")
    (tmp_path / "local").mkdir()
    with local:
        assert "whoever reaches" not in local.text()
