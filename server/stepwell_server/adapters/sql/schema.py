"""Which schema a database has, and the SQL that brings it to ours: Alembic revisions, rendered to text."""

from __future__ import annotations

import io
import re
from pathlib import Path

from stepwell_server.model.errors import CorruptError

HEAD = "0003"
BASE = "0000"
VERSION_TABLE = "stepwell_version"
READ_VERSION = f"SELECT version_num FROM {VERSION_TABLE}"
_REVISION = re.compile(r"\d{4}")


def needs_migration(version: str | None, where: str) -> bool:
    """Compares a database's version with ours. version: None where there is none yet.

    Raises CorruptError (SCHEMA_NEWER, FOREIGN_DATABASE).
    """
    if version is None:
        return True
    if not _REVISION.fullmatch(version):
        raise foreign(where, f"its schema version is {version!r}")
    if version > HEAD:
        raise CorruptError(
            "SCHEMA_NEWER",
            f"{where} has schema {version}, this Stepwell knows {HEAD} and older: start a newer Stepwell",
        )
    return version < HEAD


def foreign(where: str, why: str) -> CorruptError:
    """The error for a database of somebody else."""
    return CorruptError("FOREIGN_DATABASE", f"{where} was not made by Stepwell: {why}. Choose another database")


def upgrade_sql(dialect: str, version: str | None) -> str:
    """Statements that bring a schema of a version to ours, its version row included; for one transaction."""
    # Alembic takes a third of a second to import; only a migration needs it.
    from alembic import command
    from alembic.config import Config

    text = io.StringIO()
    config = Config(output_buffer=text)
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["dialect"] = dialect
    config.attributes["version_table"] = VERSION_TABLE
    command.upgrade(config, f"{version or 'base'}:head", sql=True)
    return text.getvalue()
