"""Plays seeds: `python -m tests.simulation --seed N [-v]`, or `--seeds A..B`; `--ablate guard` turns a guard off."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections import Counter

from tests.simulation import coverage
from tests.simulation.ablations import ABLATIONS, turned_off
from tests.simulation.coverage import Edge
from tests.simulation.stories import STORIES
from tests.simulation.world import Options, Report, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--seeds", help="a range A..B, B not included")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell what happens")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure")
    parser.add_argument("--calm", action="store_true", help="without faults")
    parser.add_argument("--story", choices=sorted(STORIES), default="", help="what the seeds are about; they draw it")
    parser.add_argument("--nodes", type=int, default=1, help="servers that share the database, with Redis if several")
    parser.add_argument("--cover", action="store_true", help="fail unless every edge of the state chart was taken")
    parser.add_argument("--ablate", choices=sorted(ABLATIONS), help="turn a guard off until a seed fails by it")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of strings are ordered by it
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-W", "ignore", "-m", "tests.simulation", *sys.argv[1:]])
    first, _, last = (options.seeds or f"{options.seed or 0}..").partition("..")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    if options.ablate:
        return ablate(options.ablate, seeds, options.verbose)
    counts: Counter[str] = Counter()
    edges: Counter[Edge] = Counter()
    failed = 0
    for seed in seeds:
        given = Options(
            story=options.story, verbose=options.verbose, faults={} if options.calm else None, nodes=options.nodes
        )
        report = play(seed, given)
        counts.update(report.counts)
        edges.update(report.edges)
        failed += tell(report, options.verbose, options.calm)
        if failed and not options.keep_going:
            break
    print(dict(counts))
    print(coverage.table(edges))
    missing = coverage.missing(edges) if options.cover else []
    for problem in missing:
        print(problem)
    return 1 if failed or missing else 0


def ablate(name: str, seeds: range, verbose: bool) -> int:
    """Looks for a seed that fails without a guard, and passes with it."""
    ablation = ABLATIONS[name]
    given = dataclasses.replace(ablation.options, verbose=verbose)
    others: Counter[str] = Counter()
    for seed in seeds:
        with turned_off(name):
            report = play(seed, given)
        found = ablation.found(report.problems)
        if found and not play(seed, dataclasses.replace(given, verbose=False)).problems:
            print(f"without {name} seed {seed} fails, the {seed - seeds.start + 1}th: {found[0][:300]}")
            return 0
        others.update(problem[:100] for problem in report.problems)
    print(f"without {name} no seed of {seeds} fails as it should: nothing would notice")
    for problem, count in others.most_common(5):
        print(f"  {count} x {problem}")
    return 1


def tell(report: Report, verbose: bool, calm: bool) -> bool:
    """Prints what came of a seed; True if it failed."""
    if report.problems or verbose:
        print(
            f"seed {report.seed}: {len(report.problems)} problems, trace {report.trace:08x}, {report.turns} turns, "
            f"{report.virtual_s:.0f} virtual s in {report.real_s:.2f} s"
        )
    for problem in report.problems[:10]:
        print(f"  {problem[:1200]}")
    if report.problems:
        print(f"  replay: python -m tests.simulation --seed {report.seed} -v" + (" --calm" if calm else ""))
    return bool(report.problems)


if __name__ == "__main__":
    sys.exit(main())
