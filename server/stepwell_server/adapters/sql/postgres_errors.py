"""Translates what asyncpg raises: trouble becomes UnavailableError, damage CorruptError, bad data nothing."""

from __future__ import annotations

import asyncpg

from stepwell_server.model.errors import CorruptError, ServerError, UnavailableError

_RETRY_MS = 1_000


_VICTIM = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    # Planned before a migration, or sent by a pooler to a server that does not know it.
    asyncpg.InvalidCachedStatementError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
_BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


def is_broken(error: Exception) -> bool:
    """Whether the connection is of no use any more."""
    if isinstance(error, asyncpg.InterfaceError):
        # A value that cannot be encoded is a ValueError too: nothing was sent.
        return not isinstance(error, ValueError)
    return isinstance(error, _BROKEN)


def is_retried(error: Exception) -> bool:
    """Whether the same statement may succeed when sent again: the connection broke, or Postgres chose a victim."""
    return isinstance(error, _VICTIM) or is_broken(error)


def from_postgres(error: Exception) -> ServerError | None:
    """The error to raise; None if the fault lies in the data, so that the same data can never be stored."""
    if isinstance(error, ServerError):
        return error
    if is_retried(error):
        return UnavailableError("CONNECTION_LOST", f"Postgres cannot be reached ({_say(error)})", retry_ms=_RETRY_MS)
    if not isinstance(error, asyncpg.PostgresError):
        return None
    sqlstate: str = getattr(error, "sqlstate", None) or ""
    if sqlstate == "53100":
        return UnavailableError("DISK_FULL", f"the disk of Postgres is full ({_say(error)})", retry_ms=_RETRY_MS)
    if sqlstate == "25006":
        return UnavailableError("READ_ONLY", f"Postgres is read-only, or a standby ({_say(error)})", retry_ms=_RETRY_MS)
    if sqlstate == "57014":
        return UnavailableError("TOO_LONG", "Postgres took too long: it is overloaded, or the filter is too wide")
    if sqlstate in {"XX001", "XX002"}:
        return CorruptError("DATABASE_DAMAGED", f"Postgres reports damaged data ({_say(error)})")
    if sqlstate[:2] in {"21", "22", "23"} or sqlstate == "54000":
        return None
    # 53 resources, 57 operator, 58 system, 42 a schema that is not ours, XX internal.
    return UnavailableError("STORE_ERROR", f"Postgres reports an error ({_say(error)})", retry_ms=_RETRY_MS)


def _say(error: Exception) -> str:
    return str(error) or type(error).__name__
