"""What a server writes while it serves, is used, and cannot start: lines that a machine can read, without secrets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import APPS
from tests.support.servers import Process, Server, ended, free_port, running, until


def lines(text: str) -> list[dict[str, Any]]:
    """Every line, each of which must be an object."""
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_of_a_server_is_an_object_and_names_no_payload(tmp_path: Path) -> None:
    server = Server(f"sqlite:///{tmp_path}/x.db", tmp_path, profile="serve")
    with running(server, APPS / "counted.py", STEPWELL_ENVIRONMENT="default") as (client, worker):
        run_id = client.get_event(client.send("counted/work", {"card": "4111-1111"})).run_ids[0]
        ended(client, run_id)
        worker.kill()
        until(lambda: "has left" in server.text(), "the worker's end is logged")
        assert server.stop() == 0
    logged = lines(server.text())
    assert logged[0]["message"] == f"Stepwell serve listens on {server.address}"
    assert logged[0].keys() == {"time", "level", "logger", "message", "database"}
    came, left = [line for line in logged if line["logger"] == "stepwell.sessions"]
    assert came["session"] == left["session"]
    assert came["environment"] == "default"
    assert "4111" not in server.text()
    assert "first" not in server.text()  # a step


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_database_that_cannot_be_opened_is_logged_without_its_password(tmp_path: Path, form: str) -> None:
    url = f"postgresql://ada:hunter2@127.0.0.1:{free_port()}/x"
    command = [sys.executable, "-m", "stepwell", "serve", "--database", url, "--log", form, "--log-level", "debug"]
    with Process([*command, "--listen", f"127.0.0.1:{free_port()}"], tmp_path / "log", cwd=tmp_path) as process:
        assert process.wait() == 4
    assert "hunter2" not in process.text()
    assert "Postgres cannot be reached" in process.text()
    if form == "json":
        assert lines(process.text())[-1]["level"] == "critical"
    else:
        assert process.text().startswith("stepwell: ")


def test_the_level_is_the_least_that_is_logged(tmp_path: Path) -> None:
    server = Server(f"sqlite:///{tmp_path}/x.db", tmp_path)
    server.command += ["--log", "text", "--log-level", "info"]
    with running(server, APPS / "small.py"):
        assert " INFO     stepwell.sessions: worker one:" in server.text()
        server.command[-1] = "error"
        server.stop()
        before = len(server.text())
        server.start()
        until(lambda: "listens on" in server.text()[before:], "it serves again")
        assert " INFO " not in server.text()[before:]


@pytest.mark.parametrize("option", [["--log", "xml"], ["--log-level", "loud"]])
def test_what_is_no_form_or_level_is_refused(tmp_path: Path, option: list[str]) -> None:
    command = [sys.executable, "-m", "stepwell", "serve", "--database", f"sqlite:///{tmp_path}/x.db", *option]
    with Process(command, tmp_path / "log", cwd=tmp_path) as process:
        assert process.wait() == 2
    assert option[0] in process.text()
