"""More seeds than CI has time for: `python -m tests.model.run --seeds 200`; a difference names its seed."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from tests.model.lockstep import Lockstep
from tests.support.stores import NAMES, open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first one")
    parser.add_argument("--steps", type=int, default=80, help="batches a seed")
    parser.add_argument("--stores", default=",".join(NAMES), help="the oracle and those held against it")
    asyncio.run(run(parser.parse_args()))


async def run(options: argparse.Namespace) -> None:
    names: list[str] = options.stores.split(",")
    seen: Counter[tuple[str, str]] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lockstep-") as directory:
        for seed in range(options.first, options.first + options.seeds):
            async with AsyncExitStack() as stack:
                stores = [await stack.enter_async_context(open_store(name, Path(directory))) for name in names]
                lockstep = Lockstep(seed, stores)
                await lockstep.run(options.steps)
                seen += lockstep.seen
    print(f"{options.seeds} seeds × {options.steps} batches on {', '.join(names)}: {time.monotonic() - started:.0f} s")
    for (decider, verdict), count in sorted(seen.items()):
        print(f"  {decider:<14} {verdict:<8} {count}")


if __name__ == "__main__":
    main()
