"""The command `stepwell` whose server is killed -9 once an order to cancel a child is durable, and nothing else yet.

The first argument is a file that is made by then: a server that finds it lives on. The second are its times, as JSON.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwell_server.adapters.sql import PostgresStore, SqliteStore
from stepwell_server.model.commit import Commit, CommitResult
from stepwell_server.model.journal import ASK_KEY
from stepwell_server.model.session import Fence

marker = Path(sys.argv.pop(1))


def die() -> None:
    """Once."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def deadly(store: type[Any]) -> None:
    """Commits of this store may be the last."""
    inner = store.commit

    async def commit(self: Any, commits: Sequence[Commit], owner: Fence | None = None) -> list[CommitResult]:
        results: list[CommitResult] = await inner(self, commits, owner)
        if any(wait.key == ASK_KEY for one in commits for wait in one.waits):
            die()
        return results

    store.commit = commit


deadly(SqliteStore)
deadly(PostgresStore)
from tests.support import tuned_server  # noqa: E402, F401  # pyright: ignore[reportUnusedImport]
