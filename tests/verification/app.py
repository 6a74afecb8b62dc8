"""A worker process of the verification: the programs of a seed, whose bodies write the ledger."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from stepwell.reentry import Reentry

from tests.support import apps
from tests.support.programs import COUNTERS, Effect, Generator, Program
from tests.verification.ledger import Ledger

APP = "verify"


def programs_of(seed: int, count: int) -> list[Program]:
    """The programs of a seed."""
    return Generator(random.Random(f"programs {seed}"), COUNTERS).suite(count)


class Witness:
    """Implements apps.World by the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def body_began(self, run_id: str, key: str, attempt: int) -> None:
        self._ledger.note("began", run_id, key, attempt)

    def effect(self, run_id: str, key: str, token: str, effect: Effect) -> None:
        self._ledger.note("effect", run_id, key, token, *effect)

    def kill(self) -> None:
        raise AssertionError("programs of the verification kill nobody")

    def watch_acknowledgements(self) -> None:
        """Notes what this worker is told to be durable."""
        acknowledge = Reentry.ack

        def ack(reentry: Reentry, number: int) -> None:
            for run_id, key in apps.covered(reentry, number):
                self._ledger.note("acked", run_id, key)
            acknowledge(reentry, number)

        Reentry.ack = ack


def main() -> None:
    """Serves until told to stop."""
    given: dict[str, Any] = json.loads(os.environ["VERIFICATION"])
    witness = Witness(Ledger(Path(given["ledger"])))
    witness.watch_acknowledgements()
    app = apps.build(APP, programs_of(given["seed"], given["programs"]), witness)
    instance = f"{os.environ['WORKER_INSTANCE']}:{os.getpid()}"
    app.run(
        instance=instance, deployment="one", capacity=given["capacity"], max_parked=given["max_parked"], drain_s=2.0
    )


if __name__ == "__main__":
    main()
