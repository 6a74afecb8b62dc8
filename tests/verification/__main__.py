"""`python -m tests.verification --seed N --programs M --store sqlite|postgres`: random programs under kills."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.support.postgres import PostgresServer
from tests.verification.runner import Options, progress, verify


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.verification", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--store", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--programs", type=int, default=Options.programs, help="functions that events start")
    parser.add_argument("--runs", type=int, default=Options.runs, help="events and invokes that start them")
    parser.add_argument("--seconds", type=float, default=Options.seconds, help="how long things go wrong")
    parser.add_argument("--workers", type=int, default=Options.workers, help="worker processes")
    parser.add_argument("--standby", action="store_true", help="two servers, one of which takes over (Postgres)")
    parser.add_argument("--keep", action="store_true", help="keep the folders of seeds that fail")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, too
    stores = ("sqlite", "postgres") if given.store == "both" else (given.store,)
    if given.standby:
        stores = ("postgres",)  # a SQLite file is one process's own
    failed = 0
    with ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="stepwell-verify-"))
        base.chmod(0o755)
        stack.callback(lambda: (given.keep and failed) or shutil.rmtree(base, ignore_errors=True))
        postgres = stack.enter_context(PostgresServer(base / "postgres")) if "postgres" in stores else None
        for seed in range(given.seed, given.seed + given.seeds):
            for store in stores:
                folder = base / f"{store}-{seed}"
                folder.mkdir()
                options = Options(
                    seed, store, given.programs, given.runs, given.seconds, given.workers, standby=given.standby
                )
                report = verify(options, folder, postgres if store == "postgres" else None, progress)
                progress("")
                print(report.told + (": FAILED" if report.problems else ": ok"), flush=True)
                for problem in report.problems[:20]:
                    print(f"  {problem[:1500]}")
                if report.problems:
                    failed += 1
                    again = f"--seed {seed} --programs {given.programs} --store {store}"
                    print(f"  again: make verify ARGS='{again}{' --standby' if given.standby else ''}'")
                    print(f"  its folder: {folder}" if given.keep else "", flush=True)
                else:
                    shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
