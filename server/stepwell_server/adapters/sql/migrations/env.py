"""Renders revisions to SQL. ``schema.py`` runs it; there is no alembic.ini and no connection."""

from __future__ import annotations

from alembic import context

dialect = context.config.attributes["dialect"]
context.configure(
    dialect_name=dialect,
    version_table=context.config.attributes["version_table"],
    output_buffer=context.config.output_buffer,
    literal_binds=True,
    # The driver opens the transaction; the rendered text holds statements only.
    transactional_ddl=False,
)
with context.begin_transaction():
    context.run_migrations()
