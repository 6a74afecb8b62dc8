"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
least_build = "0001"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
HOT = {
    "fillfactor": 85,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_analyze_scale_factor": 0.05,
    "autovacuum_vacuum_cost_delay": 1,
}
CHURN = HOT | {"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 2000}
POSIX = {"env", "id"}


def upgrade() -> None:
    op.create_table(
        "cursors",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("event_ids", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("env", "id"),
        postgresql_with=CHURN,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "dedup",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("env", "key"),
        sqlite_with_rowid=False,
    )
    op.create_index("dedup_expires", "dedup", ["expires_ms"])
    op.create_table(
        "deployments",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("app", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("env", "app", "id"),
        sqlite_with_rowid=True,
    )
    op.create_table(
        "environments",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("registry_version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("env"),
        postgresql_with=CHURN,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("encoding", TEXT, nullable=False),
        sa.Column("sender_id", TEXT, nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("accepted_ms", sa.BigInteger(), nullable=False),
        sa.Column("metadata", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("env", "id"),
        sqlite_with_rowid=True,
    )
    op.create_index("events_name", "events", ["env", "name", "id"])
    op.create_table(
        "leases",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("info", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        postgresql_with=CHURN,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outcomes",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.BigInteger(), nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("output", sa.LargeBinary(), nullable=True),
        sa.Column("output_encoding", TEXT, nullable=False),
        sa.Column("failure", sa.LargeBinary(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=False),
        sa.Column("input_hash", sa.LargeBinary(), nullable=False),
        sa.Column("event_id", TEXT, nullable=True),
        sa.Column("child_id", TEXT, nullable=True),
        sa.Column("arrived", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("env", "run_id", "key"),
        postgresql_with=HOT,
        sqlite_with_rowid=True,
    )
    op.create_index(
        "outcomes_inbox",
        "outcomes",
        ["env", "run_id"],
        sqlite_where=sa.text("number IS NULL"),
        postgresql_where=sa.text("number IS NULL"),
    )
    op.create_table(
        "runs",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("function_id", TEXT, nullable=False),
        sa.Column("app", TEXT, nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.BigInteger(), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.Column("session_id", TEXT, nullable=True),
        sa.Column("event_id", TEXT, nullable=True),
        sa.Column("parent_id", TEXT, nullable=True),
        sa.Column("parent_key", TEXT, nullable=True),
        sa.Column("detached", sa.Boolean(), nullable=False),
        sa.Column("depth", sa.BigInteger(), nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("losses", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("queued_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=True),
        sa.Column("ended_ms", sa.BigInteger(), nullable=True),
        sa.Column("input", sa.LargeBinary(), nullable=True),
        sa.Column("input_encoding", TEXT, nullable=False),
        sa.Column("output", sa.LargeBinary(), nullable=True),
        sa.Column("output_encoding", TEXT, nullable=False),
        sa.Column("failure", sa.LargeBinary(), nullable=True),
        sa.Column("metadata", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("env", "id"),
        postgresql_with=HOT,
        sqlite_with_rowid=True,
    )
    op.create_index(
        "runs_children",
        "runs",
        ["env", "parent_id", "id"],
        sqlite_where=sa.text("parent_id IS NOT NULL"),
        postgresql_where=sa.text("parent_id IS NOT NULL"),
    )
    _ordered_index("runs_function", "runs", ["env", "function_id", "id"])
    op.create_index(
        "runs_held",
        "runs",
        ["env", "session_id"],
        sqlite_where=sa.text("ended_ms IS NULL AND session_id IS NOT NULL"),
        postgresql_where=sa.text("ended_ms IS NULL AND session_id IS NOT NULL"),
    )
    _ordered_index("runs_queued", "runs", ["env", "function_id", "priority", "queued_ms", "id"], "status = 1")
    op.create_index(
        "runs_trouble",
        "runs",
        ["env", "id"],
        sqlite_where=sa.text("status IN (4, 6, 7, 8)"),
        postgresql_where=sa.text("status IN (4, 6, 7, 8)"),
    )
    op.create_table(
        "sessions",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("app", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("instance", TEXT, nullable=False),
        sa.Column("sdk", TEXT, nullable=False),
        sa.Column("capacity", sa.BigInteger(), nullable=False),
        sa.Column("function_ids", TEXT, nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("closed_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("env", "id"),
        postgresql_with=CHURN,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "sessions_closed",
        "sessions",
        ["closed_ms"],
        sqlite_where=sa.text("closed_ms IS NOT NULL"),
        postgresql_where=sa.text("closed_ms IS NOT NULL"),
    )
    op.create_table(
        "settings",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "shapes",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("event", TEXT, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("env", "event", "path"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "waits",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("kind", sa.BigInteger(), nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("match_key", TEXT, nullable=True),
        sa.Column("condition", TEXT, nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=True),
        sa.Column("child_id", TEXT, nullable=True),
        sa.Column("detached", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("failure", sa.LargeBinary(), nullable=True),
        sa.Column("input_hash", sa.LargeBinary(), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("after_event", TEXT, nullable=True),
        sa.Column("function_id", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("env", "run_id", "key"),
        postgresql_with=CHURN,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "waits_due",
        "waits",
        ["due_ms"],
        sqlite_where=sa.text("due_ms IS NOT NULL"),
        postgresql_where=sa.text("due_ms IS NOT NULL"),
    )
    op.create_index(
        "waits_lookback",
        "waits",
        ["env", "run_id"],
        sqlite_where=sa.text("after_event IS NOT NULL"),
        postgresql_where=sa.text("after_event IS NOT NULL"),
    )
    op.create_index(
        "waits_match",
        "waits",
        ["env", "target", "match_key"],
        sqlite_where=sa.text("kind = 3"),
        postgresql_where=sa.text("kind = 3"),
    )


def _ordered_index(name: str, table: str, columns: list[str], where: str | None = None) -> None:
    """See tables.py."""
    clause = sa.text(where) if where else None
    if op.get_context().dialect.name == "postgresql":
        marked = [sa.text(f'{column} COLLATE "POSIX"') if column in POSIX else column for column in columns]
        op.create_index(name, table, marked, postgresql_where=clause)
    else:
        op.create_index(name, table, columns, sqlite_where=clause)
