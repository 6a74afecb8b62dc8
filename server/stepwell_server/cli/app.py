"""The command line: its groups and its help. Before a command runs, only typer is imported."""

from __future__ import annotations

import typer

from stepwell_server.cli import events, failed, functions, health, migrate, operate, retention, runs, servers
from stepwell_server.cli.failures import one_line

EPILOG = """\b
Exit codes:
  0    done
  1    the run failed, or something unexpected happened
  2    the command or its input cannot be right
  3    no such event, run or function
  4    no server answers; or its address is taken, or its database taken or of no use
  5    the time was over
  6    refused in this state, or by a limit
  130  interrupted
\b
Lists print one JSON object a line with -o json. NO_COLOR turns colours off.
STEPWELL_ADDRESS and STEPWELL_ENVIRONMENT stand for --address and --environment.
"""


def build() -> typer.Typer:
    """All commands."""
    root = typer.Typer(
        name="stepwell",
        help="Durable functions: start a server, send events, look at runs.",
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    servers.add_to(root)
    migrate.add_to(root)
    health.add_to(root)
    root.add_typer(events.commands, name="events")
    root.add_typer(functions.commands, name="functions")
    functions.add_to(root)
    root.add_typer(runs.commands, name="runs")
    failed.add_to(root)
    operate.add_to(root)
    root.add_typer(retention.commands, name="retention")

    @root.callback()
    def root_command() -> None:
        pass

    return root


def main() -> None:
    """Runs the command that was typed."""
    with one_line():
        build()(prog_name="stepwell")
