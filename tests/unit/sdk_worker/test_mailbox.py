"""The mailbox between the I/O thread and the user's loop: nothing stays in it, and nobody is woken for nothing."""

import contextlib
from collections.abc import Callable
from typing import Any

from stepwell.session import Lapsed, Mailbox


class FakeLoop:
    """Keeps what it is asked to call; `woken` counts what was asked from another thread."""

    def __init__(self) -> None:
        self.due: list[Callable[[], object]] = []
        self.woken = 0

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.due.append(callback)

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        self.woken += 1
        self.due.append(callback)

    def turn(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


def test_what_comes_while_news_are_applied_wakes_nobody() -> None:
    loop: Any = FakeLoop()
    sizes: list[int] = []

    def apply() -> None:
        if not sizes:
            mailbox.put(Lapsed())
        sizes.append(len(mailbox.items))
        mailbox.items.clear()

    mailbox = Mailbox(loop, apply)
    mailbox.put(Lapsed())
    loop.turn()
    assert (sizes, loop.woken, loop.due) == ([2], 1, [])
    mailbox.put(Lapsed())
    assert loop.woken == 2, "once all is applied, news wake the loop again"


def test_what_is_left_by_news_that_raised_is_applied_in_the_next_turn() -> None:
    loop: Any = FakeLoop()
    applied: list[object] = []

    def apply() -> None:
        item = mailbox.items.popleft()
        if not applied:
            applied.append(item)
            raise ValueError("broken")
        applied.append(item)

    mailbox = Mailbox(loop, apply)
    mailbox.put(Lapsed())
    mailbox.put(Lapsed())
    with contextlib.suppress(ValueError):
        loop.turn()
    loop.turn()
    assert (len(applied), loop.woken, loop.due) == (2, 1, [])
