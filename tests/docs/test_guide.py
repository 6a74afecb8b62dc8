"""Every example of the guide does what its hidden comment says, in each language, on a real server with a real worker.

The comment follows the blocks, one line each; `LANGUAGE: ` before a line makes it one for that language alone:

    send EVENT JSON        sends an event; the lines below are about the run it starts
    follow FUNCTION        … about this one of its runs
    send-also EVENT JSON   sends an event; the lines below stay with their run
    invoke FUNCTION JSON   starts a run
    parked                 waits until it is parked
    advance DURATION       moves the server's clock
    cancel                 asks for its end
    edit OLD => NEW        stops the worker, changes its code, starts it again
    output JSON            the run completes with this
    status STATUS          the run gets there
    failure TYPE TEXT      its failure is of this type and holds the text
    keys KEY …             its journal holds these outcomes
    prints LINE            the block is a script that prints this line
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import NamedTuple

import pytest
from stepwell.client import Client
from stepwell.values import Run, RunStatus

from tests.support.examples import Commands, Example, build, read
from tests.support.languages import MISSING
from tests.support.servers import ROOT, Process, Server, environment, until

GUIDE = ROOT / "docs" / "guide.md"
SCRIPT_S = 60
EXAMPLES = read(GUIDE)
PYTHON_ONLY = ["Introduction", "Plain functions"]
pytestmark = pytest.mark.timeout(300)  # a first build in Go compiles gRPC


class Place(NamedTuple):
    """Where the examples of a language run. Each has a server of its own: their apps have the same names."""

    language: str
    server: Server
    commands: Commands


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Generator[Callable[[str], Place]]:
    """The place of a language, which is made when it is first asked for."""
    with ExitStack() as stack:

        @functools.cache
        def place(language: str) -> Place:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix=f"stepwell-{language}-")))
            commands = build(language, EXAMPLES, folder)
            server = stack.enter_context(Server("memory:", tmp_path_factory.mktemp("server")))
            return Place(language, server, commands)

        yield place


@pytest.fixture
def place(places: Callable[[str], Place], language: str) -> Place:
    if why := MISSING[language]():
        assert os.environ.get("CI") != "true", why
        pytest.skip(why)
    return places(language)


class Play:
    """Carries out the lines of one example."""

    def __init__(self, place: Place, example: Example, directory: Path) -> None:
        self.client: Client = place.server.client()
        self.language = place.language
        self.example = example
        self.app = example.app
        self.directory = directory
        variables = environment(STEPWELL_ADDRESS=place.server.address)
        command = place.commands[example.number]
        self.worker = Process(command, directory / "worker.log", cwd=directory, env=variables)
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
        code = self.example.code[self.language]
        assert code.count(old) == 1, old
        self.example = self.example._replace(code={**self.example.code, self.language: code.replace(old, new)})
        folder = Path(mkdtemp(dir=self.directory))
        self.worker.stop()
        self.worker.command = build(self.language, [self.example], folder)[self.example.number]
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


def _cases(*, scripts: bool) -> list[object]:
    return [
        pytest.param(language, example, id=f"{language}: {example.title}")
        for language in MISSING
        for example in EXAMPLES
        if language in example.code and example.orders and example.is_script == scripts
    ]


@pytest.mark.parametrize(("language", "example"), _cases(scripts=False))
def test_an_example_does_what_it_says(place: Place, example: Example, tmp_path: Path) -> None:
    play = Play(place, example, tmp_path)
    play.start()
    try:
        for order in example.orders_in(place.language):
            play.do(order)
    finally:
        play.worker.kill()


@pytest.mark.parametrize(("language", "example"), _cases(scripts=True))
def test_a_script_prints_what_it_says(place: Place, example: Example, tmp_path: Path) -> None:
    done = subprocess.run(
        place.commands[example.number],
        capture_output=True,
        text=True,
        check=False,
        timeout=SCRIPT_S,
        env=environment(STEPWELL_ADDRESS=place.server.address),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [order.removeprefix("prints ") for order in example.orders_in(place.language)]


def test_only_the_tail_is_not_run() -> None:
    assert [example.title for example in EXAMPLES if not example.orders] == ["Introduction"]


def test_every_example_stands_in_all_languages() -> None:
    lacking = [example.title for example in EXAMPLES if example.code.keys() != MISSING.keys()]
    assert lacking == PYTHON_ONLY


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
