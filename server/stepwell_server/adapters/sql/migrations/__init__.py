"""Schema versions, as Alembic revisions numbered 0001, 0002, … They are rendered to SQL and run by the drivers."""
