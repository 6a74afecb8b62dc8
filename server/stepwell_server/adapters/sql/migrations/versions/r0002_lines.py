"""Runs wait in lines, by the values of the keys of their function's limits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
least_build = "0002"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
POSIX = {"env", "id"}


def upgrade() -> None:
    op.add_column("runs", sa.Column("line", TEXT, nullable=False, server_default=""))
    op.drop_index("runs_queued", "runs")
    columns = ["env", "function_id", "line", "priority", "queued_ms", "id"]
    clause = sa.text("status = 1")
    if op.get_context().dialect.name == "postgresql":
        marked = [sa.text(f'{column} COLLATE "POSIX"') if column in POSIX else column for column in columns]
        op.create_index("runs_queued", "runs", marked, postgresql_where=clause)
    else:
        op.create_index("runs_queued", "runs", columns, sqlite_where=clause)
