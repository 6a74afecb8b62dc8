"""A duty that comes round: one look after the other, whatever one of them runs into."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from stepwell_server.model.errors import UnavailableError

log = logging.getLogger("stepwell.rounds")


async def go_round(what: str, pause_s: float, once: Callable[[], Awaitable[object]]) -> None:
    """Does it again and again, with a pause before each round. A store that is away is told once.

    Nothing else ends it either: a duty that stopped in silence would be missed by nobody until it was needed.
    """
    told = False
    while True:
        await asyncio.sleep(pause_s)
        try:
            await once()
        except UnavailableError as error:
            if not told:
                log.warning("%s waits for the store: %s", what, error)
            told = True
        except Exception:
            log.exception("%s failed", what)
        else:
            told = False
