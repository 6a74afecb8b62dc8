"""`stepwell migrate`, and servers beside schemas that are older, newer, or somebody else's."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from stepwell_server.adapters.sql.tables import metadata

from tests.e2e.conftest import APPS
from tests.support.databases import Databases
from tests.support.servers import Process, Server, ended, environment, running

USAGE_EXIT, UNAVAILABLE_EXIT, REFUSED_EXIT = 2, 4, 6


def migrate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stepwell", "migrate", *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


async def execute(database: str, *statements: str) -> None:
    """As a build of another version would have."""
    if database.startswith("sqlite"):
        with sqlite3.connect(database.removeprefix("sqlite:///")) as file:
            for statement in statements:
                file.execute(statement)
        file.close()
        return
    connection = await asyncpg.connect(database)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def tables(database: str) -> int:
    if database.startswith("sqlite"):
        with sqlite3.connect(database.removeprefix("sqlite:///")) as file:
            return file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    connection = await asyncpg.connect(database)
    try:
        return await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()


async def test_a_check_says_what_is_pending_and_changes_nothing(database: str) -> None:
    told = migrate("--database", database, "--check")
    assert told.returncode == REFUSED_EXIT
    assert "pending  0001  The first schema" in told.stdout
    assert await tables(database) == 0
    assert migrate("--database", database).stdout.startswith("applied  0001")
    assert migrate("--database", database, "--check").returncode == 0
    again = migrate("--database", database, "-o", "json")
    answer = json.loads(again.stdout)
    assert answer["revisions"] == []
    assert answer["before"] == answer["after"]


async def test_the_printed_sql_is_the_migration(database: str, tmp_path: Path) -> None:
    told = migrate("--database", database, "--sql")
    assert told.returncode == 0
    assert await tables(database) == 0
    await execute(database, *(told.stdout.split(";\n") if database.startswith("sqlite") else [told.stdout]))
    assert migrate("--database", database, "--check").returncode == 0
    with Server(database, tmp_path, profile="serve") as server:
        assert server.client().send("some/event")


def test_migrations_at_the_same_time_make_one_schema(database: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stepwell", "migrate", "--database", database]
    racing = [Process(command, tmp_path / f"{n}.log", cwd=tmp_path).start() for n in range(3)]
    codes = [process.wait(60) for process in racing]
    said = [process.text() for process in racing]
    assert sum("applied" in text for text in said) == 1, said
    for code, text in zip(codes, said, strict=True):
        # A file is locked for the while; who comes too late there is told so, and nothing is half done.
        assert code == 0 or (code == UNAVAILABLE_EXIT and "DATABASE_IN_USE" in text and "sqlite" in database), text
    assert migrate("--database", database, "--check").returncode == 0


def test_a_server_migrates_by_itself(database: str, tmp_path: Path) -> None:
    with Server(database, tmp_path, profile="serve") as server:
        assert server.stop() == 0
    assert migrate("--database", database, "--check").returncode == 0


async def test_a_newer_schema_is_refused_unless_it_only_adds(database: str, tmp_path: Path) -> None:
    migrate("--database", database)
    await execute(
        database,
        "UPDATE stepwell_version SET version_num = '9999'",
        "DELETE FROM settings WHERE name = 'schema_least_build'",
    )
    server = Server(database, tmp_path, profile="serve")
    for refused in (migrate("--database", database), migrate("--database", database, "--check")):
        assert refused.returncode == UNAVAILABLE_EXIT
        assert "SCHEMA_NEWER" in refused.stderr
    Process.start(server)
    assert server.wait() == UNAVAILABLE_EXIT
    assert "schema 9999" in server.text()
    await execute(
        database,
        "DELETE FROM settings WHERE name = 'schema_least_build'",
        "INSERT INTO settings VALUES ('schema_least_build', '0001')",
        "ALTER TABLE runs ADD COLUMN of_tomorrow bigint",
    )
    assert migrate("--database", database).stdout == "the schema is up to date (9999)\n"
    with server:
        assert server.client().send("some/event")


@pytest.mark.parametrize("arguments", [(), ("--database", "foo://x"), ("--check", "--sql", "--database", "x.db")])
def test_what_cannot_be_right_is_an_error_of_usage(arguments: tuple[str, ...]) -> None:
    told = migrate(*arguments)
    assert told.returncode == USAGE_EXIT
    assert told.stderr.startswith("stepwell: ")
    assert not told.stdout


async def test_a_database_of_somebody_else_is_left_as_it_is(database: str) -> None:
    await execute(database, "CREATE TABLE runs (mine int)")
    told = migrate("--database", database)
    assert told.returncode == UNAVAILABLE_EXIT
    assert "FOREIGN_DATABASE" in told.stderr
    assert await tables(database) == 1


async def test_a_server_goes_on_while_a_newer_build_adds_to_its_schema(databases: Databases, tmp_path: Path) -> None:
    """As in a rolling upgrade: the old server has its statements prepared, and reads whole rows of every table."""
    database = databases("postgres", tmp_path)
    server = Server(database, tmp_path, profile="serve")
    effects = tmp_path / "effects"
    with running(server, APPS / "features.py", EFFECTS=str(effects)) as (client, _):
        before = client.start("features/plain", 1)
        assert ended(client, before.run_id).output == [1, "child"]
        names = [name for name in metadata.tables if name != "settings"]
        await execute(database, *(f"ALTER TABLE {name} ADD COLUMN of_tomorrow text DEFAULT 'x'" for name in names))
        after = client.start("features/plain", 2)
        assert ended(client, after.run_id).output == [2, "child"]
        assert len(client.journal(before.run_id)) == len(client.journal(after.run_id))
        with server.worker(APPS / "features.py", "two", EFFECTS=str(effects)) as late:
            late.connected(client)
        assert "Traceback" not in server.text()
        assert server.stop() == 0
        server.start()
        assert ended(client, client.start("features/plain", 3).run_id).output == [3, "child"]
