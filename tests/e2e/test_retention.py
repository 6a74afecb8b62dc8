"""Retention on real servers: what is too old goes while the server serves, and everything that lives stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from stepwell.api_errors import ApiError
from stepwell.v1 import admin_pb2, admin_pb2_grpc
from stepwell.values import RunStatus

from tests.e2e.conftest import APPS
from tests.e2e.raw_worker import Told, told
from tests.support.servers import Server, ended, environment, running, until

USAGE_EXIT = 2


def retention(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stepwell", "retention", *arguments, "--address", server.address]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


def set_by_hand(server: Server, **request: Any) -> Told:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refusal:
        admin_pb2_grpc.AdminServiceStub(channel).SetRetention(admin_pb2.SetRetentionRequest(**request), timeout=30)
    return told(refusal.value)


def test_ended_runs_and_their_events_go_and_live_ones_stay(database: str, tmp_path: Path) -> None:
    server = Server(database, tmp_path).tuned(retention_ms=50)
    with running(server, APPS / "features.py", EFFECTS=str(tmp_path / "effects")) as (client, worker):
        old = client.start("features/plain", 1)
        assert ended(client, old.run_id).output == [1, "child"]
        event_id = client.send("nobody/listens")
        worker.stop()
        live = client.start("features/echo", 2)
        assert retention(server, "set", "--completed", "1h", "--events", "90m").returncode == 0
        client.advance_clock("2h")

        def gone() -> bool:
            try:
                client.get_run(old.run_id)
            except ApiError as error:
                return error.code is grpc.StatusCode.NOT_FOUND
            return False

        until(gone, "the run is removed")
        with pytest.raises(ApiError) as refusal:
            client.journal(old.run_id)
        assert refusal.value.code is grpc.StatusCode.NOT_FOUND
        assert not list(client.list_runs(statuses=[RunStatus.COMPLETED])), "the child went too"
        until(lambda: not any(one.event.id == event_id for one in client.list_events()), "the event is removed")
        assert client.get_run(live.run_id).status is RunStatus.QUEUED
        worker.start().connected(client)
        assert ended(client, live.run_id).output == 2
        assert server.stop() == 0
        assert "Traceback" not in server.text()
        server.start()
        kept = json.loads(retention(server, "show", "-o", "json").stdout)["rules"]
        assert {rule["kept"]: rule.get("keep_ms", 0) for rule in kept} == {
            "completed": 3_600_000,
            "failed": 0,
            "cancelled": 0,
            "timed_out": 0,
            "skipped": 0,
            "events": 5_400_000,
        }


def test_events_as_old_as_a_run_that_is_kept_stay_with_it(database: str, tmp_path: Path) -> None:
    """A run that lives may still look back at them, and is begun again with its own."""
    server = Server(database, tmp_path).tuned(retention_ms=50)
    with running(server, APPS / "features.py", EFFECTS=str(tmp_path / "effects")) as (client, _):
        before = client.send("nobody/listens")
        run = client.start("features/plain", 1)
        after = client.send("nobody/listens")
        retention(server, "set", "--events", "1h")
        client.advance_clock("2h")
        ended(client, run.run_id)
        until(lambda: [one.event.id for one in client.list_events("nobody/listens")] == [after], "the older one went")
        assert before != after
        assert client.get_run(run.run_id).status is RunStatus.COMPLETED, "runs are kept for ever"


def test_rules_that_cannot_be_are_refused_and_change_nothing(tmp_path: Path) -> None:
    with Server(f"sqlite:///{tmp_path}/a.db", tmp_path) as server:
        rule = {"kept": admin_pb2.KEPT_COMPLETED, "keep_ms": 7_200_000}
        for bad, field in (
            ({"kept": admin_pb2.KEPT_EVENTS, "keep_ms": 3_599_999}, "rules.events"),
            ({"kept": admin_pb2.KEPT_EVENTS, "keep_ms": 2**62}, "rules.events"),
            ({"keep_ms": 7_200_000}, "rules[1].kept"),
            ({"kept": 77, "keep_ms": 7_200_000}, "rules[1].kept"),
            (rule, "rules[1].kept"),
        ):
            answer = set_by_hand(server, rules=[rule, bad])
            assert (answer.code, answer.reason, answer.fields) == ("INVALID_ARGUMENT", "BAD_RETENTION", (field,))
        assert set_by_hand(server, environment="nobody").reason == "ENVIRONMENT_NOT_FOUND"
        for arguments in ((), ("--completed", "soon"), ("--completed", "59m"), ("--failed", "-1d")):
            told_ = retention(server, "set", *arguments)
            assert told_.returncode == USAGE_EXIT, told_.stderr
        shown = retention(server, "show").stdout
        assert shown.count("forever") == 6
        assert "completed  forever" in shown
        assert "completed  2.0 h" in retention(server, "set", "--completed", "2h").stdout.replace("2 h", "2.0 h")
        assert retention(server, "set", "--completed", "forever").stdout == shown
