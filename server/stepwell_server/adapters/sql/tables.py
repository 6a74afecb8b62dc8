"""The schema: one description for SQLite and Postgres. Columns stand in the order of the rows in ``model``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    collate,
    text,
)

metadata = MetaData()

# Ids and keys compare by bytes: that is SQLite's default, and collation C on Postgres.
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
_Storage = dict[str, float]

_KIND_EVENT = 3
_QUEUED = 1
_TROUBLE = "status IN (4, 6, 7, 8)"  # PAUSED, FAILED, CANCELLED, TIMED_OUT

# Rows that come and go: vacuum by count, not by share of the table.
_HOT: _Storage = {
    "fillfactor": 85,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_analyze_scale_factor": 0.05,
    "autovacuum_vacuum_cost_delay": 1,
}
_CHURN = _HOT | {"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 2000}


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, _TEXT, nullable=null)


def _int(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=null)


def _bytes(name: str, *, null: bool = False) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=null)


def _bool(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _table(
    name: str, key: str, *columns: Column[Any], payloads: bool = False, storage: _Storage | None = None
) -> Table:
    """Rows of ids only are stored inside their key on SQLite; rows with payloads are not."""
    return Table(
        name,
        metadata,
        *columns,
        PrimaryKeyConstraint(*key.split()),
        sqlite_with_rowid=payloads,
        postgresql_with=storage or {},
    )


def _index(name: str, table: Table, columns: str, where: str | None = None) -> None:
    clause = text(where) if where else None
    Index(name, *(table.c[c] for c in columns.split()), sqlite_where=clause, postgresql_where=clause)


def _ordered_index(name: str, table: Table, columns: str, where: str | None = None) -> None:
    """An index for reads in order, which on Postgres no lookup by primary key can use by mistake.

    While a table is nearly empty such an index looks as good as the primary key to the planner, and the writers' plans
    are made then. Collation POSIX sorts like C, but only a query that names it can use a column of it.
    """
    names = columns.split()
    clause = text(where) if where else None
    plain = [table.c[column] for column in names]
    marked = [collate(table.c[column], "POSIX") if column in {"env", "id"} else table.c[column] for column in names]
    Index(name, *plain, sqlite_where=clause).ddl_if(dialect="sqlite")
    Index(name, *marked, postgresql_where=clause).ddl_if(dialect="postgresql")


environments = _table("environments", "env", _text("env"), _int("registry_version"), storage=_CHURN)

events = _table(
    "events",
    "env id",
    _text("env"),
    _text("id"),
    _text("name"),
    _bytes("data"),
    _text("encoding"),
    _text("sender_id"),
    _int("time_ms"),
    _int("accepted_ms"),
    _bytes("metadata"),
    payloads=True,
)
_index("events_name", events, "env name id")

dedup = _table("dedup", "env key", _text("env"), _text("key"), _text("value"), _int("expires_ms"))
_index("dedup_expires", dedup, "expires_ms")

cursors = _table("cursors", "env id", _text("env"), _text("id"), _text("event_ids"), storage=_CHURN)

runs = _table(
    "runs",
    "env id",
    _text("env"),
    _text("id"),
    _text("function_id"),
    _text("app"),
    _int("status"),
    _int("reason"),
    _int("turn"),
    _text("session_id", null=True),
    _text("event_id", null=True),
    _text("parent_id", null=True),
    _text("parent_key", null=True),
    _bool("detached"),
    _int("depth"),
    _text("deployment"),
    _int("losses"),
    _int("priority"),
    _int("queued_ms"),
    _int("created_ms"),
    _int("started_ms", null=True),
    _int("ended_ms", null=True),
    _bytes("input", null=True),
    _text("input_encoding"),
    _bytes("output", null=True),
    _text("output_encoding"),
    _bytes("failure", null=True),
    _bytes("metadata"),
    Column("line", _TEXT, nullable=False, server_default=""),
    payloads=True,
    storage=_HOT,
)
_ordered_index("runs_function", runs, "env function_id id")
# The queue: a status, and the place in the order of each line of a function.
_ordered_index("runs_queued", runs, "env function_id line priority queued_ms id", f"status = {_QUEUED}")
# Runs that limits may count until they end: those without a line are in no such index.
_ordered_index("runs_started", runs, "env function_id id", "line <> '' AND started_ms IS NOT NULL AND ended_ms IS NULL")
_index("runs_children", runs, "env parent_id id", "parent_id IS NOT NULL")
_index("runs_trouble", runs, "env id", _TROUBLE)
# A run that sleeps without a worker is not in it, so a sweep costs what is held, not what is stored.
_index("runs_held", runs, "env session_id", "ended_ms IS NULL AND session_id IS NOT NULL")

outcomes = _table(
    "outcomes",
    "env run_id key",
    _text("env"),
    _text("run_id"),
    _text("key"),
    _int("number", null=True),
    _int("kind"),
    _text("target"),
    _bytes("output", null=True),
    _text("output_encoding"),
    _bytes("failure", null=True),
    _int("attempt"),
    _int("started_ms"),
    _int("ended_ms"),
    _bytes("input_hash"),
    _text("event_id", null=True),
    _text("child_id", null=True),
    # Order of insertion, given by the adapter on Postgres; SQLite has its rowid.
    _int("arrived", null=True),
    payloads=True,
    storage=_HOT,
)
_index("outcomes_inbox", outcomes, "env run_id", "number IS NULL")

waits = _table(
    "waits",
    "env run_id key",
    _text("env"),
    _text("run_id"),
    _text("key"),
    _int("kind"),
    _text("target"),
    _text("match_key", null=True),
    _text("condition"),
    _int("due_ms", null=True),
    _text("child_id", null=True),
    _bool("detached"),
    _int("attempt"),
    _bytes("failure", null=True),
    _bytes("input_hash"),
    _int("opened_ms"),
    _text("after_event", null=True),
    _text("function_id"),
    storage=_CHURN,
)
_index("waits_due", waits, "due_ms", "due_ms IS NOT NULL")
_index("waits_match", waits, "env target match_key", f"kind = {_KIND_EVENT}")
_index("waits_lookback", waits, "env run_id", "after_event IS NOT NULL")

sessions = _table(
    "sessions",
    "env id",
    _text("env"),
    _text("id"),
    _int("epoch"),
    _text("node"),
    _text("app"),
    _text("deployment"),
    _text("instance"),
    _text("sdk"),
    _int("capacity"),
    _text("function_ids"),
    _int("opened_ms"),
    _int("closed_ms", null=True),
    storage=_CHURN,
)
_index("sessions_closed", sessions, "closed_ms", "closed_ms IS NOT NULL")

claims = _table(
    "claims",
    "env key",
    _text("env"),
    _text("key"),
    _int("version"),
    _text("run_id"),
    _text("value"),
    _int("until_ms"),
    storage=_CHURN,
)
_index("claims_until", claims, "until_ms")

members = _table(
    "members", "env event_id function_id", _text("env"), _text("event_id"), _text("function_id"), _text("run_id")
)
_index("members_run", members, "env run_id event_id")

deployments = _table(
    "deployments",
    "env app id",
    _text("env"),
    _text("app"),
    _text("id"),
    _int("created_ms"),
    _bytes("spec"),
    payloads=True,
)

shapes = _table("shapes", "env event path", _text("env"), _text("event"), _text("path"))

switches = _table(
    "switches", "env function_id at_ms", _text("env"), _text("function_id"), _int("at_ms"), _int("standing")
)

leases = _table("leases", "name", _text("name"), _text("holder"), _int("beat"), _text("info"), storage=_CHURN)

settings = _table("settings", "name", _text("name"), _text("value"))
