"""Several stores given the same batches; after each, verdicts, tables and reads must be those of the memory store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.limits import DAY_MS
from stepwell_server.model.run import RunStatus
from stepwell_server.ports.store import Probe, RunFilter, RunState, Unseen

from tests.model.generator import Generator, spoiled
from tests.model.pools import CLAIMS, ENVS, EVENT_NAMES, EVENTS, FUNCTIONS, KEYS, LINES, MATCH_KEYS, NOW, RUNS
from tests.support.stores import FullStore, OpenStore

_ALL = 10_000


class Lockstep:
    """One seed on several stores, the oracle first. seen: how often each decider had each verdict."""

    def __init__(self, seed: int, stores: Sequence[OpenStore]) -> None:
        assert stores[0].name == "memory", "the oracle comes first"
        self.seed = seed
        self.seen: Counter[tuple[str, str]] = Counter()
        self._stores = stores
        self._generator = Generator(seed)
        self._reading = Random(f"reads {seed}")
        self._arrived: dict[tuple[str, str, str], int] = {}
        self._versions = {opened.name: dict.fromkeys(ENVS, 0) for opened in stores}
        self._step = 0

    async def run(self, steps: int) -> None:
        """Raises AssertionError at the first difference."""
        for self._step in range(1, steps + 1):
            batch = self._generator.batch()
            await self._commit(batch)
            await self._compare("tables", batch, [await opened.dump() for opened in self._stores])
            await self._note_arrivals()
            seed = self._reading.random()
            await self._compare("reads", batch, [await self._read(opened, Random(seed)) for opened in self._stores])
            await self._compare("what registered", batch, [await self._raised(opened) for opened in self._stores])

    async def _commit(self, batch: list[Commit]) -> None:
        results = [await opened.store.commit(batch) for opened in self._stores]
        answers = [
            [_answer(commit, result.verdict, result.existing) for commit, result in zip(batch, of_store, strict=True)]
            for of_store in results
        ]
        await self._compare("verdicts", batch, answers)
        for commit, (verdict, _) in zip(batch, answers[0], strict=True):
            self.seen[type(commit.decider).__name__, verdict] += 1

    async def _compare(self, what: str, batch: list[Commit], of_stores: list[Any]) -> None:
        for opened, found in zip(self._stores[1:], of_stores[1:], strict=True):
            assert found == of_stores[0], (
                f"seed {self.seed}, step {self._step}: {what} of {opened.name} differ from the oracle's\n"
                f"{_difference(of_stores[0], found)}\nafter {_shown(batch)}\n"
                f"replay: STEPWELL_SEED={self.seed} python -m pytest tests/model -k lockstep"
            )

    async def _note_arrivals(self) -> None:
        """Remembers in which batch each undelivered outcome arrived; within one batch their order is free."""
        undelivered: set[tuple[str, str, str]] = set()
        for env in ENVS:
            for state in (await self._stores[0].store.load(env, RUNS)).values():
                undelivered |= {row[:3] for row in state.outcomes if row.number is None}
        self._arrived = {place: self._arrived.get(place, self._step) for place in sorted(undelivered)}

    async def _read(self, opened: OpenStore, rng: Random) -> dict[str, Any]:
        """A draw of every read, in a form in which equal answers are equal."""
        store, env = opened.store, rng.choice(ENVS)
        states = await store.load(env, rng.sample(RUNS, 3))
        read = {"load": {id_: self._plain(state) for id_, state in states.items()}}
        return {**read, **await _hot(store, env, rng), **await _history(store, env, rng)}

    def _plain(self, state: RunState) -> tuple[Any, ...]:
        numbered = [row for row in state.outcomes if row.number is not None]
        undelivered = [row for row in state.outcomes if row.number is None]
        arrivals = [self._arrived[row[:3]] for row in undelivered]
        assert arrivals == sorted(arrivals), f"undelivered outcomes out of order: {[row.key for row in undelivered]}"
        assert list(state.outcomes) == [*numbered, *undelivered], "undelivered outcomes come last"
        numbers = [row.number for row in numbered]
        assert numbers == sorted(numbers, key=lambda number: number or 0), "outcomes come by number"
        return state.run, state.event, state.events, sorted(state.outcomes, key=repr), sorted(state.waits, key=repr)

    async def _raised(self, opened: OpenStore) -> dict[str, Any]:
        """Registries; of the version only whether it was raised, for by how much is free."""
        raised: dict[str, Any] = {}
        before = self._versions[opened.name]
        for env in ENVS:
            registry = await opened.store.registry(env)
            raised[env] = registry.version > before[env], set(registry.deployments)
            assert registry.version >= before[env], "a version never goes back"
            created = [row.created_ms for row in registry.deployments]
            assert created == sorted(created), "deployments come oldest first"
            assert (await opened.store.match(env, [])).registry_version == registry.version
            raised[f"{env} shapes"] = set(registry.shapes)
            raised[f"{env} switches"] = registry.switches
            before[env] = registry.version
        return raised


async def _hot(store: FullStore, env: str, rng: Random) -> dict[str, Any]:
    """Reads of the hot path."""
    probes = [Probe(rng.choice(EVENT_NAMES), tuple(rng.sample(MATCH_KEYS, 2))) for _ in range(2)]
    function, line = rng.choice(FUNCTIONS), rng.choice(LINES)
    due = await store.due(NOW + rng.randrange(6), _ALL)
    assert [row.due_ms for row in due] == sorted(row.due_ms for row in due if row.due_ms is not None)
    after = Unseen(env, rng.choice(("", *RUNS)), rng.choice(("", *KEYS)))
    until_ms = NOW + rng.randrange(-1, 6)
    stranded = await store.stranded(_ALL, until_ms, after)
    names = ("cursors", "lookbacks", "inbox", "held")
    few = await store.stranded(2, until_ms, after)
    return {
        "match": sorted((await store.match(env, probes)).waits, key=repr),
        "look back": await store.look_back(
            env, rng.choice(EVENT_NAMES), rng.choice(("", *EVENTS)), rng.choice((1, _ALL))
        ),
        "due": sorted(due, key=repr),
        "ready": await store.ready(env, function, line, _ALL),
        "ready, some lines": await store.ready(env, function, line, rng.choice((1, 2)), rng.choice((2, 9))),
        "sessions": sorted(await store.sessions(env), key=repr),
        "stranded": {name: sorted(getattr(stranded, name), key=repr) for name in names},
        "stranded, cut": {name: len(getattr(few, name)) for name in names},
        "unseen": (stranded.unseen, few.unseen),
        "claims": await store.claims(env, CLAIMS),
        "joined": await store.joined(env, rng.sample(EVENTS, 3)),
        "lease": await store.lease("serve"),
    }


async def _history(store: FullStore, env: str, rng: Random) -> dict[str, Any]:
    """Reads for people; now and then a purge."""
    filter_ = RunFilter(
        function_id=rng.choice(("", "", *FUNCTIONS)),
        app=rng.choice(("", "", "x")),
        statuses=tuple(rng.sample([int(status) for status in RunStatus], rng.choice((0, 0, 1, 4)))),
        event_id=rng.choice(("", "", "", *EVENTS)),
        parent_id=rng.choice(("", "", "", *RUNS)),
        begun=rng.random() < 0.2,
        from_ms=rng.choice((None, None, NOW + 2)),
        until_ms=rng.choice((None, None, NOW + 4)),
        before=rng.choice(("", "", *RUNS)),
        limit=rng.choice((1, 3, _ALL)),
    )
    name, window = rng.choice(("", "*", "user/*", *EVENT_NAMES)), rng.choice(((None, None), (NOW + 1, NOW + 4)))
    return {
        "events": sorted(await store.events(env, rng.sample(EVENTS, 3)), key=repr),
        "list events": await store.list_events(env, name, *window, rng.choice(("", *EVENTS)), rng.choice((2, _ALL))),
        "run": await store.run(env, rng.choice(RUNS)),
        "list runs": (filter_, await store.list_runs(env, filter_)),
        "known functions": sorted(await store.known_functions(env)),
        "setting": await store.setting(rng.choice(("x", "y"))),
        "changes": await store.changes(env, rng.choice(RUNS), rng.randrange(0, 6)),
        "cancel requested": await store.cancel_requested(env, rng.sample(RUNS, 3)),
        "due after": await store.due_after(NOW + rng.randrange(-1, 6)),
        "purged": await store.purge(NOW + rng.choice((1, DAY_MS + 2)), _ALL) if rng.random() < 0.05 else 0,
    }


def _answer(commit: Commit, verdict: Verdict, existing: str) -> tuple[str, str]:
    """A Commit that is bad and would lose as well may be told either: nothing is written."""
    if spoiled(commit):
        assert verdict is not Verdict.APPLIED, f"a bad value was taken: {commit}"
        return "REFUSED", ""
    return verdict.name, existing


def _difference(expected: Any, found: Any) -> str:
    if isinstance(expected, dict):
        parts = [f"{key}: {_difference(expected[key], found[key])}" for key in expected if expected[key] != found[key]]
        return "\n".join(parts)
    if isinstance(expected, list):
        missing, added = [row for row in expected if row not in found], [row for row in found if row not in expected]
        if missing or added:
            return f"only the oracle has {missing}; only the other has {added}"
    return f"{expected} != {found}"


def _shown(batch: list[Commit]) -> str:
    return "\n  ".join(["batch:", *map(repr, batch)])
