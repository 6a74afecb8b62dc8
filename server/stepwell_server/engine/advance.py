"""A frame of a worker's commands becomes Commits: one for all that only bring results, one for each other run.

Commands are checked against what the owner knows of the run; a bad one is refused and changes nothing. What a worker
sends twice (after a reconnect) is recognised by its number or key and acknowledged (H11).
"""

from __future__ import annotations

from collections.abc import Sequence

from stepwell_server.engine import dispatch, ingest, limits, settle, wake
from stepwell_server.engine.draft import Draft, together
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.residents import Resident, Session, Tree, base_key
from stepwell_server.model.errors import InvalidError
from stepwell_server.model.journal import INNER, Number, OutcomeRow, StepKind, WaitDelete
from stepwell_server.model.limits import LIMITS

_RUN = int(StepKind.RUN)
_UNREAD = 2**62
_HASH_BYTES = 32
_ENCODING_LETTERS = 64


class Frame:
    """One frame of one session: its commands are these methods and the functions of begin.py and conclude.py.

    The order is: results, failures, delivered, what begins, abandons, ends, parks, releases; then finish().
    """

    __slots__ = ("_drafts", "_plain", "env", "node", "now", "session")

    def __init__(self, node: Node, session: Session) -> None:
        self.node = node
        self.session = session
        self.env: Environment = node.environment(session.row.env)
        self._drafts: dict[str, Draft] = {}
        self._plain: list[Draft] = []
        self.now = node.clock.now_ms()

    # -- the run a command is about ------------------------------------------------------------------------------

    def draft(self, run_id: str, turn: int, key: str) -> Draft | None:
        """What the frame changes in a run; None, and told so, where the session does not hold it in this turn."""
        draft = self._held(run_id, turn)
        if draft is None:
            self._unknown(run_id, turn, key)
        return draft

    def _held(self, run_id: str, turn: int) -> Draft | None:
        draft = self._drafts.get(run_id)
        if draft is not None and draft.resident.turn == turn:
            return draft
        resident = self.session.residents.get(run_id)
        if resident is None or resident.turn != turn or resident.ended:
            return None
        draft = self._drafts[run_id] = Draft(resident)
        return draft

    def _unknown(self, run_id: str, turn: int, key: str) -> None:
        link = self.session.link
        ended = self.session.ended.get(run_id)
        if link is None:
            return
        if ended is not None and ended[0] == turn and ended[1]:  # by a number of its own; an evicted run has none
            link.ack(run_id, turn, ended[1])
            return
        link.refuse(run_id, turn, key, "NOT_RESIDENT", f"the session does not hold run {run_id[:64]} in turn {turn}")

    def refuse(self, draft: Draft, key: str, reason: str, message: str) -> None:
        """A command broke the protocol: nothing of the frame is written for this run."""
        draft.refused = True
        link = self.session.link
        if link is not None:
            link.refuse(draft.resident.run_id, draft.resident.turn, key, reason, message)

    def numbered(self, draft: Draft, number: int) -> bool:
        """Counts a number in; where it was named before it is acknowledged once more, and not counted (H11)."""
        resident = draft.resident
        if number == 0:
            self.refuse(draft, "", "MISSING_FIELD", "the number is missing: the first one is 1")
            return False
        if number <= resident.last_number:
            if self.session.link is not None:
                self.session.link.ack(resident.run_id, resident.turn, resident.durable)
            return False
        draft.named += 1
        draft.highest = max(draft.highest, number)
        if draft.named > 1:
            draft.twice = draft.twice or number in draft.seen
        draft.seen = (*draft.seen, number)
        return True

    def key_ok(self, draft: Draft, key: str) -> bool:
        """Whether a step may have this key; refused if not."""
        try:
            ingest.check_text(key, "key", LIMITS.key_bytes)
        except InvalidError as error:
            self.refuse(draft, key[:128], error.reason, error.message)
            return False
        if "#" in key or (key.startswith("$") and not key.startswith("$timer")):
            self.refuse(draft, key, "BAD_COMMAND", "keys that begin with $ or hold a # are Stepwell's own")
            return False
        return True

    def encoding_ok(self, encoding: str) -> bool:
        """Whether this can be the name of an encoding."""
        return not encoding or (len(encoding) <= _ENCODING_LETTERS and encoding.isprintable())

    def awake(self, resident: Resident) -> None:
        """A run that sends commands executes, whatever was believed."""
        if not resident.executing:
            resident.executing = True
            resident.tree = None
            self.session.executing += 1
            if self.env.limited:
                limits.count(self.node, resident.run)

    # -- what the code has done, has seen and no longer asks for -------------------------------------------------

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
        if len(output) > LIMITS.result_bytes:
            self._too_large(run_id, turn, key[:128])
            return
        draft = self.draft(run_id, turn, key)
        if draft is None or not self.key_ok(draft, key) or not self.numbered(draft, number):
            return
        resident = draft.resident
        if not resident.executing:
            self.awake(resident)
        if len(input_hash) > _HASH_BYTES or not self.encoding_ok(encoding):
            draft.named -= 1
            self.refuse(draft, key, "BAD_COMMAND", "the input's hash or the output's encoding is not one")
            return
        if resident.is_decided(key) or (resident.open is not None and key in resident.open):
            draft.named -= 1
            self.refuse(
                draft, key, "BAD_COMMAND", f"step {key} has its outcome already, or waits for another kind of one"
            )
            return
        resident.decide(key)
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

    def _too_large(self, run_id: str, turn: int, key: str) -> None:
        """No such result was ever stored: it is refused whoever holds the run, and even if its number came before."""
        draft = self._held(run_id, turn)
        message = f"the result of step {key} has more than {LIMITS.result_bytes} bytes"
        if draft is not None:
            self.refuse(draft, key, "TOO_LARGE", message)
        elif self.session.link is not None:
            self.session.link.refuse(run_id, turn, key, "TOO_LARGE", message)

    def delivered(self, run_id: str, turn: int, keys: Sequence[tuple[str, int]]) -> None:
        """The code has seen outcomes that the server sent."""
        draft = self.draft(run_id, turn, "")
        if draft is None:
            return
        resident = draft.resident
        for key, number in keys:
            if not self.numbered(draft, number):
                continue
            outcome = resident.unseen.pop(key, None) if resident.unseen is not None else None
            if outcome is None:
                draft.named -= 1
                self.refuse(draft, key, "BAD_COMMAND", f"no outcome of {key[:128]} was sent to the run")
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
        draft = self.draft(run_id, turn, key)
        if draft is None:
            return
        if key.startswith("$") and not key.startswith("$timer"):
            self.refuse(draft, key[:128], "BAD_COMMAND", "keys that begin with $ are Stepwell's own")
            return
        resident = draft.resident
        env = resident.env
        for name in {key, *(k for k in resident.open or () if base_key(k) == key)}:
            wait = resident.open.pop(name, None) if resident.open is not None else None
            if wait is not None:
                if wait.child_id is not None and not wait.detached:
                    draft.cancels = [*(draft.cancels or ()), wait]
                draft.wait_deletes = [*(draft.wait_deletes or ()), WaitDelete(env, run_id, name)]
            outcome = resident.unseen.pop(name, None) if resident.unseen is not None else None
            if outcome is not None:
                numbers, deletes = wake.given_up(outcome)
                draft.numbers = [*(draft.numbers or ()), *numbers]
                draft.outcome_deletes = [*(draft.outcome_deletes or ()), *deletes]
            elif wait is not None or name in (resident.pending or ()) or resident.is_decided(name):
                resident.give_up(name)  # it may be on its way
            if draft.waits is not None:
                draft.waits = [row for row in draft.waits if row.key != name]

    def park(self, run_id: str, turn: int, tree: Tree | None, received: int) -> None:
        """The run has nothing to execute; void if an outcome is on its way that touches the tree (H16)."""
        draft = self.draft(run_id, turn, "")
        if draft is None:
            return
        if tree is None:
            self.refuse(draft, "", "BAD_PARK", "the tree combines its parts neither as ANY nor as ALL")
            return
        resident = draft.resident
        wakers = {base_key(row.key) for row in (resident.open or {}).values() if row.kind not in INNER}
        wakers.update(resident.pending or ())
        keys = tree.all_keys()
        came = {base_key(row.key) for row in (resident.unseen or {}).values() if row.kind not in INNER}
        if received >= resident.received and (keys - wakers - came or not keys & wakers):
            name = min(keys - wakers, default="")
            message = f"{name[:128] or 'nothing'} is not open at the server: nothing could wake the run"
            self.refuse(draft, name, "BAD_PARK", message)
            return
        draft.parked = (tree, received)

    def release(self, run_id: str, turn: int) -> None:
        """A run is given back: one that executes goes to the queue."""
        draft = self.draft(run_id, turn, "")
        if draft is None:
            return
        if draft.end is not None or draft.left or draft.moves is not None:
            self.refuse(draft, "", "BAD_COMMAND", "a run that ends or does not fit is not given back")
            return
        draft.released = True

    # -- commit ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Submits what the frame changes: plain drafts in one Commit, every other run in its own.

        Raises InvalidError where the frame is too large.
        """
        if sum([draft.size for draft in self._drafts.values()]) > LIMITS.frame_bytes:
            raise InvalidError("TOO_LARGE", f"a frame holds at most {LIMITS.frame_bytes} bytes")
        drafts = self._drafts
        while drafts:
            draft = drafts[next(iter(drafts))]
            if not self._sound(draft):
                del drafts[draft.resident.run_id]
            elif draft.plain:
                del drafts[draft.resident.run_id]
                self._plain.append(draft)
                self._leave(draft)
            else:
                self._submit(draft)  # where that raises the draft is still there, and is given up with the others
                del drafts[draft.resident.run_id]
        if self._plain:
            plain, self._plain = self._plain, []
            self.node.lane.submit(together(plain, self.session), settle.all_committed, (self.node, self.session, plain))

    def give_up(self) -> None:
        """The frame cannot be applied: its runs are evicted and queued anew, what it reserved is given back."""
        for draft in (*self._plain, *self._drafts.values()):
            settle.undo(self.node, self.session, draft)
        self._plain.clear()
        self._drafts.clear()

    def _sound(self, draft: Draft) -> bool:
        """Whether the draft may be committed; if not, the run has been dealt with. Counts in what it brings."""
        resident = draft.resident
        session = self.session
        if draft.refused:
            settle.undo(self.node, session, draft)
            return False
        if draft.named and (draft.twice or draft.highest != resident.last_number + draft.named):
            expected = resident.last_number + draft.named
            self.refuse(draft, "", "OUT_OF_ORDER", f"number {draft.highest} came where {expected} is the highest due")
            settle.undo(self.node, session, draft)
            return False
        steps = resident.steps + len(draft.outcomes)
        if steps > LIMITS.journal_steps or resident.journal_bytes + draft.size > LIMITS.journal_bytes:
            settle.journal_full(self.node, session, draft, self.now)
            return False
        resident.steps = steps
        resident.journal_bytes += draft.size
        if draft.named:
            resident.last_number = draft.highest
        draft.number = resident.last_number
        if draft.end is None and draft.moves is None and not draft.released:
            draft.note_status(session)
        return True

    def _submit(self, draft: Draft) -> None:
        resident = draft.resident
        if draft.released and not draft.left and (resident.executing or not resident.can_wake()):
            run = resident.run
            draft.place = dispatch.ready_row(self.node, run.env, run.id, run.function_id, line=run.line)
        commit = draft.commit(self.node, self.env, self.session)
        self._leave(draft)
        self.node.lane.submit(commit, settle.committed, (self.node, self.session, draft, commit))

    def _leave(self, draft: Draft) -> None:
        """What the draft changes in memory at once: the run has ended, left the worker, or has nothing to execute."""
        resident = draft.resident
        if draft.end is not None:
            resident.ended = True
        elif draft.moves is not None:
            dispatch.forget(self.node, resident)
        elif draft.released:
            dispatch.forget(self.node, resident)
            if draft.left:
                self.session.ended[resident.run_id] = (resident.turn, 0, _UNREAD)
        elif draft.parked is not None and resident.may_park(*draft.parked):
            settle.parked(self.node, resident, draft.parked[0])
