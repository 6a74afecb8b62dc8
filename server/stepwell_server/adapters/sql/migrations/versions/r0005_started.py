"""Live runs in a line that have started are found at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
least_build = "0004"


def upgrade() -> None:
    clause = sa.text("line <> '' AND started_ms IS NOT NULL AND ended_ms IS NULL")
    if op.get_context().dialect.name == "postgresql":
        columns = [sa.text('env COLLATE "POSIX"'), "function_id", sa.text('id COLLATE "POSIX"')]
        op.create_index("runs_started", "runs", columns, postgresql_where=clause)
    else:
        op.create_index("runs_started", "runs", ["env", "function_id", "id"], sqlite_where=clause)
