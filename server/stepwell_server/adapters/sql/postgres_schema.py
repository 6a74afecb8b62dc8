"""Brings the schema of a Postgres database up, one process at a time."""

from __future__ import annotations

import asyncpg

from stepwell_server.adapters.sql.postgres_link import Connection
from stepwell_server.adapters.sql.schema import READ_VERSION, VERSION_TABLE, foreign, needs_migration, upgrade_sql

_LOCK = 0x5354455057454C4C  # "STEPWELL"; held by a migration's transaction only
_EXISTS = "SELECT 1 FROM pg_class WHERE relname = $1 AND relkind = 'r' AND pg_table_is_visible(oid)"


async def prepare(db: Connection) -> None:
    """Checks the schema's version and migrates an older one. Raises CorruptError, and what the driver raises."""
    where = f"database {await db.fetchval('SELECT current_database()')}"
    if not needs_migration(await _version(db), where):
        return
    async with db.transaction():
        await db.execute("SET LOCAL lock_timeout = '30s'")
        await db.execute("SET LOCAL statement_timeout = 0")
        await db.fetchval("SELECT pg_advisory_xact_lock($1)", _LOCK)
        version = await _version(db)
        if needs_migration(version, where):
            try:
                await db.execute(upgrade_sql("postgresql", version))
            except asyncpg.DuplicateTableError as error:
                raise foreign(where, str(error)) from error


async def _version(db: Connection) -> str | None:
    # Not to_regclass: after the wait for the lock it would answer from a cache of before.
    if not await db.fetchval(_EXISTS, VERSION_TABLE):
        return None
    return await db.fetchval(READ_VERSION)
