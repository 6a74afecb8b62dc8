"""Translates what asyncpg raises: trouble becomes UnavailableError, damage CorruptError, bad data nothing."""

from __future__ import annotations

import socket
import ssl

import asyncpg

from stepwell_server.model.errors import CorruptError, ServerError, UnavailableError

_RETRY_MS = 1_000


_REFUSALS = {
    "28P01": ("SIGN_IN_REFUSED", "Postgres lets us not in: check user and password in the URL, and pg_hba.conf"),
    "28000": ("SIGN_IN_REFUSED", "Postgres lets us not in: check user and password in the URL, and pg_hba.conf"),
    "3D000": ("DATABASE_MISSING", "there is no such database: check its name, or make it with createdb"),
    "42501": ("NO_RIGHTS", "the role lacks rights: make it the owner of the database, or of its schema"),
    "53100": ("DISK_FULL", "the disk of Postgres is full"),
    "25006": ("READ_ONLY", "Postgres is read-only, or a standby"),
}
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
        reason, sentence = _trouble(error)
        return UnavailableError(reason, f"{sentence} ({_say(error)})", retry_ms=_RETRY_MS)
    if not isinstance(error, asyncpg.PostgresError):
        return None
    sqlstate: str = getattr(error, "sqlstate", None) or ""
    if sqlstate in _REFUSALS:
        reason, sentence = _REFUSALS[sqlstate]
        return UnavailableError(reason, f"{sentence} ({_say(error)})", retry_ms=_RETRY_MS)
    if sqlstate == "57014":
        return UnavailableError("TOO_LONG", "Postgres took too long: it is overloaded, or the filter is too wide")
    if sqlstate in {"XX001", "XX002"}:
        return CorruptError("DATABASE_DAMAGED", f"Postgres reports damaged data ({_say(error)})")
    if sqlstate[:2] in {"21", "22", "23"} or sqlstate == "54000":
        return None
    # 53 resources, 57 operator, 58 system, 42 a schema that is not ours, XX internal.
    return UnavailableError("STORE_ERROR", f"Postgres reports an error ({_say(error)})", retry_ms=_RETRY_MS)


def _trouble(error: Exception) -> tuple[str, str]:
    """What to say of what was tried again, in vain."""
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return "TOO_MANY_CONNECTIONS", "Postgres has no connection left: raise max_connections, or pool with PgBouncer"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "READ_ONLY", "none of the hosts takes writes: is there a primary?"
    if isinstance(error, socket.gaierror):
        return "UNKNOWN_HOST", "Postgres cannot be reached: check the host in the URL"
    if isinstance(error, ssl.SSLError) or (isinstance(error, ConnectionError) and "SSL" in str(error)):
        return "TLS_REFUSED", "no TLS with Postgres: check sslmode and the certificates in the URL"
    if isinstance(error, _VICTIM):
        return "CONTENTION", "Postgres gives others precedence"
    return "CONNECTION_LOST", "Postgres cannot be reached"


def _say(error: Exception) -> str:
    return str(error) or type(error).__name__
