"""A pool of threads for plain functions, which can be interrupted: by an exception raised in their midst."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from stepwell.errors import Interrupted


class ThreadCall:
    """One call in a thread. All fields but those of the interruption are written by that thread."""

    __slots__ = (
        "begun",
        "collected",
        "ended_ms",
        "error",
        "function",
        "interrupt",
        "settled",
        "started_ms",
        "struck",
        "thread",
        "value",
    )

    def __init__(self, function: Callable[[], Any], begun: Callable[[], None] | None) -> None:
        self.function = function
        self.begun = begun
        """Called in the thread when it begins, if anybody wants to know."""
        self.thread: int | None = None
        """The thread, while the call may be struck."""
        self.interrupt = False
        self.settled = False
        """The interruption has been carried out: it struck, or came too late."""
        self.struck = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.started_ms = 0
        self.ended_ms = 0
        self.collected = False


class Threads:
    """At most `limit` threads, started when needed. `ended` is called on the loop with each call that came to its end.

    A thread that was struck by an interruption never takes another call: the exception may still be on its way. So one
    thread is struck at most once, and never in a call that nobody interrupted.
    """

    def __init__(
        self,
        limit: int,
        loop: asyncio.AbstractEventLoop,
        now_ms: Callable[[], int],
        ended: Callable[[ThreadCall], None],
    ) -> None:
        self._limit = limit
        self._loop = loop
        self._now_ms = now_ms
        self._ended = ended
        self._queue: SimpleQueue[ThreadCall | None] = SimpleQueue()
        self._done: deque[tuple[ThreadCall, bool]] = deque()
        self._signalled = False
        self._threads = 0
        self._outstanding = 0

    def submit(self, call: ThreadCall) -> None:
        """Queues a call; it begins at once unless all threads are busy."""
        self._outstanding += 1
        self._queue.put(call)
        self._grow()

    def interrupt(self, call: ThreadCall) -> None:
        """Raises Interrupted in the call's thread; if the call has not begun, it never will."""
        if call.interrupt:
            return
        call.interrupt = True
        try:
            thread = call.thread
            if thread is not None:
                call.struck = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Interrupted))
        finally:
            call.settled = True

    def close(self) -> None:
        """Lets idle threads end. Busy ones are daemons and hold nothing up."""
        for _ in range(self._threads):
            self._queue.put(None)

    def _grow(self) -> None:
        while self._outstanding > self._threads < self._limit:
            self._threads += 1
            threading.Thread(target=self._main, name=f"stepwell-body-{self._threads}", daemon=True).start()

    def _collect(self) -> None:
        self._signalled = False
        while self._done:
            call, retired = self._done.popleft()
            if call.collected:
                continue
            call.collected = True
            self._outstanding -= 1
            self._threads -= retired
            self._ended(call)
        self._grow()

    # --- in the threads ---

    def _main(self) -> None:
        while True:
            call = self._queue.get()
            if call is None or self._execute(call):
                return

    def _execute(self, call: ThreadCall) -> bool:
        """Runs a call and reports it; True if this thread was struck and must end."""
        try:
            self._call(call)
        except BaseException as error:  # struck after the call returned, or before it began
            call.error = error
        retired = False
        if call.interrupt:
            # Wait until the exception, if there is one, has been set; then it strikes here.
            with contextlib.suppress(Interrupted):
                while not call.settled:
                    time.sleep(0.0005)
            retired = call.struck
        try:
            self._report(call, retired)
        except Interrupted:
            self._report(call, retired)
        return retired

    def _call(self, call: ThreadCall) -> None:
        call.thread = threading.get_ident()
        try:
            if call.interrupt:
                raise Interrupted
            call.started_ms = self._now_ms()
            if call.begun is not None:
                call.begun()
            call.value = call.function()
        except BaseException as error:
            call.error = error
        finally:
            call.thread = None
            call.ended_ms = self._now_ms()

    def _report(self, call: ThreadCall, retired: bool) -> None:
        self._done.append((call, retired))  # twice, if an interruption struck here: `collected` tells
        if not self._signalled:
            self._signalled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._collect)
