"""`stepwell dev` and `stepwell serve`: a server in this process; under dev, the apps as worker processes beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from stepwell_server.cli.options import DEFAULT_ADDRESS
from stepwell_server.logs import Form, Level

Listen = Annotated[
    str, typer.Option("--listen", envvar="STEPWELL_LISTEN", metavar="HOST:PORT", help="Address to listen on.")
]
Metrics = Annotated[
    str,
    typer.Option(
        "--metrics", envvar="STEPWELL_METRICS", metavar="[HOST:]PORT", help="Serve /metrics for Prometheus there."
    ),
]
Log = Annotated[
    Form | None,
    typer.Option("--log", envvar="STEPWELL_LOG", help="Form of the log; else text for a person, json elsewhere."),
]
LogLevel = Annotated[
    Level | None, typer.Option("--log-level", envvar="STEPWELL_LOG_LEVEL", help="The least that is logged.")
]
_URLS = "sqlite:///FILE or postgresql://…"


def add_to(root: typer.Typer) -> None:
    """Adds `dev` and `serve`."""
    root.command()(dev)
    root.command()(serve)


def dev(
    apps: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[APP.py …]", help="Apps to run as workers.", exists=True, dir_okay=False),
    ] = None,
    database: Annotated[
        str,
        typer.Option("--database", envvar="STEPWELL_DATABASE", metavar="URL", help=f"{_URLS}; else .stepwell/dev.db."),
    ] = "",
    listen: Listen = DEFAULT_ADDRESS,
    no_reload: Annotated[
        bool, typer.Option("--no-reload", help="Do not restart apps when their files change.")
    ] = False,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Keep everything in memory.")] = False,
    metrics: Metrics = "",
    log: Log = None,
    log_level: LogLevel = None,
) -> None:
    """Start a server for a laptop, and apps beside it. Nothing else is needed.

    An app restarts when a Python file in its folder changes; it finishes what it executes first.
    """
    # Apps are executed, not forked into: without this, gRPC warns at each start of one.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from stepwell_server.cli.failures import UsageFailure
    from stepwell_server.cli.hosting import host

    if database and ephemeral:
        raise UsageFailure("--database and --ephemeral exclude each other")
    url = "memory:" if ephemeral else database or "sqlite:///.stepwell/dev.db"
    host("dev", url, listen, tuple(apps or ()), reload=not no_reload, metrics=metrics, form=log, level=log_level)


def serve(
    database: Annotated[
        str,
        typer.Option("--database", envvar="STEPWELL_DATABASE", metavar="URL", help=f"{_URLS}. It must be named."),
    ] = "",
    listen: Listen = DEFAULT_ADDRESS,
    environment: Annotated[str, typer.Option("--environment", help="The environment that an empty name means.")] = "",
    standby: Annotated[
        bool, typer.Option("--standby", help="While another server holds the database, wait to take over.")
    ] = False,
    metrics: Metrics = "",
    log: Log = None,
    log_level: LogLevel = None,
    redis: Annotated[
        str,
        typer.Option(
            "--redis", envvar="STEPWELL_REDIS", metavar="URL", help="redis://… of Redis or Valkey: one of many nodes."
        ),
    ] = "",
) -> None:
    """Start a server for real use: no workers beside it, no clock to move.

    With --redis any number of nodes serve one Postgres; all of them name the same Redis.
    """
    from stepwell_server.cli.failures import UsageFailure
    from stepwell_server.cli.hosting import host

    if not database:
        raise UsageFailure("serve needs --database (or STEPWELL_DATABASE), for example postgresql://user@host/stepwell")
    host(
        "serve", database, listen, (), reload=False, environment=environment, standby=standby, redis=redis,
        metrics=metrics, form=log, level=log_level,
    )  # fmt: skip
