"""A duty that comes round goes on, whatever one of its rounds runs into."""

from __future__ import annotations

import asyncio

import pytest
from stepwell_server.engine.rounds import go_round
from stepwell_server.model.errors import UnavailableError


async def test_no_round_ends_a_duty_and_a_store_that_stays_away_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    away = UnavailableError("CONNECTION_LOST", "nobody answers")
    meets = [away, away, None, ValueError("a bug"), away, None]
    done = asyncio.Event()

    async def once() -> None:
        if not meets:
            done.set()
            return
        if (met := meets.pop(0)) is not None:
            raise met

    duty = asyncio.create_task(go_round("the duty", 0, once))
    async with asyncio.timeout(10):
        await done.wait()
    duty.cancel()
    waits, failed = "the duty waits for the store: ", "the duty failed"
    said = [record.getMessage() for record in caplog.records]
    assert [text.startswith((waits, failed)) for text in said] == [True] * 3
    assert [text.startswith(failed) for text in said] == [False, True, False]
    with pytest.raises(asyncio.CancelledError):
        await duty
