"""`stepwell migrate`: brings the schema of a database up before a server comes, or says what that would do."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell_server.cli.failures import Exit, Failure, UsageFailure, opening
from stepwell_server.cli.options import Format, Output


def add_to(root: typer.Typer) -> None:
    """Adds `migrate`."""
    root.command()(migrate)


def migrate(
    database: Annotated[
        str,
        typer.Option("--database", envvar="STEPWELL_DATABASE", metavar="URL", help="sqlite:///FILE or postgresql://…"),
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; end with code 6 if a migration is pending.")
    ] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Change nothing; print the statements of the migration.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Bring the schema of a database up to this version of Stepwell. A server does the same when it starts.

    It may be called at any time and more than once at a time. Servers of the version before may go on.
    """
    if not database:
        raise UsageFailure("migrate needs --database (or STEPWELL_DATABASE)")
    if check and sql:
        raise UsageFailure("--check and --sql exclude each other")
    import asyncio

    from stepwell_server.adapters import sql as store
    from stepwell_server.cli.output import one_line_json, write

    with opening(database):
        done = asyncio.run(store.look(database) if check or sql else store.migrate(database))
    if sql:
        if done.pending:
            write(f"BEGIN;\n\n{store.migration_sql(database, done.before).strip()}\n\nCOMMIT;")
        return
    if output is Format.JSON:
        names = [revision for revision, _ in done.pending]
        write(
            one_line_json({"before": done.before or "", "after": done.after, "revisions": names, "applied": not check})
        )
    else:
        for revision, title in done.pending:
            write(f"{'pending' if check else 'applied'}  {revision}  {title}")
        if not done.pending:
            write(f"the schema is up to date ({done.after})")
    if check and done.pending:
        raise Failure(f"the schema is behind: {done.before or 'there is none'}, ours is {done.after}", Exit.REFUSED)
