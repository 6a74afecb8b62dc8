"""Random Commits: every store agrees with the memory store, step by step (a bounded slice; see run.py for more)."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.model.lockstep import Lockstep
from tests.support.stores import OpenStore, open_store, store_or_skip

SEEDS = [int(os.environ["STEPWELL_SEED"])] if "STEPWELL_SEED" in os.environ else list(range(1, 7))
STEPS = 60


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_a_store_stays_in_lockstep_with_the_memory_store(name: str, seed: int, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(store_or_skip(name, tmp_path))
        oracle = await stack.enter_async_context(open_store("memory", tmp_path))
        await Lockstep(seed, [oracle, other]).run(STEPS)


DECIDERS = ("DedupRow", "Move", "Take", "End", "OutcomeRow", "ClaimRow", "SessionWrite", "LeaseWrite")


async def test_the_seeds_reach_every_verdict_of_every_decider(tmp_path: Path) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for seed in range(1, 7):
        async with open_store("memory", tmp_path) as oracle:
            run = Lockstep(seed, [oracle])
            await run.run(STEPS)
            seen += run.seen
    wanted = {(decider, verdict) for decider in DECIDERS for verdict in ("APPLIED", "LOST", "FENCED")}
    assert wanted <= set(seen), f"never seen: {sorted(wanted - set(seen))}"
    assert seen["NoneType", "REFUSED"] > 0


async def test_a_seed_gives_the_same_run_twice(tmp_path: Path) -> None:
    dumps: list[object] = []
    for _ in range(2):
        async with open_store("memory", tmp_path) as oracle:
            await Lockstep(3, [oracle]).run(STEPS)
            dumps.append(await _dump(oracle))
    assert dumps[0] == dumps[1]


async def _dump(opened: OpenStore) -> object:
    return await opened.dump()
