"""A database of an older schema is brought to ours, with what is in it."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from stepwell_server.adapters.sql import schema
from stepwell_server.adapters.sql.postgres import PostgresStore
from stepwell_server.adapters.sql.sqlite import SqliteStore
from stepwell_server.model.run import RunRow

from tests.contract.rows import ENV, FUNCTION, ready, run
from tests.support.stores import OpenStore

_OLD = [field for field in RunRow._fields if field != "line"]


def first_schema(dialect: str) -> str:
    """The statements of the first revision alone."""
    text = io.StringIO()
    config = Config(output_buffer=text)
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    config.attributes["dialect"] = dialect
    config.attributes["version_table"] = schema.VERSION_TABLE
    command.upgrade(config, "base:0001", sql=True)
    return text.getvalue()


async def test_a_file_of_the_first_schema_keeps_its_queue(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as db:
        db.executescript(first_schema("sqlite"))
        marks = ", ".join("?" * len(_OLD))
        db.execute(f"INSERT INTO runs ({', '.join(_OLD)}) VALUES ({marks})", tuple(run())[: len(_OLD)])
    db.close()
    store = await SqliteStore.open(path)
    try:
        assert await store.ready(ENV, FUNCTION, "", 9) == [ready()]
    finally:
        await store.close()


@pytest.mark.postgres
async def test_a_database_of_the_first_schema_keeps_its_queue(postgres: OpenStore) -> None:
    import asyncpg

    db = await asyncpg.connect(postgres.url)
    try:
        await db.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await db.execute(first_schema("postgresql"))
        marks = ", ".join(f"${n}" for n in range(1, len(_OLD) + 1))
        await db.execute(f"INSERT INTO runs ({', '.join(_OLD)}) VALUES ({marks})", *tuple(run())[: len(_OLD)])
    finally:
        await db.close()
    store = await PostgresStore.open(postgres.url)
    try:
        assert await store.ready(ENV, FUNCTION, "", 9) == [ready()]
    finally:
        await store.close()
