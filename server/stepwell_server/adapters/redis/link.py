"""Connections to Redis, and what has to be right of a server before anything is entrusted to it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import cast
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from stepwell_server.model.errors import InvalidError, StateError, UnavailableError

log = logging.getLogger("stepwell.redis")
ANSWER_S = 1.0
_CONNECT_S = 3.0
_OLDEST = (6, 2)
_SCHEMES = ("redis", "rediss", "unix")


def connect(url: str, *, answer_s: float | None = ANSWER_S) -> redis.Redis:
    """A client that says at once what goes wrong: whoever calls it knows what to do then. answer_s: None to listen."""
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=answer_s,
        socket_connect_timeout=ANSWER_S,
        retry=Retry(NoBackoff(), 0),
        client_name="stepwell",
    )


async def check(url: str) -> None:
    """Raises InvalidError (no URL of a Redis), StateError (one that will not do) or UnavailableError (none there)."""
    try:
        parts = urlsplit(url)
        where = f"Redis at {parts.hostname}:{parts.port or 6379}" if parts.hostname else f"Redis at {parts.path}"
        if parts.scheme not in _SCHEMES or not (parts.hostname or parts.path):
            raise ValueError("expected redis://[user:password@]host[:port], or rediss:// for TLS")
        client = connect(url, answer_s=_CONNECT_S)
    except ValueError as error:
        raise InvalidError("BAD_REDIS", f"--redis: {error}") from error
    try:
        await _check(client, where)
    except (exceptions.AuthenticationError, exceptions.NoPermissionError) as error:
        raise StateError("REDIS_REFUSED", f"{where} refuses the user or password of --redis: {error}") from error
    except (exceptions.RedisError, OSError, TimeoutError) as error:
        message = f"{where} cannot be reached: {str(error) or type(error).__name__}"
        raise UnavailableError("REDIS_UNAVAILABLE", message) from error
    finally:
        await client.aclose()


async def _check(client: redis.Redis, where: str) -> None:
    info = await client.info("server")
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < _OLDEST:
        raise StateError("REDIS_TOO_OLD", f"{where} is version {version}: 6.2 or newer is needed, or Valkey")
    try:
        found = await cast("Awaitable[dict[str, str]]", client.config_get("maxmemory-policy"))
    except exceptions.ResponseError:
        log.warning("%s does not tell its maxmemory-policy: see that it is noeviction", where)
        return
    policy = found.get("maxmemory-policy", "noeviction")
    if policy != "noeviction":
        message = f"{where} has the maxmemory-policy {policy}: set it to noeviction, or it throws keys away when full"
        raise StateError("REDIS_EVICTS", message)
