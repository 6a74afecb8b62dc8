"""History over a real server: failures gathered by error, and listings by condition, by the client and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from datetime import timedelta
from typing import Any, NamedTuple

import grpc
import pytest
from stepwell.api_errors import ApiError
from stepwell.client import Client
from stepwell.event import NewEvent
from stepwell.values import RunStatus

from tests.e2e.conftest import APPS, STORES, Databases
from tests.support.servers import Server, ended, environment, running

FAILED = RunStatus.FAILED


class Shop(NamedTuple):
    """A server on which orders were paid, failed and refused."""

    address: str
    client: Client
    runs: dict[int, str]
    refused: list[str]

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        env = environment(STEPWELL_ADDRESS=self.address, COLUMNS="300")
        command = [sys.executable, "-m", "stepwell", *arguments]
        return subprocess.run(command, env=env, input=stdin, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module", params=STORES)
def shop(request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop]:  # fmt: skip  # noqa: E501
    folder = tmp_path_factory.mktemp(f"shop-{request.param}")
    server = Server(databases(request.param, folder), folder)
    with running(server, APPS / "history.py") as (client, _):
        amounts = (10, 150, 20, 250, 30)
        sent = client.send_many([NewEvent("order/placed", {"amount": amount}) for amount in amounts])
        runs = {n: client.get_event(one.event_id).run_ids[0] for n, one in zip(amounts, sent, strict=True)}
        refused = [client.start("history/refuse", f"key-{n}").run_id for n in range(3)]
        for run_id in (*runs.values(), *refused):
            ended(client, run_id)
        yield Shop(server.address, client, runs, refused)


def test_failures_are_gathered_by_function_and_error(shop: Shop) -> None:
    page = shop.client.list_failures()
    assert (page.next_page_token, page.scanned, page.scanned_to) == ("", 5, None)
    found = {group.function_id: group for group in page.groups}
    pay, refuse = found["history/pay"], found["history/refuse"]
    assert (pay.count, pay.type, pay.message) == (2, "ValueError", "amount <n> of order <text> is too much")
    assert (pay.key, pay.frame, pay.statuses) == ("charge", "charge (history.py)", (FAILED,))
    assert pay.run_id in (shop.runs[150], shop.runs[250])
    assert pay.first_seen <= pay.last_seen
    assert (refuse.count, refuse.type, refuse.message, refuse.key) == (3, "KeyError", "<text>", "")
    assert refuse.frame == "refuse (history.py)"


def test_failures_are_filtered(shop: Shop) -> None:
    client = shop.client
    assert [one.count for one in client.list_failures(functions=["history/pay"]).groups] == [2]
    assert client.list_failures(app="other").groups == ()
    assert client.list_failures(statuses=[RunStatus.CANCELLED, RunStatus.SKIPPED]).groups == ()
    assert client.list_failures(since=client.server_info().now + timedelta(hours=1)).groups == ()
    first = client.list_failures(page_size=1)
    assert len(first.groups) == 1
    assert first.scanned_to is not None
    rest = client.list_failures(page_token=first.next_page_token)
    assert sum(one.count for one in (*first.groups, *rest.groups)) == 5


BAD: list[tuple[dict[str, Any], str]] = [
    ({"functions": ["history/unknown"]}, "FUNCTION_NOT_FOUND"),
    ({"statuses": [RunStatus.COMPLETED]}, "BAD_STATUS"),
    ({"statuses": [RunStatus.UNKNOWN]}, "BAD_STATUS"),
    ({"page_token": "run_x"}, "BAD_PAGE_TOKEN"),
    ({"page_size": 1_001}, "BAD_PAGE_SIZE"),
]


@pytest.mark.parametrize(("asked", "reason"), BAD)
def test_failures_that_cannot_be_asked_for_are_refused(shop: Shop, asked: dict[str, Any], reason: str) -> None:
    with pytest.raises(ApiError) as refused:
        shop.client.list_failures(**asked)
    assert refused.value.reason == reason


def test_an_empty_range_of_failures_is_refused(shop: Shop) -> None:
    now = shop.client.server_info().now
    with pytest.raises(ApiError) as refused:
        shop.client.list_failures(since=now, until=now)
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_RANGE")


def test_the_command_shows_failures_and_the_run_to_look_at(shop: Shop) -> None:
    done = shop.command("failures", "--function", "history/pay", "--last", "1h")
    assert done.returncode == 0, done.stderr
    assert "ValueError: amount <n> of order <text> is too much (step charge, in charge (history.py))" in done.stdout
    (run_id,) = [word for word in done.stdout.split() if word.startswith("run_")]
    assert f"stepwell runs get {run_id}" in done.stderr
    assert shop.command("runs", "get", run_id).returncode == 0
    lines = [json.loads(line) for line in shop.command("failures", "-o", "json").stdout.splitlines()]
    assert sorted((line["function_id"], line["count"]) for line in lines) == [("history/pay", 2), ("history/refuse", 3)]
    assert shop.command("failures", "--status", "cancelled").stderr == "none\n"
    assert "1 more groups" in shop.command("failures", "--limit", "1").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["failures", "--function", "a/b"], 3, "FUNCTION_NOT_FOUND"),
        (["failures", "--status", "completed"], 2, "expected one of failed"),
        (["failures", "--last", "soon"], 2, "'soon' is no duration"),
        (["runs", "list", "--filter", "run.status =="], 2, "BAD_EXPRESSION"),
        (["events", "list", "--filter", "nobody.knows"], 2, "BAD_EXPRESSION"),
    ],
)
def test_a_command_that_cannot_be_right_says_why(shop: Shop, arguments: list[str], code: int, text: str) -> None:
    done = shop.command(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def listed(shop: Shop, **filter_: Any) -> list[int]:
    """Which of the paid orders are listed."""
    amounts = {run_id: amount for amount, run_id in shop.runs.items()}
    return sorted(amounts.get(run.id, 0) for run in shop.client.list_runs(**filter_))


def test_runs_are_listed_by_what_they_took_in_and_gave_out(shop: Shop) -> None:
    assert listed(shop, condition="output.paid >= 20") == [20, 30]
    assert listed(shop, condition="event.data.amount > 25") == [30, 150, 250]
    assert listed(shop, condition="event.data.amount > 25 && run.status == 'FAILED'", page_size=1) == [150, 250]
    assert listed(shop, error_type="ValueError") == [150, 250]
    assert listed(shop, error_type="KeyError", function="history/pay") == []
    done = shop.command("runs", "list", "--filter", "output.paid == 30", "-o", "json")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [shop.runs[30]]
    done = shop.command("runs", "list", "--error", "ValueError", "-o", "json")
    assert len(done.stdout.splitlines()) == 2


def test_events_are_listed_by_condition_and_in_both_orders(shop: Shop) -> None:
    def amounts(**filter_: Any) -> list[int]:
        found = shop.client.list_events("order/placed", page_size=2, **filter_)
        return [one.event.data["amount"] for one in found]

    assert amounts(condition="event.data.amount > 25") == [30, 250, 150]
    assert amounts(oldest_first=True) == [10, 150, 20, 250, 30]
    assert amounts(oldest_first=True, condition="event.data.amount < 25") == [10, 20]
    done = shop.command("events", "list", "--filter", "event.data.amount == 30", "-o", "json")
    assert [json.loads(line)["data"] for line in done.stdout.splitlines()] == [{"amount": 30}]
