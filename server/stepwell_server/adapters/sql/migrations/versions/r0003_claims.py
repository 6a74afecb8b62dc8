"""Claims of gates, and the runs that events joined."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
least_build = "0003"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
CHURN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.0,
    "autovacuum_vacuum_threshold": 2000,
    "autovacuum_analyze_scale_factor": 0.05,
    "autovacuum_vacuum_cost_delay": 1,
}


def upgrade() -> None:
    op.create_table(
        "claims",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("env", "key"),
        postgresql_with=CHURN,
        sqlite_with_rowid=False,
    )
    op.create_index("claims_until", "claims", ["until_ms"])
    op.create_table(
        "members",
        sa.Column("env", TEXT, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("function_id", TEXT, nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("env", "event_id", "function_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("members_run", "members", ["env", "run_id", "event_id"])
