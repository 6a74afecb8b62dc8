"""Plain functions in threads, and their interruption."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from stepwell.errors import Interrupted
from stepwell.threads import ThreadCall, Threads


def pool(limit: int) -> tuple[Threads, asyncio.Queue[ThreadCall]]:
    ended: asyncio.Queue[ThreadCall] = asyncio.Queue()
    return Threads(limit, asyncio.get_running_loop(), lambda: time.time_ns() // 1_000_000, ended.put_nowait), ended


def call_of(function: Callable[[], Any]) -> ThreadCall:
    return ThreadCall(function, None)


def spin() -> None:
    while True:
        time.sleep(0.001)


async def test_calls_share_at_most_so_many_threads() -> None:
    threads, ended = pool(3)
    used: set[int] = set()

    def note() -> None:
        used.add(threading.get_ident())
        time.sleep(0.001)

    for _ in range(30):
        threads.submit(call_of(note))
    for _ in range(30):
        assert (await ended.get()).error is None
    assert 1 <= len(used) <= 3


async def test_an_interrupted_call_ends_with_interrupted() -> None:
    threads, ended = pool(1)
    call = call_of(spin)
    threads.submit(call)
    while call.thread is None:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    threads.interrupt(call)
    assert isinstance((await ended.get()).error, Interrupted)


async def test_a_call_that_was_interrupted_in_the_queue_never_begins() -> None:
    threads, ended = pool(1)
    first, second = call_of(lambda: time.sleep(0.05)), call_of(spin)
    threads.submit(first)
    threads.submit(second)
    threads.interrupt(second)
    assert await ended.get() is first
    assert await ended.get() is second
    assert isinstance(second.error, Interrupted)
    assert second.started_ms == 0


async def test_an_interruption_never_strikes_another_call() -> None:
    """Interruptions that race with the end of their call: whatever happens, strangers are not struck, and all end."""
    threads, ended = pool(4)
    victims: list[ThreadCall] = []
    for round_number in range(300):
        victim = call_of(lambda: [n * n for n in range(200)])
        stranger = call_of(lambda: sum(range(500)))
        threads.submit(victim)
        threads.submit(stranger)
        if round_number % 3:
            await asyncio.sleep(0)
        threads.interrupt(victim)
        victims.append(victim)
        for _ in range(2):
            async with asyncio.timeout(5):
                call = await ended.get()
            if call not in victims:
                assert call.error is None
    assert ended.empty()


async def test_a_call_that_swallows_its_interruption_keeps_its_thread_until_it_ends() -> None:
    threads, ended = pool(1)
    released = threading.Event()

    def stubborn() -> str:
        try:
            spin()
        except BaseException:
            released.wait(5)
        return "after all"

    first, second = call_of(stubborn), call_of(lambda: "next")
    threads.submit(first)
    threads.submit(second)
    while first.thread is None:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    threads.interrupt(first)
    await asyncio.sleep(0.05)
    assert second.thread is None
    assert ended.empty()
    released.set()
    assert (await ended.get()).value == "after all"
    assert (await ended.get()).value == "next"
