"""Fills an engine's database with finished runs, by multiplying those that a burst has left there."""

from __future__ import annotations

from bench.databases import Database

ID_COLUMNS = {"id", "event_id", "run_id"}
TABLES = ("events", "runs", "outcomes")
COPIES_AT_ONCE = 50


async def multiply(database: Database, copies: int) -> None:
    """Adds so many copies of every event, run and outcome. Nobody else may use the database meanwhile.

    The six hex digits behind the time of each id become the number of the copy: ids keep their time, the rest tells
    apart what came in one millisecond, and copies belong together.
    """
    postgres = database.postmaster is not None
    number = "lpad(to_hex(n), 6, '0')" if postgres else "printf('%06x', n)"
    for table in TABLES:
        columns = [column for column in await database.columns(table) if column != "arrived"]
        values = [f"substr({c}, 1, 16) || {number} || substr({c}, 23)" if c in ID_COLUMNS else c for c in columns]
        series = (
            "generate_series($1::int, $2::int) as series(n)"
            if postgres
            else "(with recursive s(n) as (select $1 union all select n + 1 from s where n < $2) select n from s)"
        )
        source = f"seeds_{table}"
        await database.query(f"create table {source} as select * from {table}")
        sql = f"insert into {table} ({', '.join(columns)}) select {', '.join(values)} from {source}, {series}"
        for first in range(1, copies + 1, COPIES_AT_ONCE):
            await database.query(sql, first, min(first + COPIES_AT_ONCE - 1, copies))
        await database.query(f"drop table {source}")
    await database.settle()
