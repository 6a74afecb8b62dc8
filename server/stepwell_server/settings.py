"""Settings of the server: the only reader of its environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass

DEFAULT_LISTEN = "127.0.0.1:7777"
DEV_DATABASE = "sqlite:///.stepwell/dev.db"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server process behaves.

    profile: "dev" (the clock can be moved) or "serve". database: sqlite:///file, postgresql://… or memory:.
    listen: host:port; port 0 picks a free one. wait_for_lease: stand by while another server holds the database.
    metrics: host:port where Prometheus may scrape; empty for none, and then nothing is counted.
    redis: redis://… where other nodes serve the database too; empty for a node alone.
    counters: file that gets counters as JSON on SIGUSR1 and at the end; empty for none.
    """

    profile: str = "dev"
    database: str = DEV_DATABASE
    listen: str = DEFAULT_LISTEN
    environment: str = "dev"
    wait_for_lease: bool = False
    metrics: str = ""
    redis: str = ""
    counters: str = ""


def from_environment(**given: object) -> Settings:
    """Settings as given, else from STEPWELL_DATABASE, STEPWELL_LISTEN, STEPWELL_REDIS, STEPWELL_METRICS,
    STEPWELL_COUNTERS, else the defaults."""
    values: dict[str, object] = {}
    for name, variable in (
        ("database", "STEPWELL_DATABASE"),
        ("listen", "STEPWELL_LISTEN"),
        ("metrics", "STEPWELL_METRICS"),
        ("redis", "STEPWELL_REDIS"),
        ("counters", "STEPWELL_COUNTERS"),
    ):
        if os.environ.get(variable):
            values[name] = os.environ[variable]
    values.update({name: value for name, value in given.items() if value is not None})
    return Settings(**values)  # pyright: ignore[reportArgumentType]
