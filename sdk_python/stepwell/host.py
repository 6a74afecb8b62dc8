"""Hosts runs on the user's loop: applies the server's frames to residents, runs their bodies, sends what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import time, time_ns
from typing import TYPE_CHECKING

from stepwell.bodies import Attempt, Bodies
from stepwell.core import EXECUTING, FENCED, PARKED
from stepwell.frames import Decision, split
from stepwell.logs import log
from stepwell.reentry import Reentry
from stepwell.residents import Resident, Residents
from stepwell.session import Arrived, Lapsed, Lost, Mailbox, Opened
from stepwell.stream import Batch, Digest, Stream
from stepwell.tracing import tracing
from stepwell.v1 import step_pb2

if TYPE_CHECKING:
    from stepwell.function import App

_NUMBERED = (
    step_pb2.StepResult,
    step_pb2.Delivered,
    step_pb2.Complete,
    step_pb2.Fail,
    step_pb2.Cancelled,
)


class Host:
    """Everything but `listing` is called on the user's loop.

    `idle` is called when a draining host has nothing left to do.
    """

    def __init__(
        self,
        app: App,
        loop: asyncio.AbstractEventLoop,
        *,
        threads: int,
        max_parked: int,
        idle: Callable[[], None],
    ) -> None:
        self._app = app
        self._loop = loop
        self._max_parked = max_parked
        self._idle = idle
        self._stream: Stream | None = None
        self._applied = 0
        self._limits = step_pb2.Limits()
        self._outgoing: list[Decision] = []
        self._flush_due = False
        self._ahead_ms = 0
        self._tracing = tracing(self.now_ns)
        self.draining = False
        self.residents = Residents()
        self.bodies: Bodies[Resident] = Bodies(loop, threads, self.now_ms, self._attempt_ended)
        self.mailbox = Mailbox(loop, self._apply_news)

    def now_ms(self) -> int:
        """The server's time as far as it is known: a dev server's clock may be days ahead of this machine's."""
        return int(time() * 1000) + self._ahead_ms

    def now_ns(self) -> int:
        """The same as finely as this machine's clock goes."""
        return time_ns() + self._ahead_ms * 1_000_000

    def listing(self) -> list[step_pb2.Resident]:
        """The residents for Hello, from any thread: what has arrived but was not yet applied counts too."""
        # The mailbox is read first: an item leaves it only after it was applied.
        unapplied = list(self.mailbox.items)
        listed = self.residents.listing()
        for item in unapplied:
            if isinstance(item, Arrived) and not item.stream.overslept:
                for one in item.work.assigns:
                    if not one.more:
                        listed[one.run_id] = step_pb2.Resident(run_id=one.run_id, turn=one.turn)
        return list(listed.values())

    def evict_all(self) -> None:
        """Fences every run, then unwinds it and stops its bodies."""
        for resident in self.residents:
            self._evict(resident)
        self._outgoing.clear()

    def drain(self) -> None:
        """Starts no more bodies, and gives back what is parked. `idle` is called once nothing executes."""
        self.draining = True
        self._flush()

    @property
    def connected(self) -> bool:
        """There is a stream to send on."""
        return self._stream is not None

    def send(self, frame: step_pb2.ConnectRequest) -> None:
        """Sends a frame of the worker itself, after what the runs have to say."""
        self._flush()
        if self._stream is not None:
            self._stream.send(frame)

    # --- news from the I/O thread ---

    def _apply_news(self) -> None:
        items = self.mailbox.items
        while items:
            item = items[0]
            try:
                if isinstance(item, Arrived):
                    self._apply_work(item.stream, item.work)
                elif isinstance(item, Opened):
                    self._apply_opened(item)
                elif isinstance(item, Lost):
                    if item.stream is self._stream:
                        self._stream = None
                else:
                    assert isinstance(item, Lapsed)
                    self.evict_all()
            finally:
                items.popleft()
            self._flush()

    def _apply_opened(self, item: Opened) -> None:
        welcome = item.stream.welcome
        self._stream = item.stream
        self._applied = 1
        self._limits = welcome.limits
        self._ahead_ms = 0
        self._ahead_ms = welcome.now_ms - self.now_ms() if welcome.now_ms else 0
        self._outgoing.clear()  # all of it is sent again below
        refused = {one.run_id for one in welcome.refused}
        for resident in self.residents:
            # What Hello could not name is no longer this session's: the server has queued it anew.
            if item.listed.get(resident.run_id) != resident.turn or resident.run_id in refused:
                self._evict(resident)
        for run_id, turn in item.listed.items():
            if self.residents.get(run_id) is None and run_id not in refused:
                # Forgotten between Hello and Welcome, in a frame that was not sent.
                release = step_pb2.Release(run_id=run_id, turn=turn)
                self._outgoing.append((run_id, (release,)))
        for resident in self.residents:
            if resident.reentry is not None:
                self._outgoing.extend(split(resident.run_id, resident.reentry.unacknowledged()))

    def _apply_work(self, stream: Stream, work: step_pb2.Work) -> None:
        """Applies a frame in the order of its fields. Of a stream that was left, only facts about runs count."""
        if stream.overslept:
            return
        current = stream is self._stream
        self._applied += current
        find = self._find
        for ack in work.acks:
            if (resident := find(ack.run_id, ack.turn)) and resident.reentry is not None:
                try:
                    resident.reentry.ack(ack.number)
                except Exception:
                    self._broken(resident)
                    continue
                self._proceed(resident)
        if current:
            for assign in work.assigns:
                self._assign(assign)
            for part in work.journal_parts:
                self._assign_part(part)
        if work.outcomes:
            self._deliver(work.outcomes)
        for cancel in work.cancels:
            if resident := find(cancel.run_id, cancel.turn):
                if resident.reentry is None:
                    assert resident.assign is not None, "what has no re-entry yet has an assignment"
                    resident.assign.cancelled = True
                    resident.assign.cancel_failure.CopyFrom(cancel.failure)
                    continue
                try:
                    resident.reentry.cancel(cancel.failure.message)
                except Exception:
                    self._broken(resident)
                    continue
                self._proceed(resident)
        if current:
            for evict in work.evicts:
                if resident := find(evict.run_id, evict.turn):
                    self._evict(resident)
            for refused in work.refused:
                self._refused(refused)

    def _find(self, run_id: str, turn: int) -> Resident | None:
        resident = self.residents.get(run_id)
        return resident if resident is not None and resident.turn == turn else None

    def _assign(self, assign: step_pb2.Assign) -> None:
        before = self.residents.get(assign.run_id)
        if before is not None:
            if before.turn >= assign.turn:
                return  # the same assignment twice
            self._evict(before)
        resident = Resident(assign)
        self.residents.add(resident)
        if not assign.more:
            self._enter(resident, assign)

    def _assign_part(self, part: step_pb2.JournalPart) -> None:
        resident = self._find(part.run_id, part.turn)
        if resident is None or resident.assign is None:
            return
        resident.assign.journal.extend(part.journal)
        resident.assign.open.extend(part.open)
        if not part.more:
            self._enter(resident, resident.assign)

    def _enter(self, resident: Resident, assign: step_pb2.Assign) -> None:
        """Runs the function's code for the first time, or again over its journal."""
        resident.assign = None
        self._learn_time(assign.created_ms)
        function = self._app.functions.get(assign.function_id.partition("/")[2])
        if function is None:
            log.error("run %s is of %s, which this app has not got: forgotten", assign.run_id, assign.function_id)
            self._evict(resident)
            return
        try:
            resident.reentry = Reentry(function, assign, self._limits)
            if self._tracing is not None:
                resident.reentry.trace = self._tracing.of(function, assign)
            for outcome in resident.early:
                resident.reentry.resolve(outcome)
            resident.early.clear()
            resident.reentry.start()
        except Exception:
            self._broken(resident)
            return
        self._proceed(resident)

    def _deliver(self, outcomes: Iterable[step_pb2.Outcome]) -> None:
        for outcome in outcomes:
            self._learn_time(outcome.time_ms)
            resident = self._find(outcome.run_id, outcome.turn)
            if resident is None:
                continue
            if resident.reentry is None:
                resident.early.append(outcome)
                continue
            try:
                resident.reentry.resolve(outcome)
            except Exception:
                self._broken(resident)
                continue
            self._proceed(resident)

    def _refused(self, refused: step_pb2.Refused) -> None:
        resident = self._find(refused.run_id, refused.turn)
        if resident is None:
            return
        if refused.reason == "NOT_RESIDENT":
            log.warning("run %s is no longer this worker's: %s", refused.run_id, refused.message)
        else:
            log.error(
                "a command of run %s, step %r was refused: %s: %s",
                refused.run_id, refused.key, refused.reason, refused.message,
            )  # fmt: skip
        self._evict(resident)

    def _learn_time(self, server_ms: int) -> None:
        ahead = server_ms - self.now_ms()
        if ahead > 0:
            self._ahead_ms += ahead

    # --- runs and their bodies ---

    def _proceed(self, resident: Resident) -> None:
        """Takes what the code left behind: commands go out, bodies begin, until nothing is left to do here."""
        reentry = resident.reentry
        if resident.evicted or reentry is None:
            return
        if reentry.commands:
            self._take(resident, reentry)
        while True:
            if reentry.interrupts:
                self._interrupt(resident, reentry)
            if not reentry.bodies or self.draining:
                break
            bodies, reentry.bodies = reentry.bodies, []
            ended: list[Attempt[Resident]] = []
            for body in bodies:
                attempt = self.bodies.start(resident, body)
                if attempt.ended:
                    ended.append(attempt)
                else:
                    resident.attempts[body.key] = attempt
            for attempt in ended:
                if not self._finish(resident, reentry, attempt):
                    return
        state = reentry.state
        if state is EXECUTING or state is PARKED:
            parked = state is PARKED
            if parked is not resident.parked:
                self.residents.set_parked(resident, parked)
        elif state is FENCED:
            self._evict(resident)
        elif reentry.settled:
            if reentry.trace is not None:
                reentry.trace.settled()
            resident.evicted = True
            self.residents.remove(resident)

    def _take(self, resident: Resident, reentry: Reentry) -> None:
        """What one call of the code left behind is one decision; the calls after it may share its frame, or not."""
        self._outgoing.append((resident.run_id, reentry.commands.copy()))
        reentry.commands.clear()

    def _interrupt(self, resident: Resident, reentry: Reentry) -> None:
        for key in reentry.interrupts:
            attempt = resident.attempts.pop(key, None)
            if attempt is not None:
                self.bodies.interrupt(attempt)
        reentry.interrupts = []

    def _finish(self, resident: Resident, reentry: Reentry, attempt: Attempt[Resident]) -> bool:
        """Gives the code what a body made, and takes what it answers; False if the run had to be given up."""
        body = attempt.body
        try:
            reentry.finish(body.key, body.attempt, attempt.value, attempt.error, attempt.started_ms, attempt.ended_ms)
        except Exception:
            self._broken(resident)
            return False
        if reentry.commands:
            self._take(resident, reentry)
        return True

    def _attempt_ended(self, attempt: Attempt[Resident]) -> None:
        """A body that did wait, or ran in a thread, has ended."""
        resident = attempt.owner
        if resident.evicted or resident.attempts.get(attempt.body.key) is not attempt:
            return
        del resident.attempts[attempt.body.key]
        assert resident.reentry is not None, "only code that runs has bodies"
        if self._finish(resident, resident.reentry, attempt):
            self._proceed(resident)
        self._flush_soon()

    def _broken(self, resident: Resident) -> None:
        log.exception("run %s broke the worker's own rules; it is forgotten here", resident.run_id)
        self._evict(resident)

    def _evict(self, resident: Resident) -> None:
        """Forgets a run: first its code is fenced, so that what it does while it unwinds is not heard (H3)."""
        if resident.evicted:
            return
        resident.evicted = True
        self.residents.remove(resident)
        if resident.reentry is not None:
            try:
                resident.reentry.evict()
            except Exception:
                log.exception("run %s raised while it was unwound", resident.run_id)
        for attempt in resident.attempts.values():
            self.bodies.interrupt(attempt)
        resident.attempts.clear()

    # --- outwards ---

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        excess = self.residents.parked - (0 if self.draining else self._max_parked)
        if excess > 0:
            self._release(excess)
        outgoing, self._outgoing = self._outgoing, []
        if self._stream is not None:
            digest = Digest(len(self.residents), self.residents.hash, self._applied)
            self._stream.send(Batch(outgoing, digest))
        if self.draining and self._is_idle():
            self._idle()

    def _release(self, excess: int) -> None:
        """Gives the longest parked runs back. One with results under way stays: they would be lost with the stream."""
        # Plain functions go first: each of them holds a thread while it is parked (H39b).
        parked = sorted(self.residents.longest_parked(), key=_holds_no_thread)
        for resident in parked[:excess]:
            assert resident.reentry is not None, "only code that runs can park"
            if _pending(resident.reentry):
                continue
            release = step_pb2.Release(run_id=resident.run_id, turn=resident.turn)
            self._outgoing.append((resident.run_id, (release,)))
            self._evict(resident)

    def _is_idle(self) -> bool:
        for resident in self.residents:
            if resident.attempts or (resident.reentry is not None and _pending(resident.reentry)):
                return False
        return True


def _holds_no_thread(resident: Resident) -> bool:
    return resident.reentry is not None and not resident.reentry.function.is_sync


def _pending(reentry: Reentry) -> bool:
    """Whether something the code has seen is not yet durable."""
    return any(isinstance(command, _NUMBERED) for command in reentry.unacknowledged())
