"""History into local dev: events out of one server, masked, and into another, with the commands themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from stepwell.client import Client
from stepwell.event import NewEvent

from tests.support.servers import Server, environment


@pytest.fixture
def origin(store: str, database: str, tmp_path: Path) -> Generator[Server]:
    with Server(database, tmp_path) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Generator[Server]:
    folder = tmp_path / "target"
    folder.mkdir()
    with Server(f"sqlite:///{folder}/stepwell.db", folder) as server:
        yield server


def command(server: Server, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stepwell", "events", *arguments], input=stdin, capture_output=True, text=True,
        env=environment(STEPWELL_ADDRESS=server.address), timeout=60, check=False,
    )  # fmt: skip


def stored(client: Client) -> list[tuple[str, Any]]:
    return [(one.event.name, one.event.data) for one in client.list_events(oldest_first=True)]


def test_events_are_pulled_masked_and_pushed_once(origin: Server, target: Server) -> None:
    here, there = origin.client(), target.client()
    data = [{"n": n, "email": f"u{n}@x.com", "items": [{"card": n}, {}]} for n in range(1_200)]
    here.send_many([NewEvent(f"shop/{'ab'[n % 2]}", one, metadata={"k": "v"}) for n, one in enumerate(data)])
    here.send("other/x", {"n": 3})
    pulled = command(
        origin, "pull", "--last", "1h", "--name", "shop/*", "--filter", "event.data.n != 7",
        "--redact", "data.email", "--redact", "data.items[].card=drop", "--redact", "data.emial",
    )  # fmt: skip
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stderr.splitlines() == ["1199 events", "--redact data.emial: nothing stood there in any event"]
    lines = [json.loads(line) for line in pulled.stdout.splitlines()]
    expected = [{"n": n, "email": "***", "items": [{}, {}]} for n in range(1_200) if n != 7]
    assert [line["data"] for line in lines] == expected
    assert {tuple(line) for line in lines} == {("name", "data", "metadata", "time", "id")}

    rest = command(origin, "pull", "--name", "shop/*", "--after", lines[-3]["id"])
    assert [json.loads(line)["id"] for line in rest.stdout.splitlines()] == [line["id"] for line in lines[-2:]]
    few = command(origin, "pull", "--limit", "2").stdout.splitlines()
    assert [json.loads(line)["id"] for line in few] == [line["id"] for line in lines[:2]]

    first = command(target, "push", stdin=pulled.stdout)
    assert (first.returncode, first.stderr) == (
        0,
        "1199 accepted, 0 known before, 0 refused; answered up to line 1199\n",
    )
    again = command(target, "push", stdin=pulled.stdout)
    assert "0 accepted, 1199 known before" in again.stderr
    assert stored(there) == [(line["name"], line["data"]) for line in lines]
    one = next(iter(there.list_events(oldest_first=True)))
    assert (one.event.metadata, one.event.sender_id) == ({"k": "v"}, "")
    assert (
        lines[0]["time"] == one.event.time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{one.event.time.microsecond // 1000:03d}Z"
    )


def test_ids_that_are_kept_make_an_event_one_in_any_file(target: Server) -> None:
    lines = [json.dumps({"name": "a", "data": {"n": n}, "id": f"evt_{n}"}) for n in range(5)]
    assert "5 accepted" in command(target, "push", "--keep-ids", stdin="\n".join(lines)).stderr
    done = command(
        target, "push", "--keep-ids", stdin="\n".join([*lines[2:], lines[0], lines[0].replace("evt_0", "new")])
    )
    assert "1 accepted, 4 known before" in done.stderr
    assert len(stored(target.client())) == 6


def test_bad_lines_are_named_and_the_others_stored(target: Server) -> None:
    lines = ['{"name":"a","data":{"n":1}}', "{", '{"name":"stepwell/own"}', "", '{"name":"a","data":{"n":2}}']
    done = command(target, "push", stdin="\n".join(lines))
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert said[0].startswith("line 2: not JSON")
    assert said[1].startswith("line 3: ")
    assert "[RESERVED_NAME]" in said[1]
    assert said[2:] == [
        "2 accepted, 0 known before, 2 refused; answered up to line 5",
        "stepwell: 2 lines were refused; the others are stored",
    ]
    assert stored(target.client()) == [("a", {"n": 1}), ("a", {"n": 2})]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["pull", "--redact", "email"], 2, "expected a path such as data.email"),
        (["pull", "--filter", "event.data.n =="], 2, "BAD_EXPRESSION"),
        (["pull", "--after", "evt_x"], 2, "BAD_PAGE_TOKEN"),
        (["pull", "--name", "a*b"], 2, "BAD_NAME"),
        (["push", "--to", "127.0.0.1:1"], 4, "no server answers"),
    ],
)
def test_a_transfer_that_cannot_be_says_why(target: Server, arguments: list[str], code: int, text: str) -> None:
    done = command(target, *arguments, stdin='{"name":"a"}\n')
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr
