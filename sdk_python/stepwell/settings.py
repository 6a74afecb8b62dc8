"""Settings of clients and workers: the only reader of the environment variables STEPWELL_*."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from stepwell.errors import UsageError
from stepwell.flow import to_labels

DEFAULT_ADDRESS = "127.0.0.1:7777"
CAPACITY_MAX = 100_000
PARKED_MAX = 50_000
"""A server takes up a session of at most both together."""


def resolve_address(given: str | None) -> str:
    """The server's address: as given, else STEPWELL_ADDRESS, else 127.0.0.1:7777. "https://" in front asks for TLS.

    Several nodes of one cluster are named with commas between: "one:7777,two:7777"; where one fails the next is tried.
    """
    return given or os.environ.get("STEPWELL_ADDRESS") or DEFAULT_ADDRESS


def resolve_environment(given: str | None) -> str:
    """The environment: as given, else STEPWELL_ENVIRONMENT, else empty, which is the server's default."""
    return given if given is not None else os.environ.get("STEPWELL_ENVIRONMENT", "")


class WorkerOptions(TypedDict, total=False):
    """The keywords of App.run and serve; see WorkerSettings."""

    environment: str | None
    deployment: str | None
    instance: str | None
    capacity: int
    threads: int
    max_parked: int
    drain_s: float
    labels: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker process behaves."""

    address: str
    environment: str
    deployment: str | None
    """Id of this build; None: a hash of the registration and of the app's sources."""
    instance: str
    """Name of this process, for people."""
    capacity: int
    """Runs that execute at once; parked runs do not count."""
    threads: int
    """Bodies of plain (not async) functions that execute at once."""
    max_parked: int
    """Parked runs kept in memory; the longest parked beyond that are given back."""
    drain_s: float
    """After a stop signal, how long executing bodies may take to finish."""
    labels: Mapping[str, str]
    """What this worker is; it serves the functions that ask for no other label."""

    @classmethod
    def resolve(
        cls,
        address: str | None = None,
        *,
        environment: str | None = None,
        deployment: str | None = None,
        instance: str | None = None,
        capacity: int = 500,
        threads: int = 32,
        max_parked: int = 1000,
        drain_s: float = 30.0,
        labels: Mapping[str, str] | None = None,
    ) -> WorkerSettings:
        """Fills what was not given from the environment variables and the defaults."""
        if capacity < 1 or threads < 1 or max_parked < 0 or drain_s < 0:
            raise ValueError("capacity and threads must be at least 1, max_parked and drain_s at least 0")
        if capacity > CAPACITY_MAX or max_parked > PARKED_MAX:
            raise ValueError(f"capacity must be at most {CAPACITY_MAX:,}, max_parked at most {PARKED_MAX:,}")
        return cls(
            address=resolve_address(address),
            environment=resolve_environment(environment),
            deployment=deployment or os.environ.get("STEPWELL_DEPLOYMENT") or None,
            instance=instance or f"{socket.gethostname()}:{os.getpid()}",
            capacity=capacity,
            threads=threads,
            max_parked=max_parked,
            drain_s=drain_s,
            labels=to_labels(labels if labels is not None else parse_labels(os.environ.get("STEPWELL_LABELS", ""))),
        )


def parse_labels(text: str) -> dict[str, str]:
    """STEPWELL_LABELS: "gpu=a100,region=eu". Raises UsageError."""
    labels: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, given, value = part.partition("=")
        if not given or name.strip() in labels:
            raise UsageError(f"STEPWELL_LABELS: {part!r} is not name=value, or its name stands twice")
        labels[name.strip()] = value.strip()
    return labels
