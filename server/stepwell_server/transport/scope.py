"""What the services share beside the node: which environments there are, what this server is, its counters."""

from __future__ import annotations

from dataclasses import dataclass, field

from stepwell_server.model.errors import InvalidError


@dataclass(slots=True)
class Counters:
    """Frames of worker streams since the start."""

    frames_in: int = 0
    frames_out: int = 0


@dataclass(slots=True)
class Scope:
    """profile: "dev" or "serve". database: "sqlite", "postgresql" or "memory"."""

    version: str
    profile: str
    database: str
    default_environment: str
    environments: frozenset[str]
    counters: Counters = field(default_factory=Counters)

    def environment(self, name: str) -> str:
        """An environment by name; empty means the default. Raises InvalidError."""
        if not name:
            return self.default_environment
        if name not in self.environments:
            raise InvalidError(
                "ENVIRONMENT_NOT_FOUND",
                f"there is no environment {name[:64]!r}",
                fields=(("environment", "unknown"),),
            )
        return name
