"""What postgres_arrays writes is what Postgres reads; and a connection that writes really uses it."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest
from stepwell_server.adapters.sql import postgres_arrays

from tests.support.stores import OpenStore

CASES: list[tuple[str, list[Any]]] = [
    ("text", []),
    ("text", ["a"]),
    ("text", ["same"] * 300),
    ("text", [None, None]),
    ("text", ["", "quoted \" ' \\ {x,y}", None, "ß→𝕏", "NULL", "x" * 70_000]),
    ("bigint", [0, -1, 2**63 - 1, -(2**63)]),
    ("bigint", [7] * 1_000),
    ("bigint", [None, 1, None]),
    ("int", [0, 1, 2**31 - 1]),
    ("boolean", [True, False, True]),
    ("boolean", [None, True]),
]


@pytest.mark.parametrize(("kind", "values"), CASES)
async def test_an_array_comes_back_as_it_was_written(postgres: OpenStore, kind: str, values: list[Any]) -> None:
    db = await asyncpg.connect(postgres.url)
    try:
        postgres_arrays.install(db)
        text = await db.fetchval(f"SELECT array_to_json($1::{kind}[])::text", values)
        assert json.loads(text) == values
    finally:
        await db.close()


@pytest.mark.parametrize("values", [[], [b"a"], [b"", None, bytes(range(256)), b"\0" * 70_000], [b"z"] * 9])
async def test_bytes_come_back_as_they_were_written(postgres: OpenStore, values: list[bytes | None]) -> None:
    db = await asyncpg.connect(postgres.url)
    try:
        postgres_arrays.install(db)
        rows = await db.fetch("SELECT v FROM unnest($1::bytea[]) WITH ORDINALITY AS t(v, o) ORDER BY o", values)
        assert [row["v"] for row in rows] == values
    finally:
        await db.close()


@pytest.mark.parametrize(
    ("kind", "value"),
    [("text", 5), ("text", "\ud800"), ("bigint", "x"), ("bigint", 2**63), ("int", None), ("bytea", 1)],
)
async def test_a_value_that_does_not_fit_is_refused_before_it_is_sent(
    postgres: OpenStore, kind: str, value: object
) -> None:
    db = await asyncpg.connect(postgres.url)
    try:
        postgres_arrays.install(db)
        with pytest.raises(asyncpg.DataError):
            await db.fetch(f"SELECT * FROM unnest($1::{kind}[])", [value])
        assert await db.fetchval("SELECT 1") == 1
    finally:
        await db.close()


async def test_the_driver_takes_our_encoding(postgres: OpenStore) -> None:
    """Where asyncpg changes within, its own encoding comes back: slower, and this tells."""
    db = await asyncpg.connect(postgres.url)
    try:
        postgres_arrays.install(db)
        with pytest.raises(NotImplementedError):
            await db.fetchval("SELECT $1::text[]", ["a"])
    finally:
        await db.close()
