"""Databases on Postgres that a server cannot use: each is one clear line that names the cause, and exit code 4."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from tests.support.databases import postgres_or_skip
from tests.support.postgres import PostgresServer
from tests.support.servers import Process, Server, environment, free_port

UNAVAILABLE_EXIT = 4
_numbers = count(1)


@pytest.fixture(scope="module")
def postgres() -> Generator[PostgresServer]:
    """A server with few connections, and one user who needs a password."""
    with postgres_or_skip(settings={"max_connections": "12", "superuser_reserved_connections": "3"}) as server:
        server.execute("create role careful login password 'right'")
        server.admit("host all careful 127.0.0.1/32 scram-sha-256", "hostssl tls_only all 127.0.0.1/32 trust",
                     "hostnossl tls_only all 127.0.0.1/32 reject")  # fmt: skip
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return postgres.create_database(f"refused_{next(_numbers)}")


def refused(url: str, folder: Path) -> str:
    """Starts a server that cannot serve; what it says."""
    server = Server(url, folder, profile="serve")
    server.command += ["--log", "text"]
    Process.start(server)
    code = server.wait(40)
    said = server.text()
    assert code == UNAVAILABLE_EXIT, said
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("stepwell: ")
    assert last.endswith("]"), "its reason"
    return last


def as_user(url: str, user: str) -> str:
    return url.replace("postgres@", f"{user}@", 1)


def test_a_host_that_there_is_not(tmp_path: Path) -> None:
    said = refused("postgresql://me:secret@nowhere.invalid/stepwell", tmp_path)
    assert "[UNKNOWN_HOST]" in said
    assert "me@nowhere.invalid/stepwell" in said
    assert "secret" not in said


def test_a_port_where_nobody_listens(tmp_path: Path) -> None:
    said = refused(f"postgresql://me@127.0.0.1:{free_port()}/stepwell", tmp_path)
    assert "[CONNECTION_LOST]" in said
    assert "Postgres cannot be reached" in said


@pytest.mark.parametrize("user", ["careful:wrong", "careful", "nobody_here"])
def test_a_user_or_password_that_is_wrong(user: str, database: str, tmp_path: Path) -> None:
    said = refused(as_user(database, user), tmp_path)
    assert "[SIGN_IN_REFUSED]" in said
    assert "wrong" not in said


def test_the_right_password_is_let_in(database: str, postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.execute(f"alter database {database.rpartition('/')[2]} owner to careful")
    with Server(as_user(database, "careful:right"), tmp_path, profile="serve") as server:
        assert server.client().send("some/event")
        assert "right" not in server.text()


def test_a_database_that_is_missing(database: str, tmp_path: Path) -> None:
    said = refused(database + "_not", tmp_path)
    assert "[DATABASE_MISSING]" in said
    assert "createdb" in said


def test_tls_that_postgres_does_not_speak(database: str, tmp_path: Path) -> None:
    said = refused(database + "?sslmode=require", tmp_path)
    assert "[TLS_REFUSED]" in said
    assert "sslmode" in said


def test_tls_that_postgres_demands(postgres: PostgresServer, tmp_path: Path) -> None:
    said = refused(postgres.create_database("tls_only") + "?sslmode=disable", tmp_path)
    assert "[SIGN_IN_REFUSED]" in said
    assert "no encryption" in said


def test_a_database_that_is_read_only(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    name = database.rpartition("/")[2]
    postgres.execute(f"alter database {name} set default_transaction_read_only = on")
    said = refused(database, tmp_path)
    assert "[READ_ONLY]" in said
    assert name in said


def test_a_hot_standby(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    """Of the primary and the standby, in whatever order, the primary is taken where the URL asks for it."""
    migrated = [sys.executable, "-m", "stepwell", "migrate", "--database", database]
    subprocess.run(migrated, env=environment(), check=True, capture_output=True)
    with postgres_or_skip(primary=postgres, settings={"max_connections": "12"}) as standby:
        url = standby.url(database.rpartition("/")[2])
        said = refused(url, tmp_path)
        assert "[READ_ONLY]" in said
        assert "hot standby" in said
        both = url.replace("/refused", f",{database.split('@')[1].split('/')[0]}/refused")
        with Server(f"{both}?target_session_attrs=read-write", tmp_path, profile="serve") as server:
            assert server.client().send("some/event")
        said = refused(f"{url}?target_session_attrs=read-write", tmp_path)
        assert "[READ_ONLY]" in said


def test_another_encoding(postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.execute("create database latin encoding 'LATIN1' template template0 locale 'C'")
    said = refused(postgres.url("latin"), tmp_path)
    assert "[DATABASE_ENCODING]" in said
    assert "LATIN1" in said


def test_a_role_that_may_make_no_tables(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    name = database.rpartition("/")[2]
    postgres.execute("create role guest login")
    postgres.execute("revoke create on schema public from public", name)
    said = refused(as_user(database, "guest"), tmp_path)
    assert "[NO_RIGHTS]" in said


def test_a_role_that_may_only_read(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    name = database.rpartition("/")[2]
    postgres.execute("create role reader login")
    with Server(database, tmp_path, profile="serve") as owner:
        assert owner.stop() == 0
    postgres.execute("grant select on all tables in schema public to reader", name)
    postgres.execute("grant insert, update, delete on events, runs to reader", name)
    said = refused(as_user(database, "reader"), tmp_path)
    assert "[NO_RIGHTS]" in said
    assert "outcomes" in said
    assert "events" not in said
    assert "reader" in said
    postgres.execute("grant insert, update, delete on all tables in schema public to reader", name)
    with Server(as_user(database, "reader"), tmp_path, profile="serve") as server:
        assert server.client().send("some/event")


async def test_too_few_connections(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    postgres.execute("create role many login")
    postgres.execute(f"alter database {database.rpartition('/')[2]} owner to many")
    url = as_user(database, "many")
    held: list[asyncpg.Connection] = []
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            held.append(await asyncpg.connect(url))
    try:
        said = refused(url, tmp_path)
        assert "[TOO_MANY_CONNECTIONS]" in said
        assert "max_connections" in said
    finally:
        for connection in held:
            await connection.close()
    with Server(url, tmp_path, profile="serve") as server:
        assert server.client().send("some/event")
