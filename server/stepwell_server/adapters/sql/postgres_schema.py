"""Brings the schema of a Postgres database up, one process at a time, and says what keeps us from using one."""

from __future__ import annotations

import asyncpg

from stepwell_server.adapters.sql.postgres_link import Connection
from stepwell_server.adapters.sql.schema import (
    READ_LEAST_BUILD,
    READ_VERSION,
    VERSION_TABLE,
    Migration,
    Standing,
    foreign,
    needs_migration,
    plan,
    upgrade_sql,
)
from stepwell_server.adapters.sql.tables import metadata
from stepwell_server.model.errors import StateError, UnavailableError

_LOCK = 0x5354455057454C4C  # "STEPWELL"; held by a migration's transaction only
_EXISTS = "SELECT 1 FROM pg_class WHERE relname = $1 AND relkind = 'r' AND pg_table_is_visible(oid)"
_FITNESS = (
    "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', current_setting('server_encoding')"
)
_MISSING_RIGHTS = (
    "SELECT string_agg(DISTINCT c.relname, ', ') FROM pg_class AS c, unnest($2::text[]) AS p(name) "
    "WHERE c.relname = ANY($1::text[]) AND c.relkind = 'r' AND pg_table_is_visible(c.oid) "
    "AND NOT has_table_privilege(c.oid, p.name)"
)
_RIGHTS = ["SELECT", "INSERT", "UPDATE", "DELETE"]


async def prepare(db: Connection) -> Migration:
    """Checks whether we can work here, and brings an older schema to ours.

    Raises CorruptError, UnavailableError, StateError, and what the driver raises.
    """
    where = await _where(db)
    done = plan(await _standing(db), where)
    await _check_fit(db, where)
    if done.pending:
        done = await _migrate(db, where)
    await _check_rights(db, where)
    return done


async def look(db: Connection) -> Migration:
    """What ``prepare`` would do. Raises as it does."""
    return plan(await _standing(db), await _where(db))


async def _migrate(db: Connection, where: str) -> Migration:
    async with db.transaction():
        await db.execute("SET LOCAL lock_timeout = '30s'")
        await db.execute("SET LOCAL statement_timeout = 0")
        await db.fetchval("SELECT pg_advisory_xact_lock($1)", _LOCK)
        standing = await _standing(db)
        done = plan(standing, where)
        if needs_migration(standing, where):
            try:
                await db.execute(upgrade_sql("postgresql", standing.version))
            except asyncpg.DuplicateTableError as error:
                raise foreign(where, str(error)) from error
        return done


async def _where(db: Connection) -> str:
    return f"database {await db.fetchval('SELECT current_database()')}"


async def _standing(db: Connection) -> Standing:
    # Not to_regclass: after the wait for the lock it would answer from a cache of before.
    if not await db.fetchval(_EXISTS, VERSION_TABLE):
        return Standing(None)
    return Standing(await db.fetchval(READ_VERSION), await db.fetchval(READ_LEAST_BUILD))


async def _check_fit(db: Connection, where: str) -> None:
    standby, read_only, encoding = await db.fetchrow(_FITNESS)
    if standby:
        raise UnavailableError(
            "READ_ONLY",
            f"{where} is a hot standby, which only reads: name the primary, or all hosts and "
            "?target_session_attrs=read-write",
        )
    if read_only:
        raise UnavailableError("READ_ONLY", f"{where} is read-only: look at default_transaction_read_only")
    if encoding != "UTF8":
        raise StateError(
            "DATABASE_ENCODING",
            f"{where} has the encoding {encoding}: create one with ENCODING 'UTF8' TEMPLATE template0",
        )


async def _check_rights(db: Connection, where: str) -> None:
    """Also what no migration needs: a commit that the role may not make would be tried for ever."""
    if missing := await db.fetchval(_MISSING_RIGHTS, [*metadata.tables, VERSION_TABLE], _RIGHTS):
        raise StateError(
            "NO_RIGHTS",
            f"the role {await db.fetchval('SELECT current_user')} may not read and write {missing} in {where}: "
            "make it the owner, or GRANT SELECT, INSERT, UPDATE, DELETE",
        )
