"""Connections to Postgres: opened on demand, held, and replaced when they break."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from stepwell_server.adapters.sql.postgres_errors import from_postgres, is_broken, is_retried
from stepwell_server.model.errors import InvalidError, UnavailableError

log = logging.getLogger("stepwell.postgres")
T = TypeVar("T")
Connection = Any  # the driver ships no types

RETRY_FOR_S = 10.0
_FIRST_DELAY_S = 0.02
_LONGEST_DELAY_S = 1.0
_CONNECT_TIMEOUT_S = 10
_STATEMENTS = 1_000

# Plans are pinned, since one made while a table was empty is kept when it has a million rows. What is left is a nested
# loop from the operations to an index with a condition on it, as a bitmap scan: a plain one could read all of an index.
_PINNED = {
    "default_transaction_isolation": "read committed",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}
WRITE_SETTINGS = _PINNED | {
    "application_name": "stepwell-write",
    "lock_timeout": "5s",
    "statement_timeout": "20s",
    "idle_in_transaction_session_timeout": "20s",
    "tcp_user_timeout": "15s",
    "synchronous_commit": "on",
}
READ_SETTINGS = {
    "application_name": "stepwell-read",
    "default_transaction_isolation": "read committed",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": "20s",
}


@dataclass(slots=True)
class Target:
    """Where Postgres is. where: the same for people, without the password.

    pooled: behind a pooler in transaction mode, so nothing may be kept in a session: each piece of work is one
    transaction, which brings its settings along. Found out at the first connection: a pooler refuses or ignores them.
    """

    dsn: str
    where: str
    pooled: bool

    @classmethod
    def parse(cls, url: str) -> Target:
        """Takes our option out of a URL: ``pooled=on`` for a pooler that cannot be recognised. Raises InvalidError."""
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise InvalidError("DATABASE_URL", f"the database URL cannot be read: {error}") from error
        pooled = False
        kept: list[tuple[str, str]] = []
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name == "pooled":
                if value not in ("on", "off"):
                    raise InvalidError("DATABASE_URL", f"pooled={value} in the database URL: say on or off")
                pooled = value == "on"
            else:
                kept.append((name, value))
        account, _, place = parts.netloc.rpartition("@")
        user = account.partition(":")[0]
        where = f"{user}@{place}{parts.path}" if user else f"{place}{parts.path}"
        return cls(urlunsplit(parts._replace(query=urlencode(kept))), where, pooled)

    async def connect(self, settings: dict[str, str]) -> Connection:
        """A new connection. Raises InvalidError, and what the driver raises."""
        if not self.pooled:
            try:
                db = await self._opened(_STATEMENTS, settings)
            except asyncpg.ProtocolViolationError as error:
                if "startup parameter" not in str(error):
                    raise
            else:
                async with db.transaction():
                    if await db.fetchval("SHOW enable_seqscan") == settings["enable_seqscan"]:
                        return db
                await db.close()
            self.pooled = True
            log.warning("a pooler stands before %s: each transaction brings its settings along", self.where)
        return await self._opened(0, None)

    async def _opened(self, statements: int, settings: dict[str, str] | None) -> Connection:
        try:
            return await asyncpg.connect(
                self.dsn,
                timeout=_CONNECT_TIMEOUT_S,
                command_timeout=30,
                statement_cache_size=statements,
                max_cached_statement_lifetime=0,
                max_cacheable_statement_size=256 * 1024,
                server_settings=settings,
            )
        except ValueError as error:
            raise InvalidError("DATABASE_URL", f"the database URL cannot be right: {error}") from error


class Connections:
    """At most ``size`` connections, each used by one piece of work at a time; the warmest first.

    ready: called with each new one.
    """

    def __init__(
        self, target: Target, size: int, settings: dict[str, str], ready: Callable[[Connection], None] | None = None
    ) -> None:
        self._target = target
        self._settings = settings
        self._local = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())
        self._ready = ready
        self._idle: list[Connection] = []
        self._places = asyncio.Semaphore(size)
        self._open: set[Connection] = set()
        self._closed = False

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Runs work on a connection; again on another one, for about ten seconds, where trying again can help.

        Raises UnavailableError or CorruptError; and what the driver raises for data that no try can store.
        """
        deadline = time.monotonic() + RETRY_FOR_S
        delay = _FIRST_DELAY_S
        if self._places.locked():
            await self._queue()
        else:
            await self._places.acquire()
        try:
            while True:
                try:
                    return await self._once(work)
                except Exception as error:
                    translated = from_postgres(error)
                    if translated is None or translated is error:
                        raise
                    if self._closed or not is_retried(error) or time.monotonic() + delay > deadline:
                        raise translated from error
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_DELAY_S)
        finally:
            self._places.release()

    async def _queue(self) -> None:
        try:
            async with asyncio.timeout(RETRY_FOR_S):
                await self._places.acquire()
        except TimeoutError:
            message = f"all connections to Postgres were busy for {RETRY_FOR_S:g} s"
            raise UnavailableError("TOO_BUSY", message, retry_ms=1_000) from None

    async def close(self) -> None:
        """Ends all connections, in use or not."""
        self._closed = True
        idle, self._idle = self._idle, []
        for db in idle:
            try:
                await db.close(timeout=2)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                db.terminate()
        for db in self._open:
            db.terminate()
        self._open.clear()

    async def _once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        if self._closed:
            raise UnavailableError("STORE_CLOSED", "the store is closed")
        while self._idle and self._idle[-1].is_closed():
            self._open.discard(self._idle.pop())
        if self._idle:
            db = self._idle.pop()
        else:
            db = await self._target.connect(self._settings)
            self._open.add(db)
            if self._ready:
                self._ready(db)
        whole = False
        try:
            result = await self._pooled(db, work) if self._target.pooled else await work(db)
            whole = True
            return result
        except Exception as error:
            whole = not is_broken(error)
            raise
        finally:
            # After a cancellation the connection may still be busy: it is not used again.
            if whole and not db.is_closed() and not db.is_in_transaction() and not self._closed:
                self._idle.append(db)
            else:
                self._open.discard(db)
                db.terminate()

    async def _pooled(self, db: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with db.transaction(isolation="read_committed"):
            await db.execute(self._local)
            return await work(db)
