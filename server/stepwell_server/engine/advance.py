"""A frame of a worker's commands becomes Commits: one for each run that it names.

Commands are checked against what the owner knows of the run; a bad one is refused and changes nothing. What a worker
sends twice (after a reconnect) is recognised by its number or key and acknowledged (H11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from stepwell_server.engine import admission, dispatch, expressions, ingest, matching, serve, settle, wake
from stepwell_server.engine.failures import failure_json, too_large, tried
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.residents import Resident, Session, Tree, base_key
from stepwell_server.engine.retry import bounded, next_delay_ms
from stepwell_server.model import ids
from stepwell_server.model.commit import Commit
from stepwell_server.model.errors import InvalidError
from stepwell_server.model.event import EventRow
from stepwell_server.model.function import RetryPolicy, ShapeRow
from stepwell_server.model.journal import (
    CANCEL_KEY,
    RUN_KEY,
    Number,
    OutcomeDelete,
    OutcomeRow,
    StepKind,
    WaitDelete,
    WaitRow,
)
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import End, Move, PausedReason, ReadyRow, RunRow, RunStatus

_RUN = int(StepKind.RUN)
_UNREAD = 2**62
_HASH_BYTES = 32
_ENCODING_LETTERS = 64


class Draft:
    """What one frame changes in one run; becomes a Commit. What is not set is the class's: most change little."""

    highest = 0
    named = 0
    seen: tuple[int, ...] = ()
    twice = False
    left = 0
    size = 0
    refused = False
    released = False
    outcomes: list[OutcomeRow] = []  # noqa: RUF012 (empty and never changed: see add())
    answers: list[OutcomeRow] | None = None
    numbers: list[Number] | None = None
    outcome_deletes: list[OutcomeDelete] | None = None
    waits: list[WaitRow] | None = None
    wait_deletes: list[WaitDelete] | None = None
    moves: list[Move] | None = None
    events: list[tuple[EventRow, Any]] | None = None
    accepted: list[admission.Start] | None = None
    children: list[admission.Start] | None = None
    cancels: list[str] | None = None
    shapes: list[ShapeRow] | None = None
    batch: serve.Accepted | None = None
    end: End | None = None
    parent: OutcomeRow | None = None
    parked: tuple[Tree, int] | None = None
    place: ReadyRow | None = None

    def __init__(self, resident: Resident) -> None:
        self.resident = resident

    def add(self, outcome: OutcomeRow) -> None:
        """One more outcome."""
        if self.outcomes:
            self.outcomes.append(outcome)
        else:
            self.outcomes = [outcome]

    @property
    def plain(self) -> bool:
        """Only results, and perhaps the end: the most frequent case."""
        return not (self.waits or self.numbers or self.answers or self.outcome_deletes or self.children or self.events)

    @property
    def leaves(self) -> bool:
        """The run leaves its worker's memory alive: given back, or to be entered again later."""
        return self.released


class Frame:
    """The commands of one frame of one session. Call the methods in this order, then finish()."""

    __slots__ = ("_drafts", "_env", "_node", "_now", "_session")

    def __init__(self, node: Node, session: Session) -> None:
        self._node = node
        self._session = session
        self._env: Environment = node.environment(session.row.env)
        self._drafts: dict[str, Draft] = {}
        self._now = node.clock.now_ms()

    # -- the run a command is about ------------------------------------------------------------------------------

    def _draft(self, run_id: str, turn: int, key: str) -> Draft | None:
        draft = self._drafts.get(run_id)
        if draft is not None and draft.resident.turn == turn:
            return draft
        resident = self._session.residents.get(run_id)
        if resident is None or resident.turn != turn:
            self._unknown(run_id, turn, key)
            return None
        draft = self._drafts[run_id] = Draft(resident)
        return draft

    def _unknown(self, run_id: str, turn: int, key: str) -> None:
        link = self._session.link
        ended = self._session.ended.get(run_id)
        if link is None:
            return
        if ended is not None and ended[0] == turn and ended[2] != _UNREAD:
            link.ack(run_id, turn, ended[1])
            return
        link.refuse(run_id, turn, key, "NOT_RESIDENT", f"the session does not hold run {run_id[:64]} in turn {turn}")

    def _refuse(self, draft: Draft, key: str, reason: str, message: str) -> None:
        draft.refused = True
        link = self._session.link
        if link is not None:
            link.refuse(draft.resident.run_id, draft.resident.turn, key, reason, message)

    def _numbered(self, draft: Draft, number: int) -> bool:
        """Counts a number in; where it was named before it is acknowledged once more, and not counted (H11)."""
        resident = draft.resident
        if number <= resident.last_number:
            if self._session.link is not None:
                self._session.link.ack(resident.run_id, resident.turn, resident.durable)
            return False
        draft.named += 1
        draft.highest = max(draft.highest, number)
        if draft.named > 1:
            draft.twice = draft.twice or number in draft.seen
        draft.seen = (*draft.seen, number)
        return True

    def _key_ok(self, draft: Draft, key: str) -> bool:
        try:
            ingest.check_text(key, "key", LIMITS.key_bytes)
        except InvalidError as error:
            self._refuse(draft, key[:128], error.reason, error.message)
            return False
        if "#" in key or (key.startswith("$") and not key.startswith("$timer")):
            self._refuse(draft, key, "BAD_COMMAND", "keys that begin with $ or hold a # are Stepwell's own")
            return False
        return True

    def _encoding_ok(self, encoding: str) -> bool:
        return not encoding or (len(encoding) <= _ENCODING_LETTERS and encoding.isprintable())

    def _awake(self, resident: Resident) -> None:
        """A run that sends commands executes, whatever was believed."""
        if not resident.executing:
            resident.executing = True
            resident.tree = None
            self._session.executing += 1

    # -- results -------------------------------------------------------------------------------------------------

    def result(
        self,
        run_id: str,
        turn: int,
        key: str,
        number: int,
        output: bytes,
        encoding: str,
        attempt: int,
        started_ms: int,
        ended_ms: int,
        input_hash: bytes,
    ) -> None:
        """A body returned."""
        draft = self._draft(run_id, turn, key)
        if draft is None or not self._key_ok(draft, key) or not self._numbered(draft, number):
            return
        resident = draft.resident
        if not resident.executing:
            self._awake(resident)
        if len(input_hash) > _HASH_BYTES or not self._encoding_ok(encoding):
            draft.named -= 1
            self._refuse(draft, key, "BAD_COMMAND", "the input's hash or the output's encoding is not one")
            return
        if len(output) > LIMITS.result_bytes:
            draft.named -= 1
            self._refuse(draft, key, "TOO_LARGE", f"the result of step {key} has more than {LIMITS.result_bytes} bytes")
            return
        draft.size += len(output)
        draft.add(
            OutcomeRow(
                resident.env,
                run_id,
                key,
                number,
                _RUN,
                "",
                output,
                encoding,
                None,
                attempt or 1,
                started_ms,
                ended_ms,
                input_hash,
                None,
                None,
            )
        )

    def failure(
        self,
        run_id: str,
        turn: int,
        key: str,
        attempt: int,
        failure: dict[str, Any],
        policy: RetryPolicy,
        retry_after_ms: int | None,
        started_ms: int,
        ended_ms: int,
        input_hash: bytes,
    ) -> None:
        """A body raised: another attempt when it is due, or the step's final failure."""
        draft = self._draft(run_id, turn, key)
        if draft is None or not self._key_ok(draft, key):
            return
        resident = draft.resident
        attempt = max(attempt, 1)
        delay = next_delay_ms(
            bounded(policy), attempt, retry_after_ms, bool(failure.get("non_retriable")), self._node.chance()
        )
        self._failed(draft, key, attempt, failure_json(failure), delay, started_ms, ended_ms, input_hash)
        if not resident.executing:
            self._awake(resident)

    def _failed(
        self,
        draft: Draft,
        key: str,
        attempt: int,
        failure: bytes,
        delay: int | None,
        started_ms: int,
        ended_ms: int,
        input_hash: bytes,
    ) -> None:
        resident = draft.resident
        if delay is not None:
            self._wait(
                draft,
                WaitRow(
                    resident.env,
                    resident.run_id,
                    f"{key}#{attempt + 1}",
                    int(StepKind.RETRY),
                    "",
                    None,
                    "",
                    self._now + delay,
                    None,
                    False,
                    attempt + 1,
                    failure,
                    input_hash,
                    started_ms or self._now,
                    None,
                    resident.function_id,
                ),
            )
            return
        self._answer(
            draft,
            OutcomeRow(
                resident.env,
                resident.run_id,
                key,
                None,
                _RUN,
                "",
                None,
                "",
                failure,
                attempt,
                started_ms,
                ended_ms or self._now,
                input_hash,
                None,
                None,
            ),
        )

    def _answer(self, draft: Draft, outcome: OutcomeRow) -> None:
        """An outcome that the server makes of a command at once: it goes back when it is durable."""
        draft.add(outcome)
        if draft.answers is None:
            draft.answers = []
        draft.answers.append(outcome)

    # -- waits ---------------------------------------------------------------------------------------------------

    def _wait(self, draft: Draft, wait: WaitRow) -> bool:
        """Opens a wait; False where the command came twice, or is one too many."""
        resident = draft.resident
        if resident.open is None:
            resident.open = {}
        if wait.key in resident.open or (resident.unseen is not None and wait.key in resident.unseen):
            return False
        if len(resident.open) >= LIMITS.branches:
            too_many = InvalidError("TOO_MANY", f"a run has at most {LIMITS.branches} open keys")
            self._reject(draft, wait.key, StepKind(wait.kind), wait.target, too_many)
            return False
        resident.open[wait.key] = wait
        if draft.waits is None:
            draft.waits = []
        draft.waits.append(wait)
        if not resident.executing:
            self._awake(resident)
        return True

    def sleep(self, run_id: str, turn: int, key: str, duration_ms: int | None, until_ms: int) -> None:
        """A sleep begins."""
        draft = self._draft(run_id, turn, key)
        if draft is None or not self._key_ok(draft, key):
            return
        due = self._now + duration_ms if duration_ms is not None else max(until_ms, 0)
        if due > self._now + LIMITS.wait_ms:
            too_long = InvalidError("TOO_LONG", f"{key} sleeps longer than 366 days")
            self._reject(draft, key, StepKind.SLEEP, "", too_long)
            return
        resident = draft.resident
        self._wait(draft, self._row(resident, key, StepKind.SLEEP, due=due))

    def _row(
        self,
        resident: Resident,
        key: str,
        kind: StepKind,
        *,
        target: str = "",
        match_key: str | None = None,
        condition: str = "",
        due: int | None = None,
        child: str | None = None,
        detached: bool = False,
        input_hash: bytes = b"",
        after_event: str | None = None,
    ) -> WaitRow:
        return WaitRow(
            resident.env,
            resident.run_id,
            key,
            int(kind),
            target,
            match_key,
            condition,
            due,
            child,
            detached,
            1,
            None,
            input_hash,
            self._now,
            after_event,
            resident.function_id,
        )

    def wait_for_event(
        self,
        run_id: str,
        turn: int,
        key: str,
        event: str,
        match_path: str,
        match_value: bytes,
        condition: str,
        timeout_ms: int,
    ) -> None:
        """A wait for an event begins."""
        draft = self._draft(run_id, turn, key)
        if draft is None or not self._key_ok(draft, key):
            return
        try:
            ingest.check_text(event, "event", LIMITS.name_bytes)
            ingest.check_text(match_path, "match", LIMITS.name_bytes, empty=True)
            if "*" in event:
                raise InvalidError("BAD_NAME", "a wait names one event, without wildcard")
            if condition:
                expressions.check_wait(condition, f"step {key}: if")
            value = orjson.loads(match_value) if match_path else None
            if timeout_ms > LIMITS.wait_ms:
                raise InvalidError("TOO_LONG", "the time-out is longer than 366 days")
        except (InvalidError, orjson.JSONDecodeError) as error:
            self._reject(draft, key, StepKind.EVENT, event, error)
            return
        resident = draft.resident
        shapes = self._env.shapes.get(event, frozenset())
        if match_path not in shapes:
            self._env.shapes[event] = shapes | {match_path}
            draft.shapes = [*(draft.shapes or ()), ShapeRow(resident.env, event, match_path)]
        began = resident.run.event_id or f"evt_{ids.time_part(resident.run.created_ms)}{'0' * 20}"
        self._wait(
            draft,
            self._row(
                resident,
                key,
                StepKind.EVENT,
                target=event,
                match_key=matching.match_key(match_path, value) if match_path else "",
                condition=condition,
                due=self._now + (timeout_ms or LIMITS.wait_ms),
                after_event=began,
            ),
        )

    def _reject(self, draft: Draft, key: str, kind: StepKind, target: str, error: Exception) -> None:
        """A step that can never be right fails in the code, as a typed error."""
        resident = draft.resident
        if resident.unseen is not None and key in resident.unseen:
            return
        reason = error.reason if isinstance(error, InvalidError) else "BAD_JSON"
        failure = failure_json({"type": "InvalidError", "message": str(error), "reason": reason, "non_retriable": True})
        outcome = OutcomeRow(
            resident.env,
            resident.run_id,
            key,
            None,
            int(kind),
            target[:256].replace("\0", "\N{REPLACEMENT CHARACTER}"),
            None,
            "",
            failure,
            1,
            self._now,
            self._now,
            b"",
            None,
            None,
        )
        self._answer(draft, outcome)

    def invoke(
        self,
        run_id: str,
        turn: int,
        key: str,
        function_id: str,
        data: bytes,
        encoding: str,
        timeout_ms: int,
        detached: bool,
        input_hash: bytes,
    ) -> None:
        """A child run begins."""
        draft = self._draft(run_id, turn, key)
        if draft is None or not self._key_ok(draft, key):
            return
        resident = draft.resident
        if (resident.open is not None and key in resident.open) or (resident.unseen and key in resident.unseen):
            return
        function = self._env.triggers.known.get(function_id)
        error: InvalidError | None = None
        if function is None:
            error = InvalidError("FUNCTION_NOT_FOUND", f"no app has registered function {function_id[:256]!r}")
        elif resident.run.depth + 1 > LIMITS.invoke_depth:
            error = InvalidError("TOO_DEEP", f"invokes are nested deeper than {LIMITS.invoke_depth}")
        elif len(data) > LIMITS.result_bytes:
            error = InvalidError("TOO_LARGE", f"the input has more than {LIMITS.result_bytes} bytes")
        elif timeout_ms > LIMITS.wait_ms:
            error = InvalidError("TOO_LONG", "the time-out is longer than 366 days")
        if error is not None or function is None:
            self._reject(draft, key, StepKind.INVOKE, function_id, error or InvalidError("FUNCTION_NOT_FOUND", key))
            return
        child_id = ids.run_id_for_child(resident.env, resident.run_id, key)
        due = self._now + timeout_ms if timeout_ms else None
        wait = self._row(
            resident,
            key,
            StepKind.INVOKE,
            target=function_id,
            due=due,
            child=child_id,
            detached=detached,
            input_hash=input_hash,
        )
        if not self._wait(draft, wait):
            return
        child = RunRow(
            resident.env,
            child_id,
            function_id,
            function.app,
            int(RunStatus.QUEUED),
            0,
            0,
            None,
            None,
            resident.run_id,
            key,
            detached,
            resident.run.depth + 1,
            "",
            0,
            0,
            0,
            self._now,
            None,
            None,
            data,
            encoding,
            None,
            "",
            None,
            b"",
        )
        if draft.children is None:
            draft.children = []
        draft.children.append(admission.begin(self._node, self._env, function_id, child, None))
        draft.size += len(data)

    def send(self, run_id: str, turn: int, key: str, events: Sequence[ingest.NewEvent], input_hash: bytes) -> None:
        """Events are sent, once: they and the step's outcome are one commit."""
        draft = self._draft(run_id, turn, key)
        if draft is None or not self._key_ok(draft, key):
            return
        resident = draft.resident
        if resident.unseen is not None and key in resident.unseen:
            return
        rows: list[tuple[EventRow, Any]] = []
        try:
            if len(events) > LIMITS.send_events:
                raise InvalidError("TOO_MANY", f"{len(events)} events, more than {LIMITS.send_events}")
            for event in events:
                ingest.check_event(event)
                data = ingest.decoded(event)
                id_ = self._node.event_id(self._now)
                rows.append(
                    (
                        EventRow(
                            resident.env,
                            id_,
                            event.name,
                            event.data,
                            event.encoding,
                            event.sender_id,
                            event.time_ms or self._now,
                            self._now,
                            event.metadata,
                        ),
                        data,
                    )
                )
        except InvalidError as error:
            self._reject(draft, key, StepKind.SEND, "", error)
            return
        draft.events = [*(draft.events or ()), *rows]
        self._answer(
            draft,
            OutcomeRow(
                resident.env,
                run_id,
                key,
                None,
                int(StepKind.SEND),
                ",".join(dict.fromkeys(row.name for row, _ in rows))[:256],
                orjson.dumps([row.id for row, _ in rows]),
                "",
                None,
                1,
                self._now,
                self._now,
                input_hash,
                None,
                None,
            ),
        )

    # -- order ---------------------------------------------------------------------------------------------------

    def delivered(self, run_id: str, turn: int, keys: Sequence[tuple[str, int]]) -> None:
        """The code has seen outcomes that the server sent."""
        draft = self._draft(run_id, turn, "")
        if draft is None:
            return
        resident = draft.resident
        for key, number in keys:
            if not self._numbered(draft, number):
                continue
            outcome = resident.unseen.pop(key, None) if resident.unseen is not None else None
            if outcome is None:
                draft.named -= 1
                self._refuse(draft, key, "BAD_COMMAND", f"no outcome of {key[:128]} was sent to the run")
                continue
            if outcome.event_id is not None:
                resident.consume(outcome.event_id)
            if draft.numbers is None:
                draft.numbers = []
            draft.numbers.append(Number(resident.env, run_id, key, number))
            resident.steps += 1
            resident.journal_bytes += len(outcome.output or b"") + len(outcome.failure or b"")

    def abandon(self, run_id: str, turn: int, key: str) -> None:
        """The code no longer asks for a key (H18c)."""
        draft = self._draft(run_id, turn, key)
        if draft is None:
            return
        resident = draft.resident
        env = resident.env
        for name in {key, *(k for k in resident.open or () if base_key(k) == key)}:
            wait = resident.open.pop(name, None) if resident.open is not None else None
            if wait is not None:
                if wait.child_id is not None and not wait.detached:
                    draft.cancels = [*(draft.cancels or ()), wait.child_id]
                draft.wait_deletes = [*(draft.wait_deletes or ()), WaitDelete(env, run_id, name)]
            if resident.unseen is not None and resident.unseen.pop(name, None) is not None:
                draft.outcome_deletes = [*(draft.outcome_deletes or ()), OutcomeDelete(env, run_id, name)]
            if draft.waits is not None:
                draft.waits = [row for row in draft.waits if row.key != name]

    def park(self, run_id: str, turn: int, tree: Tree, received: int) -> None:
        """The run has nothing to execute; void if an outcome is on its way that touches the tree (H16)."""
        draft = self._draft(run_id, turn, "")
        if draft is None:
            return
        resident = draft.resident
        held = {base_key(key) for key in (*(resident.open or ()), *(resident.unseen or ()))}
        held.update(outcome.key for outcome in draft.answers or ())
        keys = tree.all_keys()
        missing = keys - held
        if missing and received >= resident.received:
            name = sorted(missing)[0]
            self._refuse(draft, name, "BAD_PARK", f"{name[:128]} is not open at the server: nothing could wake the run")
            return
        draft.parked = (tree, received)

    def release(self, run_id: str, turn: int) -> None:
        """A run is given back: one that executes goes to the queue."""
        draft = self._draft(run_id, turn, "")
        if draft is not None:
            draft.released = True

    # -- the end -------------------------------------------------------------------------------------------------

    def mismatch(self, run_id: str, turn: int, key: str, recorded: str, attempted: str, location: str) -> None:
        """The code no longer fits the journal: the run is paused, naming both sides (H15)."""
        draft = self._draft(run_id, turn, key)
        if draft is None:
            return
        resident = draft.resident
        message = f"step {key}: the journal holds {recorded}, the code asks for {attempted}"
        if location:
            message += f" at {location}"
        misfits = tried(resident.run.failure) | {self._session.row.deployment}
        failure = failure_json(
            {
                "type": "NondeterminismError",
                "message": message,
                "reason": "NONDETERMINISTIC",
                "details": {"deployments": sorted(misfits)},
            }
        )
        draft.moves = [
            Move(
                resident.env,
                run_id,
                turn,
                turn,
                int(RunStatus.PAUSED),
                int(PausedReason.NONDETERMINISTIC),
                None,
                resident.losses,
                None,
                "",
                failure,
            )
        ]

    def complete(self, run_id: str, turn: int, number: int, output: bytes, encoding: str) -> None:
        """The function returned."""
        draft = self._draft(run_id, turn, "")
        if draft is None or not self._numbered(draft, number):
            return
        if not self._encoding_ok(encoding):
            self._refuse(draft, "", "BAD_COMMAND", "the output's encoding is not a name")
            return
        if len(output) > LIMITS.result_bytes:
            self._end(draft, RunStatus.FAILED, None, "", too_large("the run's output", LIMITS.result_bytes))
            return
        draft.size += len(output)
        self._end(draft, RunStatus.COMPLETED, output, encoding, None)

    def fail(
        self,
        run_id: str,
        turn: int,
        number: int,
        failure: dict[str, Any],
        attempt: int,
        retry_after_ms: int | None,
    ) -> None:
        """The function raised: entered again when that is due, or failed."""
        draft = self._draft(run_id, turn, "")
        if draft is None or not self._numbered(draft, number):
            return
        resident = draft.resident
        function = self._env.triggers.known.get(resident.function_id)
        policy = function.retry if function is not None else RetryPolicy()
        delay = (
            None
            if resident.cancelled
            else next_delay_ms(
                policy,
                max(attempt, 1),
                retry_after_ms,
                bool(failure.get("non_retriable")),
                self._node.chance(),
            )
        )
        if delay is None:
            if resident.cancelled:
                self._end(draft, RunStatus.CANCELLED, None, "", resident.cancel_failure or b"{}")
            else:
                self._end(draft, RunStatus.FAILED, None, "", failure_json(failure))
            return
        # The worker forgets the run; leave to enter it again comes with its next assignment.
        draft.named -= 1
        draft.highest = 0 if draft.named == 0 else draft.highest - 1
        draft.left = number
        self._failed(draft, RUN_KEY, max(attempt, 1), failure_json(failure), delay, 0, self._now, b"")
        draft.released = True

    def cancelled(self, run_id: str, turn: int, number: int) -> None:
        """The function has unwound after Cancel."""
        draft = self._draft(run_id, turn, CANCEL_KEY)
        if draft is None or not self._numbered(draft, number):
            return
        if not draft.resident.cancelled:
            draft.named -= 1
            self._refuse(draft, "", "BAD_COMMAND", "nobody asked for the end of this run")
            return
        self._end(draft, RunStatus.CANCELLED, None, "", draft.resident.cancel_failure or b"{}")

    def _end(self, draft: Draft, status: RunStatus, output: bytes | None, encoding: str, failure: bytes | None) -> None:
        resident = draft.resident
        draft.end = End(resident.env, resident.run_id, resident.turn, int(status), self._now, output, encoding, failure)
        draft.parent = settle.parent_outcome(resident, status, output, encoding, failure, self._now)

    # -- commit --------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Submits a Commit for each run that the frame named. Raises InvalidError where the frame is too large."""
        if sum([draft.size for draft in self._drafts.values()]) > LIMITS.frame_bytes:
            raise InvalidError("TOO_LARGE", f"a frame holds at most {LIMITS.frame_bytes} bytes")
        for draft in self._drafts.values():
            self._submit(draft)

    def _submit(self, draft: Draft) -> None:
        resident = draft.resident
        session = self._session
        if draft.refused:
            settle.undo(self._node, session, draft)
            return
        if draft.named and (draft.twice or draft.highest != resident.last_number + draft.named):
            expected = resident.last_number + draft.named
            self._refuse(draft, "", "OUT_OF_ORDER", f"number {draft.highest} came where {expected} is the highest due")
            settle.undo(self._node, session, draft)
            return
        steps = resident.steps + len(draft.outcomes)
        if steps > LIMITS.journal_steps or resident.journal_bytes + draft.size > LIMITS.journal_bytes:
            settle.journal_full(self._node, session, draft, self._now)
            return
        resident.steps = steps
        resident.journal_bytes += draft.size
        if draft.named:
            resident.last_number = draft.highest
        if draft.leaves and not draft.left and (resident.executing or not resident.can_wake()):
            draft.place = dispatch.ready_row(self._node, resident.env, resident.run_id, resident.run.function_id)
        commit = self._commit(draft)
        if draft.end is not None:
            resident.ended = True
        elif draft.moves is not None:
            dispatch.forget(self._node, resident)
        elif draft.leaves:
            dispatch.forget(self._node, resident)
            if draft.left:
                session.ended[resident.run_id] = (resident.turn, 0, _UNREAD)
        elif draft.parked is not None and settle.parks(resident, draft.parked[0], draft.parked[1]):
            settle.parked(self._node, resident, draft.parked[0])
        self._node.lane.submit(commit, settle.committed, (self._node, session, draft, resident.last_number, commit))

    def _commit(self, draft: Draft) -> Commit:
        resident = draft.resident
        env = resident.env
        run_id = resident.run_id
        commit = Commit(env, touches=(run_id,), fences=self._session.fence, outcomes=draft.outcomes, size=draft.size)
        if draft.numbers is not None:
            commit.numbers = draft.numbers
        if draft.waits:
            commit.waits = draft.waits
        if draft.wait_deletes is not None:
            commit.wait_deletes = draft.wait_deletes
            commit.touches = (run_id, *(f"{run_id}/{row.key}" for row in draft.wait_deletes))
        if draft.outcome_deletes is not None:
            commit.outcome_deletes = draft.outcome_deletes
        if draft.shapes is not None:
            commit.shapes = draft.shapes
            commit.touches = (*commit.touches, f"registry:{env}")
        if draft.children is not None:
            commit.runs = [item.run for item in draft.children]
        if draft.events is not None:
            self._with_events(draft, commit)
        if draft.end is not None:
            commit.ends = (draft.end,)
            settle.close_open(resident, commit)
            if draft.parent is not None:
                commit.resolves = (draft.parent,)
                commit.touches = (*commit.touches, f"{draft.parent.run_id}/{draft.parent.key}")
        elif draft.moves is not None:
            commit.moves = draft.moves
        elif draft.leaves:
            commit.moves = (wake.released_move(resident, draft.place),)
        else:
            self._with_status(draft, commit)
        if draft.plain:
            return commit
        # Whoever resolves one of these keys must not share a batch, nor overtake a batch tried again (H32d, H33).
        changed = (draft.waits, draft.numbers, draft.answers, draft.outcome_deletes)
        keys = [f"{run_id}/{row.key}" for rows in changed for row in rows or ()]
        keys.extend(item.run.id for item in draft.children or ())
        if keys or commit.looked_back:
            commit.touches = (*commit.touches, *keys, *(f"{row.run_id}/{row.key}" for row in commit.looked_back))
        return commit

    def _with_events(self, draft: Draft, commit: Commit) -> None:
        events = draft.events or []
        accepting, starts, draft.batch = ingest.accepting(self._node, self._env, events, None)
        draft.accepted = starts
        commit.events = accepting.events
        commit.cursors = accepting.cursors
        commit.cursor_deletes = accepting.cursor_deletes
        commit.looked_back = accepting.looked_back
        commit.runs = [*commit.runs, *accepting.runs]

    def _with_status(self, draft: Draft, commit: Commit) -> None:
        """The status that the store shows follows with the next commit that is made anyway (see architecture.md)."""
        resident = draft.resident
        parks = draft.parked is not None and settle.parks(resident, draft.parked[0], draft.parked[1])
        status = RunStatus.PARKED if parks else RunStatus.RUNNING
        progress = resident.losses and (draft.outcomes or draft.numbers)
        if status is resident.stored and not progress:
            return
        if progress:
            resident.losses = 0
        resident.stored = status
        commit.moves = (
            Move(
                resident.env,
                resident.run_id,
                resident.turn,
                resident.turn,
                int(status),
                0,
                self._session.id,
                resident.losses,
                None,
                "",
                None,
            ),
        )
