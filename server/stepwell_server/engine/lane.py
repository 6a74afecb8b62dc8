"""Group commit: many Commits in one transaction, flushed as soon as the last flush returned.

Alone a Commit is a batch of one at once; under load batches grow by themselves. Two Commits that touch the same run are
never in flight together, and keep their order (H32d, H33). Environments take turns (H37).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from stepwell_server.engine.tally import Tally
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.errors import CorruptError, UnavailableError
from stepwell_server.model.session import Fence, SessionWrite

log = logging.getLogger("stepwell.lane")

Callback = Callable[[CommitResult, Any], None]
Item = tuple[Commit, Callback, Any]
_BATCH_COMMITS = 256
_BATCH_BYTES = 8 * 1024 * 1024
_BATCH_ROWS = 1_000
_SCAN = 2_048
_RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_DAMAGED_S = 5.0


class Committing(Protocol):
    """The part of the store that a lane needs. flushers: how many calls of commit may be in flight."""

    flushers: int

    def commit(self, commits: Sequence[Commit], owner: Fence | None = None) -> Awaitable[list[CommitResult]]:
        """See ports/store.py."""
        ...


class Lane:
    """The queue of Commits before the store. Callbacks run on the loop, in the order of the batch, after the commit.

    owner: the fence of this node, once it serves the database: nothing is written where it does not hold (H31).
    doubted: called when all of a batch was fenced.
    """

    def __init__(self, store: Committing) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._pending: dict[str, deque[Item]] = {}
        self._count = 0
        self._busy: set[str] = set()
        self._flying = 0
        self._armed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self.transactions = 0
        self.trouble: UnavailableError | None = None
        """What the store last answered, if that was trouble: what is queued waits."""
        self.owner: Fence | None = None
        self.tally: Tally | None = None
        """Who counts what becomes durable, where somebody wants to know."""
        self.doubted: Callable[[], None] = lambda: None

    def submit(self, commit: Commit, callback: Callback, argument: Any = None) -> None:
        """Queues a Commit; the callback learns the result once it is durable."""
        queue = self._pending.get(commit.env)
        if queue is None:
            queue = self._pending[commit.env] = deque()
        queue.append((commit, callback, argument))
        self._count += 1
        if not self._armed and self._flying < self._store.flushers:
            self._armed = True
            self._loop.call_soon(self.start)

    async def apply(self, commit: Commit) -> CommitResult:
        """Submits a Commit and waits for it: for rare things."""
        future: asyncio.Future[CommitResult] = self._loop.create_future()

        def done(result: CommitResult, _: Any) -> None:
            if not future.done():
                future.set_result(result)

        self.submit(commit, done)
        return await future

    @property
    def pending(self) -> int:
        """Commits not yet taken into a batch."""
        return self._count

    def idle(self) -> bool:
        """Nothing is queued or in flight."""
        return self._count == 0 and self._flying == 0

    async def settle(self) -> None:
        """Waits until nothing is queued or in flight."""
        while not self.idle():
            self._idle.clear()
            await self._idle.wait()

    def start(self) -> None:
        """Sends what is queued, as far as the store takes it. Whoever has nothing to add need not wait for a turn."""
        self._armed = False
        while self._count and self._flying < self._store.flushers:
            batch = self._take()
            if not batch:
                return
            self._flying += 1
            self._send(batch)

    def _take(self) -> list[Item]:
        batch: list[Item] = []
        room = [_BATCH_ROWS, _BATCH_BYTES]
        share = max(1, _BATCH_COMMITS // len(self._pending))
        for env in list(self._pending):
            queue = self._pending.pop(env)
            self._take_from(queue, batch, room, share)
            if queue:
                self._pending[env] = queue  # behind the others: environments take turns
            if len(batch) >= _BATCH_COMMITS or room[0] <= 0 or room[1] <= 0:
                break
        self._count -= len(batch)
        return batch

    def _take_from(self, queue: deque[Item], batch: list[Any], room: list[int], most: int) -> None:
        busy = self._busy
        held: list[Item] = []
        held_keys: set[str] = set()
        written: set[str] = set()
        rows, size = room
        count = len(batch)
        most += count
        for _ in range(min(len(queue), _SCAN)):
            item = queue.popleft()
            commit = item[0]
            touches = commit.touches
            if isinstance(commit.decider, SessionWrite):
                # A batch that checks the session goes first, alone (H33): the write begins the next batch.
                session_id = commit.decider.row.id
                if any(fence.session_id == session_id for other in batch for fence in other[0].fences):
                    queue.appendleft(item)
                    break
                written.add(session_id)
            elif written and any(fence.session_id in written for fence in commit.fences):
                held.append(item)
                held_keys.update(touches)
                continue
            if touches and (not busy.isdisjoint(touches) or (held and not held_keys.isdisjoint(touches))):
                held.append(item)
                held_keys.update(touches)
                continue
            if count and size < commit.size:
                queue.appendleft(item)
                break
            busy.update(touches)
            batch.append(item)
            count += 1
            rows -= 3 + len(commit.runs) + len(commit.events) + len(commit.outcomes) + len(commit.moves)
            size -= commit.size
            if count >= most or rows <= 0 or size <= 0:
                break
        room[:] = rows, size
        queue.extendleft(reversed(held))

    def _send(self, batch: list[Item], tries: int = 0) -> None:
        sent = asyncio.ensure_future(self._store.commit([item[0] for item in batch], self.owner))
        if self.tally is not None:
            self.tally.sent(sent, self._loop)
        sent.add_done_callback(lambda sent: self._answered(batch, sent, tries))

    def _answered(self, batch: list[Item], sent: asyncio.Future[list[CommitResult]], tries: int) -> None:
        if sent.cancelled():
            return  # the loop is being closed: what became of it is read by the next server
        error = sent.exception()
        if error is None:
            self.trouble = None
            self._landed(batch, sent.result())
        elif isinstance(error, UnavailableError):
            self.trouble = error
            delay_s = _RETRY_S[min(tries, len(_RETRY_S) - 1)]
            if isinstance(error, CorruptError):
                delay_s = _DAMAGED_S
                log.critical("the store is damaged, %d commits wait: %s", len(batch), error)
            elif tries == 0:
                log.error("the store is not available, %d commits wait: %s", len(batch), error)
            self._loop.call_later(delay_s, self._send, batch, tries + 1)
        elif len(batch) > 1:
            log.error("a batch of %d commits broke the store's code: each is tried alone", len(batch), exc_info=error)
            self._apart(batch)
        else:
            self._landed(batch, [CommitResult(Verdict.REFUSED, f"{type(error).__name__}: {error}")])

    def _apart(self, batch: list[Item]) -> None:
        """A batch raised what no store may raise: the others must not suffer from the culprit (H32)."""
        self._flying += len(batch) - 1
        for item in batch:
            self._send([item])

    def _landed(self, batch: list[Item], results: list[CommitResult]) -> None:
        self.transactions += 1
        if self.tally is not None:
            self.tally.landed(batch, results)
        for item in batch:
            self._busy.difference_update(item[0].touches)
        self._flying -= 1
        if all(result.verdict is Verdict.FENCED for result in results):
            self.doubted()
        for (commit, callback, argument), result in zip(batch, results, strict=True):
            if result.verdict is Verdict.REFUSED:
                log.error("the store refused a commit of %s: %s", commit.touches[:3], result.existing)
            try:
                callback(result, argument)
            except Exception:
                log.exception("a callback after a commit failed; touches %s", commit.touches[:3])
        if self._count:
            self.start()
        if self.idle():
            self._idle.set()
