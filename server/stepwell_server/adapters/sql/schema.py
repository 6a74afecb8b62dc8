"""Which schema a database has, and the SQL that brings it to ours: Alembic revisions, rendered to text."""

from __future__ import annotations

import io
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from stepwell_server.model.errors import CorruptError

HEAD = "0005"
BASE = "0000"
VERSION_TABLE = "stepwell_version"
READ_VERSION = f"SELECT version_num FROM {VERSION_TABLE}"
LEAST_BUILD = "schema_least_build"
READ_LEAST_BUILD = f"SELECT value FROM settings WHERE name = '{LEAST_BUILD}'"
_REVISION = re.compile(r"\d{4}")


class Standing(NamedTuple):
    """The schema that a database has. version: None where there is none yet.

    least_build: the oldest head of a build that works with it; None: only builds that know the version.
    """

    version: str | None
    least_build: str | None = None


class Migration(NamedTuple):
    """From one version to another; pending: the revisions between, oldest first, each with its first line."""

    before: str | None
    after: str
    pending: tuple[tuple[str, str], ...]


def needs_migration(standing: Standing, where: str) -> bool:
    """Compares a database's schema with ours. A newer one that was only added to is as good as ours.

    Raises CorruptError (SCHEMA_NEWER, FOREIGN_DATABASE).
    """
    version = standing.version
    if version is None:
        return True
    if not _REVISION.fullmatch(version):
        raise foreign(where, f"its schema version is {version!r}")
    if version > HEAD and (standing.least_build or version) > HEAD:
        raise CorruptError(
            "SCHEMA_NEWER",
            f"{where} has schema {version}, which this Stepwell (schema {HEAD}) cannot work with: start a newer one",
        )
    return version < HEAD


def foreign(where: str, why: str) -> CorruptError:
    """The error for a database of somebody else."""
    return CorruptError("FOREIGN_DATABASE", f"{where} was not made by Stepwell: {why}. Choose another database")


def plan(standing: Standing, where: str) -> Migration:
    """What a migration would do. Raises as ``needs_migration``."""
    pending: tuple[tuple[str, str], ...] = ()
    if needs_migration(standing, where):
        pending = tuple((r.revision, r.doc.rstrip(".")) for r in revisions() if r.revision > (standing.version or BASE))
    return Migration(standing.version, max(standing.version or BASE, HEAD), pending)


def upgrade_sql(dialect: str, version: str | None) -> str:
    """Statements that bring a schema of a version to ours, its version row included; for one transaction."""
    # Alembic takes a third of a second to import; only a migration needs it.
    from alembic import command

    text = io.StringIO()
    config = _config(output_buffer=text)
    config.attributes["dialect"] = dialect
    config.attributes["version_table"] = VERSION_TABLE
    command.upgrade(config, f"{version or 'base'}:head", sql=True)
    return text.getvalue() + _say_least_build()


@cache
def revisions() -> tuple[Any, ...]:
    """Alembic's scripts, oldest first; each module says its ``least_build``."""
    from alembic.script import ScriptDirectory

    return tuple(ScriptDirectory.from_config(_config()).walk_revisions())[::-1]


def _config(**options: Any) -> Any:
    from alembic.config import Config

    config = Config(**options)
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _say_least_build() -> str:
    """What an older build will read. A head that only builds who know it can use needs no row: see Standing."""
    least = revisions()[-1].module.least_build
    gone = f"DELETE FROM settings WHERE name = '{LEAST_BUILD}';\n"
    return gone if least == HEAD else f"{gone}INSERT INTO settings (name, value) VALUES ('{LEAST_BUILD}', '{least}');\n"
