"""The command `stepwell` whose engine has other times: the first argument is a JSON object of them."""

from __future__ import annotations

import json
import sys

from stepwell_server.cli import hosting
from stepwell_server.cli.app import main
from stepwell_server.engine.node import Tuning
from stepwell_server.main import Server
from stepwell_server.settings import Settings

given = Tuning(**json.loads(sys.argv.pop(1)))


class TunedServer(Server):
    """A server with the times given."""

    def __init__(self, settings: Settings, *, tuning: Tuning | None = None) -> None:
        super().__init__(settings, tuning=given)


hosting.Server = TunedServer  # pyright: ignore[reportPrivateImportUsage]
main()
