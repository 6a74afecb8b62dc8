"""Calls between Go and TypeScript, without Python between them: what each says of its types the other is held to."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import pytest
from stepwell.api_errors import InvalidArgumentError
from stepwell.client import Client
from stepwell.event import NewEvent

from tests.support.languages import MISSING, go_program, typescript_program
from tests.support.servers import Process, Server, environment, until


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Generator[Client]:
    """A server with the app stock in Go and the app typed in TypeScript."""
    if why := [said for name in ("go", "typescript") if (said := MISSING[name]())]:
        assert os.environ.get("CI") != "true", why
        pytest.skip("; ".join(why))
    folder = tmp_path_factory.mktemp("languages")
    commands = {"stock": go_program("internal/typed"), "typed": typescript_program("test/e2e/apps/typed")}
    with ExitStack() as stack:
        server = stack.enter_context(Server(f"sqlite:///{folder}/stepwell.db", folder))
        client = server.client()
        env = environment(STEPWELL_ADDRESS=server.address)
        for name, command in commands.items():
            stack.enter_context(Process(list(command), folder / f"{name}.log", cwd=folder, env=env))
        served = {"stock/reserve", "stock/ask", "typed/ship", "typed/ask"}
        until(lambda: served <= {one.id for one in client.functions() if one.workers}, "all functions are served")
        yield client


@pytest.mark.parametrize(
    ("asker", "target", "input", "answer"),
    [
        ("stock/ask", "typed/ship", {"id": "a", "parcels": 2}, "shipped 2 of a"),
        ("stock/ask", "typed/ship", {"id": "a", "parcels": 2.5}, "INPUT_MISMATCH: input.parcels does not fit"),
        ("stock/ask", "typed/ship", {"id": "a"}, "INPUT_MISMATCH: input does not fit"),
        ("stock/ask", "typed/ship", None, "INPUT_MISMATCH: input does not fit"),
        ("stock/ask", "typed/nobody", {}, "FUNCTION_NOT_FOUND: "),
        ("typed/ask", "stock/reserve", {"item": "lamp", "pieces": 3}, "reserved 3 of lamp"),
        ("typed/ask", "stock/reserve", {"item": "lamp", "pieces": "3"}, "INPUT_MISMATCH: input.pieces does not fit"),
        ("typed/ask", "stock/reserve", {"item": "lamp"}, "INPUT_MISMATCH: input does not fit"),
        ("typed/ask", "stock/reserve", None, "INPUT_MISMATCH: input does not fit"),
        ("typed/ask", "stock/nobody", {}, "FUNCTION_NOT_FOUND: "),
    ],
)
def test_a_call_between_go_and_typescript_is_held_to_the_shape_of_its_target(
    client: Client, asker: str, target: str, input: Any, answer: str
) -> None:
    def runs() -> set[str]:
        return {run.id for run in client.list_runs(function=target)}

    before = runs()
    said = client.invoke(asker, {"function": target, "input": input})
    assert said.startswith(answer)
    assert len(runs() - before) == (0 if ": " in answer else 1), "what does not fit starts nothing"


def test_what_both_take_is_refused_in_one_form(client: Client) -> None:
    wrong = {
        "typed/ship": ({"id": "a", "parcels": "2"}, "input.parcels"),
        "stock/reserve": ({"item": 1, "pieces": 1}, "input.item"),
    }
    for target, (input, field) in wrong.items():
        with pytest.raises(InvalidArgumentError) as refused:
            client.start(target, input)
        assert refused.value.reason == "INPUT_MISMATCH"
        assert [violation.field for violation in refused.value.violations] == [field]
    statuses = client.send_many(
        [
            NewEvent("ship/asked", {"id": "a", "parcels": "1"}),
            NewEvent("reserve/asked", {"item": "lamp", "pieces": "1"}),
            NewEvent("reserve/asked", {"item": "lamp", "pieces": 1}),
        ]
    )
    assert [one.reason for one in statuses] == ["EVENT_MISMATCH", "EVENT_MISMATCH", ""]
