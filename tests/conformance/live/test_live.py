"""Every live scenario with the worker of every language; and runs that go from one language's worker to the next."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from stepwell.client import Client

from tests.conformance.live.languages import LANGUAGES, command
from tests.conformance.live.play import Play
from tests.conformance.live.relay import Relay
from tests.conformance.live.scenario import Scenario, load
from tests.conformance.table import told
from tests.support.databases import Databases
from tests.support.servers import Server, Worker

SCENARIOS = load()
SLICE = 6  # every sixth scenario also runs on Postgres
MODES = {
    "plain": SCENARIOS,
    "evicted": SCENARIOS,
    "losing": [one for one in SCENARIOS if one.opens],
    "postgres": SCENARIOS[::SLICE],
}
"""What is played how. evicted: the worker keeps no parked run. losing: acknowledgements are lost."""
ORDERS = list(itertools.permutations(LANGUAGES))
HANDED_OVER = [one for one in SCENARIOS if one.hands_over]
KEPT = 1000

Recorder = Callable[[str, object], None]


@dataclass(frozen=True, slots=True)
class World:
    """A server with a worker."""

    client: Client
    folder: Path
    relay: Relay | None = None

    def play(self, scenario: Scenario, *, hands_over: bool = False) -> Play:
        """A scenario, not begun yet."""
        return Play(scenario, self.client, self.folder, self.relay, hands_over=hands_over)


def worker(server: Server, language: str, max_parked: int = KEPT, **variables: str) -> Worker:
    """A worker in a language, not started yet."""
    variables |= {"CONFORMANCE": str(server.directory), "MAX_PARKED": str(max_parked)}
    made = server.worker(Path(), language, **variables)
    made.command = [str(part) for part in command(language)]
    return made


class Worlds:
    """The server and the worker of the language and mode that are played; the next one closes those before."""

    def __init__(self, databases: Databases, folders: pytest.TempPathFactory) -> None:
        self._databases = databases
        self._folders = folders
        self._open: tuple[tuple[str, str], World, ExitStack] | None = None

    def of(self, language: str, mode: str) -> World:
        """The world of a language and a mode."""
        if self._open is None or self._open[0] != (language, mode):
            self.close()
            with ExitStack() as stack:
                world = self._make(language, mode, stack)
                self._open = (language, mode), world, stack.pop_all()
        return self._open[1]

    def _make(self, language: str, mode: str, stack: ExitStack) -> World:
        command(language)
        folder = self._folders.mktemp(f"{language}-{mode}")
        database = self._databases("postgres" if mode == "postgres" else "sqlite", folder)
        server = stack.enter_context(Server(database, folder))
        relay = stack.enter_context(Relay(server.address)) if mode == "losing" else None
        variables = {"STEPWELL_ADDRESS": relay.address} if relay else {}
        client = server.client()
        made = worker(server, language, 0 if mode == "evicted" else KEPT, **variables)
        stack.enter_context(made).connected(client)
        return World(client, folder, relay)

    def close(self) -> None:
        """Ends the processes."""
        if self._open:
            self._open[2].close()
            self._open = None


@pytest.fixture(scope="module")
def worlds(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[Worlds]:
    """See Worlds."""
    made = Worlds(databases, tmp_path_factory)
    yield made
    made.close()


PLAYED = [(language, mode, one) for language in LANGUAGES for mode in MODES for one in MODES[mode]]


@pytest.mark.parametrize(
    ("language", "mode", "scenario"),
    PLAYED,
    ids=[f"{language}-{mode}-{one.file}: {one.name}" for language, mode, one in PLAYED],
)
def test_scenario(worlds: Worlds, language: str, mode: str, scenario: Scenario, record_property: Recorder) -> None:
    told(record_property, f"live, {mode}", f"{scenario.file}: {scenario.name}", language)
    play = worlds.of(language, mode).play(scenario)
    play.begin()
    play.go_on()
    play.check()
    if mode == "evicted" and scenario.parks:
        assert play.turn() > 1, "its code was not run again"


@dataclass(frozen=True, slots=True)
class Relayed:
    """How runs fared that went from worker to worker: by the name of their scenario, nothing or what was wrong."""

    languages: tuple[str, ...]
    wrong: dict[str, BaseException | None]


@pytest.fixture(scope="module")
def handed_over(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Relayed:
    """All scenarios that may be handed over, played together: at each hand-over one worker is killed for all."""
    languages: tuple[str, ...] = request.param
    for language in languages:
        command(language)
    wrong: dict[str, BaseException | None] = {}
    # Apart: a clock does not advance past a body that executes.
    for held in (True, False):
        folder = tmp_path_factory.mktemp("-".join(languages))
        some = [one for one in HANDED_OVER if one.opens is held]
        with Server(databases("sqlite", folder), folder).tuned(stream_grace_ms=100) as server:
            wrong |= dict(_relay(server, languages, some))
    return Relayed(languages, wrong)


def _relay(
    server: Server, languages: tuple[str, ...], scenarios: list[Scenario]
) -> Generator[tuple[str, BaseException | None]]:
    world = World(server.client(), server.directory)
    left = {one.name: world.play(one, hands_over=True) for one in scenarios}
    for turn, language in enumerate(itertools.cycle(languages)):
        with worker(server, language) as made:
            made.connected(world.client)
            for name, play in list(left.items()):
                try:
                    if turn == 0:
                        play.begin()
                    if play.go_on():
                        continue
                    play.check()
                    assert play.turn() > 1, f"{name}: nobody took it over"
                    yield name, None
                except AssertionError as error:
                    yield name, error
                del left[name]
        if not left:
            return


@pytest.mark.parametrize("handed_over", ORDERS, ids=[" then ".join(order) for order in ORDERS], indirect=True)
@pytest.mark.parametrize("scenario", HANDED_OVER, ids=[f"{one.file}: {one.name}" for one in HANDED_OVER])
def test_taken_over_by_other_languages(handed_over: Relayed, scenario: Scenario, record_property: Recorder) -> None:
    """The worker that began a run is killed; one in another language finishes it, as if it had been its own."""
    first, *others = handed_over.languages
    told(record_property, f"live, handed over to {' and '.join(others)}", f"{scenario.file}: {scenario.name}", first)
    if wrong := handed_over.wrong[scenario.name]:
        raise wrong


def test_there_are_enough() -> None:
    names = [one.name for one in SCENARIOS]
    assert len(names) == len(set(names)) >= 50
    assert min(len(MODES["losing"]), len(HANDED_OVER)) >= 5
