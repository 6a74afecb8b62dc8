"""The command `stepwell`. It comes with the server extra; without it, this says how to get it."""

from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDED = ("typer", "rich", "sqlalchemy")


def main() -> None:
    """Runs the command line, or explains what is missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(
            f'stepwell: the command line and the server need the "server" extra ({", ".join(missing)} not found):\n'
            '  pip install "stepwell[server]"',
            file=sys.stderr,
        )
        raise SystemExit(1)
    from stepwell_server.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
