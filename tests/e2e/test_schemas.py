"""A wrong shape, or an unknown function, is an error before anything starts: over calls, from steps, and for events."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import grpc
import pytest
from stepwell import RunFailedError
from stepwell.api_errors import ApiError, InvalidArgumentError, NotFoundError
from stepwell.client import Client
from stepwell.event import NewEvent
from stepwell.v1 import event_pb2
from stepwell.values import EventOutcome, RunStatus

from tests.e2e.conftest import APPS, STORES, Databases
from tests.e2e.raw_worker import RawWorker
from tests.support.servers import Server, ended, running

GOOD = {"amount": 5, "currency": "EUR", "items": [{"sku": "a"}]}
WRONG: list[tuple[Any, str]] = [
    ({**GOOD, "amount": "5"}, "input.amount"),
    ({**GOOD, "currency": "GBP"}, "input.currency"),
    ({**GOOD, "items": [{"sku": "a"}, {"sku": 1}]}, "input.items[1].sku"),
    ({"amount": 5}, "input"),
    ([GOOD], "input"),
    (None, "input"),
]


class Place:
    """A server with the app typed.py."""

    def __init__(self, client: Client, address: str) -> None:
        self.client = client
        self.address = address

    def runs_of(self, function: str) -> set[str]:
        return {run.id for run in self.client.list_runs(function=f"typed/{function}")}


@pytest.fixture(scope="module", params=STORES)
def place(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Place]:
    """See Place."""
    folder = tmp_path_factory.mktemp(f"schemas-{request.param}")
    server = Server(databases(request.param, folder), folder)
    with running(server, APPS / "typed.py", EFFECTS=str(folder / "effects")) as (client, _):
        yield Place(client, server.address)


@pytest.mark.parametrize(("input", "field"), WRONG)
def test_an_invoke_of_the_wrong_shape_is_refused(place: Place, input: Any, field: str) -> None:
    before = place.runs_of("charge")
    with pytest.raises(InvalidArgumentError) as refused:
        place.client.start("typed/charge", input)
    assert refused.value.reason == "INPUT_MISMATCH"
    assert [violation.field for violation in refused.value.violations] == [field]
    assert "typed/charge" in refused.value.message
    assert place.runs_of("charge") == before


def test_an_invoke_of_the_right_shape_runs(place: Place) -> None:
    assert place.client.invoke("typed/charge", GOOD) == {"id": "5 EUR"}
    assert place.client.invoke("typed/anything", [1]) == [1]
    assert place.client.invoke("typed/lenient", {"amount": "5"}) == "took it"


def test_an_unknown_function_is_refused(place: Place) -> None:
    with pytest.raises(NotFoundError, match="typed/nobody") as refused:
        place.client.start("typed/nobody", GOOD)
    assert refused.value.reason == "FUNCTION_NOT_FOUND"


@pytest.mark.parametrize(("input", "field"), WRONG)
def test_a_step_that_invokes_with_the_wrong_shape_fails_at_once(place: Place, input: Any, field: str) -> None:
    before = place.runs_of("charge")
    handle = place.client.start("typed/ask", {"function": "typed/charge", "input": input})
    said = handle.result("30s")
    assert (said["reason"], said["final"]) == ("INPUT_MISMATCH", True)
    assert said["message"].startswith(f"{field} does not fit")
    assert place.runs_of("charge") == before
    assert [entry.attempt for entry in place.client.journal(handle.run_id)] == [1], "nothing was tried again"


def test_a_step_that_invokes_an_unknown_function_fails_at_once(place: Place) -> None:
    said = place.client.invoke("typed/ask", {"function": "typed/nobody", "input": GOOD})
    assert (said["reason"], said["final"]) == ("FUNCTION_NOT_FOUND", True)


def test_a_step_that_invokes_with_the_right_shape_gets_the_output(place: Place) -> None:
    assert place.client.invoke("typed/ask", {"function": "typed/charge", "input": GOOD}) == {"id": "5 EUR"}


def test_where_nobody_catches_it_the_run_fails_at_once(place: Place) -> None:
    handle = place.client.start("typed/uncaught", {"amount": "5"})
    run = ended(place.client, handle.run_id)
    assert run.status is RunStatus.FAILED
    assert run.failure is not None
    assert "INPUT_MISMATCH" in str(run.failure)
    with pytest.raises(RunFailedError):
        handle.result("5s")


def test_events_that_do_not_fit_are_refused_one_by_one(place: Place) -> None:
    statuses = place.client.send_many(
        [
            NewEvent("typed/charge", GOOD),
            NewEvent("typed/charge", {**GOOD, "amount": "5"}),
            NewEvent("typed/anything", {"amount": "5"}),
            NewEvent("nobody/listens", {"amount": "5"}),
            NewEvent("typed/charge", {**GOOD, "items": [{}]}, id="own"),
            NewEvent("typed/charge", GOOD),
        ]
    )
    accepted, refused = EventOutcome.ACCEPTED, EventOutcome.REFUSED
    assert [one.outcome for one in statuses] == [accepted, refused, accepted, accepted, refused, accepted]
    assert [one.reason for one in statuses if one.outcome is refused] == ["EVENT_MISMATCH"] * 2
    assert "data.amount" in statuses[1].message
    assert "data.items[0]" in statuses[4].message
    assert statuses[1].event_id == ""
    assert len(place.client.get_event(statuses[0].event_id).run_ids) == 2


def test_a_batch_with_a_refused_event_is_answered_again(place: Place) -> None:
    request = event_pb2.SendEventsRequest(request_id="again")
    for amount in ("5", 5, "5"):
        data = json.dumps({**GOOD, "amount": amount}).encode()
        request.events.add(name="typed/charge", data={"data": data})
    first, again = (place.client.call(lambda stubs: stubs.events.SendEvents, request).statuses for _ in range(2))
    of = event_pb2.EventStatus
    assert [one.outcome for one in first] == [of.OUTCOME_REFUSED, of.OUTCOME_ACCEPTED, of.OUTCOME_REFUSED]
    assert [one.outcome for one in again] == [of.OUTCOME_REFUSED, of.OUTCOME_DUPLICATE, of.OUTCOME_REFUSED]
    assert first[1].event_id == again[1].event_id


def test_an_event_is_judged_only_by_triggers_that_it_fits(place: Place) -> None:
    place.client.send("typed/maybe", {"kind": "other", "amount": "5"})
    with pytest.raises(ApiError) as refused:
        place.client.send("typed/maybe", {"kind": "charge", "amount": "5"})
    assert refused.value.reason == "EVENT_MISMATCH"


def test_a_step_that_sends_the_wrong_shape_fails_at_once(place: Place) -> None:
    said = place.client.invoke("typed/tell", {**GOOD, "amount": "5"})
    assert said["reason"] == "EVENT_MISMATCH"
    assert "data.amount" in said["message"]
    assert place.client.invoke("typed/tell", GOOD) == "sent"


def test_schemas_are_shown(place: Place) -> None:
    info = place.client.get_function("typed/charge")
    assert info.input_schema["properties"]["amount"] == {"type": "integer"}
    assert info.output_schema["required"] == ["id"]
    assert place.client.get_function("typed/anything").input_schema is None
    command = [sys.executable, "-m", "stepwell", "functions", "get", "typed/charge", "--address", place.address]
    shown = json.loads(subprocess.run([*command, "-o", "json"], capture_output=True, check=True, timeout=60).stdout)
    assert shown["spec"]["input_schema"] == info.input_schema
    assert shown["spec"]["triggers"][0]["schema"] == info.input_schema
    plain = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stdout
    assert '"amount":{"type":"integer"}' in plain


def test_the_schemas_are_those_of_the_current_deployment(place: Place) -> None:
    def spec(kind: str) -> list[dict[str, Any]]:
        return [{"name": "f", "input_schema": json.dumps({"type": kind}).encode()}]

    with RawWorker(place.address, "moving") as old:
        old.hello(functions=spec("string"), deployment="one")
        place.client.start("moving/f", "text")
        with RawWorker(place.address, "moving") as new:
            new.hello(functions=spec("integer"), deployment="two")
            place.client.start("moving/f", 1)
            with pytest.raises(ApiError) as refused:
                place.client.start("moving/f", "text")
            assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_schemas_outlive_the_server(databases: Databases, tmp_path: Path) -> None:
    server = Server(databases("sqlite", tmp_path), tmp_path)
    with running(server, APPS / "typed.py", EFFECTS=str(tmp_path / "effects")) as (client, worker):
        worker.kill()
        server.kill()
        server.start()
        with pytest.raises(ApiError) as refused:
            client.start("typed/charge", {})
        assert refused.value.reason == "INPUT_MISMATCH"
