"""Every Python example of the guide does what its hidden comment says, on a real server with a real worker.

The comment follows the block, one line each:

    send EVENT JSON        sends an event; the lines below are about the run it starts
    follow FUNCTION        … about this one of its runs
    send-also EVENT JSON   sends an event; the lines below stay with their run
    invoke FUNCTION JSON   starts a run
    parked                 waits until it is parked
    advance DURATION       moves the server's clock
    cancel                 asks for its end
    edit OLD => NEW        stops the worker, changes its file, starts it again
    output JSON            the run completes with this
    status STATUS          the run gets there
    failure TYPE TEXT      its failure is of this type and holds the text
    keys KEY …             its journal holds these outcomes
    prints LINE            the block is a script that prints this line
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest
from stepwell.client import Client
from stepwell.values import Run, RunStatus

from tests.support.servers import ROOT, Process, Server, environment, until

GUIDE = ROOT / "docs" / "guide.md"
SCRIPT_S = 60
_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:<!-- example\n(?P<orders>.*?)-->)?", re.M | re.S)
_TAIL = '\nif __name__ == "__main__":\n    app.run()\n'


class Example(NamedTuple):
    """A block of the guide and what shall happen with it."""

    title: str
    code: str
    orders: list[str]


def _examples() -> list[Example]:
    text = GUIDE.read_text()
    found: list[Example] = []
    for match in _BLOCK.finditer(text):
        heading = re.findall(r"^## (.*)$", text[: match.start()], re.M)
        orders = (match["orders"] or "").splitlines()
        found.append(Example(heading[-1] if heading else "Introduction", match["code"], orders))
    return found


EXAMPLES = _examples()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    with Server("memory:", tmp_path_factory.mktemp("guide")) as running:
        yield running


class Play:
    """Carries out the lines of one example."""

    def __init__(self, server: Server, directory: Path, code: str) -> None:
        self.client: Client = server.client()
        self.app = match[1] if (match := re.search(r'App\("(.*?)"\)', code)) else ""
        self.file = directory / "app.py"
        self.file.write_text(code if "app.run()" in code else code + _TAIL)
        variables = environment(STEPWELL_ADDRESS=server.address)
        self.worker = Process([sys.executable, self.file], directory / "worker.log", cwd=directory, env=variables)
        self.run_id = ""
        self.run_ids: tuple[str, ...] = ()

    def start(self) -> None:
        self.worker.start()
        pid = f":{self.worker.pid}"

        def connected() -> bool:
            assert self.worker.running, self.worker.text()
            return any(one.app == self.app and one.instance.endswith(pid) for one in self.client.workers())

        until(connected, f"a worker of {self.app} connects")

    def do(self, order: str) -> None:
        verb, _, rest = order.strip().partition(" ")
        getattr(self, "do_" + verb.replace("-", "_"))(rest)

    def do_send(self, rest: str) -> None:
        name, _, data = rest.partition(" ")
        event_id = self.client.send(name, json.loads(data))
        self.run_ids = until(lambda: self.client.get_event(event_id).run_ids, f"{name} starts a run")
        self.run_id = self.run_ids[0]

    def do_send_also(self, rest: str) -> None:
        name, _, data = rest.partition(" ")
        self.client.send(name, json.loads(data))

    def do_follow(self, function: str) -> None:
        (self.run_id,) = [one for one in self.run_ids if self._run(one).function_id == f"{self.app}/{function}"]

    def do_invoke(self, rest: str) -> None:
        name, _, data = rest.partition(" ")
        self.run_id = self.client.start(f"{self.app}/{name}", json.loads(data)).run_id

    def do_parked(self, _: str) -> None:
        self._reached(RunStatus.PARKED)

    def do_advance(self, duration: str) -> None:
        assert self.client.advance_clock(duration).complete

    def do_cancel(self, _: str) -> None:
        self.client.cancel_run(self.run_id, "the guide says so")

    def do_edit(self, rest: str) -> None:
        old, _, new = rest.partition(" => ")
        code = self.file.read_text()
        assert code.count(old) == 1, old
        self.worker.stop()
        self.file.write_text(code.replace(old, new))
        self.start()

    def do_output(self, text: str) -> None:
        assert self._reached(RunStatus.COMPLETED).output == json.loads(text)

    def do_status(self, name: str) -> None:
        self._reached(RunStatus[name])

    def do_failure(self, rest: str) -> None:
        kind, _, text = rest.partition(" ")
        failure = self._run(self.run_id).failure
        assert failure is not None
        assert failure.type == kind
        assert text in failure.message

    def do_keys(self, rest: str) -> None:
        assert [entry.key for entry in self.client.journal(self.run_id)] == rest.split()

    def _run(self, run_id: str) -> Run:
        return self.client.get_run(run_id)

    def _reached(self, status: RunStatus) -> Run:
        def look() -> Run | None:
            run = self._run(self.run_id)
            assert run.status is status or not run.status.ended, f"{run}\n{self.worker.text()}"
            return run if run.status is status else None

        try:
            found = until(look, f"the run is {status.value}", 15)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._run(self.run_id)}\n{self.worker.text()}") from None
        assert found is not None
        return found


_APPS = [example for example in EXAMPLES if example.orders and not example.orders[0].startswith("prints")]
_SCRIPTS = [example for example in EXAMPLES if example.orders and example.orders[0].startswith("prints")]


@pytest.mark.parametrize("example", _APPS, ids=lambda example: example.title)
def test_an_example_does_what_it_says(server: Server, tmp_path: Path, example: Example) -> None:
    play = Play(server, tmp_path, example.code)
    play.start()
    try:
        for order in example.orders:
            play.do(order)
    finally:
        play.worker.kill()


@pytest.mark.parametrize("example", _SCRIPTS, ids=lambda example: example.title)
def test_a_script_prints_what_it_says(server: Server, tmp_path: Path, example: Example) -> None:
    file = tmp_path / "script.py"
    file.write_text(example.code)
    variables = environment(STEPWELL_ADDRESS=server.address)
    done = subprocess.run(
        [sys.executable, file],
        capture_output=True,
        text=True,
        check=False,
        timeout=SCRIPT_S,
        env=variables,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [order.removeprefix("prints ") for order in example.orders]


def test_only_the_tail_is_not_run() -> None:
    assert [example.title for example in EXAMPLES if not example.orders] == ["Introduction"]


def test_the_commands_exist() -> None:
    from stepwell_server.cli.app import build
    from typer.main import get_command

    lines = re.findall(r"^\$ stepwell (.*)$", GUIDE.read_text(), re.M)
    assert lines
    for line in lines:
        command = get_command(build())
        words = shlex.split(line, comments=True)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]  # pyright: ignore[reportAttributeAccessIssue]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line
