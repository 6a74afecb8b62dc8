"""Small pools of ids and values, so that random Commits collide."""

from __future__ import annotations

from random import Random
from typing import Any

from stepwell_server.model.claim import ClaimEnd, ClaimRow, MemberRow
from stepwell_server.model.event import CursorRow, DedupRow, EventRow
from stepwell_server.model.function import DeploymentRow, ShapeRow, Standing, SwitchRow
from stepwell_server.model.journal import CANCEL_KEY, OutcomeRow, StepKind, WaitRow
from stepwell_server.model.limits import DAY_MS
from stepwell_server.model.run import ENDS, GATHERED, LIVE, End, Enqueue, Move, Reline, RunRow, RunStatus, Take
from stepwell_server.model.session import Fence, LeaseRow, LeaseWrite, SessionRow, SessionWrite

NOW = 1_800_000_000_000
ENVS = ("prod", "test")
RUNS = tuple(f"run_{NOW + n:012x}{n:020x}" for n in range(9))
EVENTS = tuple(f"evt_{NOW + n:012x}{n:020x}" for n in range(6))
SESSIONS = tuple(f"ses_{NOW + n:012x}{n:020x}" for n in range(3))
LINES = ("", "a", 'a["x"]')
FUNCTIONS = ("shop/drip", "shop/charge", "bank/pay")
EVENT_NAMES = ("user/a", "user/b", "order")
CLAIMS = ("s:shop/drip:1", "s:shop/drip:2")
KEYS = ("a", "b", "pay#2", "$cancel")
MATCH_KEYS = ("", "u1", "u2")
TURNS = (0, 1, 2)
_LIVE = sorted(int(status) for status in LIVE)
_ENDS = sorted(int(status) for status in ENDS)
_BYTES = (None, b"", b"1", b'{"a":"\xc5\xbe"}', b"\x00\xff")
_TEXTS = ("", "x", 'it\'s "so"; --', "žluť 🦄")


class Pools:
    """Draws rows. The shape of a row is that of the model; its values are few."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.env = ENVS[0]

    def bytes_(self) -> bytes | None:
        return self.rng.choice(_BYTES)

    def data(self) -> bytes:
        return self.rng.choice(_BYTES) or b""

    def text(self) -> str:
        return self.rng.choice(_TEXTS)

    def ms(self) -> int:
        return NOW + self.rng.randrange(6)

    def priority(self) -> int:
        return self.rng.choice((-1, 0, 1))

    def maybe(self, value: Any) -> Any:
        return value if self.rng.random() < 0.5 else None

    def run_id(self) -> str:
        return self.rng.choice(RUNS)

    def key(self) -> str:
        return self.rng.choice(KEYS)

    def session_id(self) -> str:
        return self.rng.choice(SESSIONS)

    def place(self) -> tuple[str, str, str]:
        return self.env, self.run_id(), self.key()

    def event(self) -> EventRow:
        name, text = self.rng.choice(EVENT_NAMES), self.text()
        return EventRow(
            self.env, self.rng.choice(EVENTS), name, self.data(), "", text, self.ms(), self.ms(), self.data()
        )

    def cursor(self) -> CursorRow:
        return CursorRow(self.env, self.rng.choice(EVENTS), ",".join(self.rng.sample(EVENTS, 2)))

    def run(self) -> RunRow:
        status = self.rng.choice(_LIVE) if self.rng.random() < 0.9 else self.rng.choice(_ENDS)
        return RunRow(
            env=self.env,
            id=self.run_id(),
            function_id=self.rng.choice(FUNCTIONS),
            app=self.text(),
            status=status,
            reason=self.rng.randrange(5),
            turn=self.rng.choice(TURNS),
            session_id=self.maybe(self.session_id()),
            event_id=self.maybe(self.rng.choice(EVENTS)),
            parent_id=self.maybe(self.run_id()),
            parent_key=self.maybe(self.key()),
            detached=self.rng.random() < 0.5,
            depth=self.rng.randrange(3),
            deployment=self.rng.choice(("", "d1")),
            losses=self.rng.randrange(2),
            priority=self.priority(),
            queued_ms=self.ms(),
            created_ms=self.ms(),
            started_ms=self.maybe(self.ms()),
            ended_ms=self.ms() if status in _ENDS else None,
            input=self.bytes_(),
            input_encoding=self.rng.choice(("", "", GATHERED)),
            output=self.bytes_(),
            output_encoding=self.rng.choice(("", "proto")),
            failure=self.bytes_(),
            metadata=self.data(),
            line=self.rng.choice(LINES),
        )

    def outcome(self) -> OutcomeRow:
        place = self.place()
        own = (StepKind.CANCEL, StepKind.TIMEOUT)
        return OutcomeRow(
            *place,
            number=self.maybe(self.rng.randrange(1, 7)),
            kind=int(self.rng.choice(own if place[2] == CANCEL_KEY else (StepKind.RUN, StepKind.EVENT))),
            target=self.text(),
            output=self.rng.choice((None, b"1")),
            output_encoding="",
            failure=self.rng.choice((None, None, b"{}")),
            attempt=self.rng.choice((1, 1, 2)),
            started_ms=self.ms(),
            ended_ms=self.ms(),
            input_hash=self.data(),
            event_id=self.maybe(EVENTS[0]),
            child_id=self.maybe(self.run_id()),
        )

    def wait(self) -> WaitRow:
        return WaitRow(
            *self.place(),
            kind=int(self.rng.choice((StepKind.EVENT, StepKind.EVENT, StepKind.SLEEP))),
            target=self.rng.choice(EVENT_NAMES),
            match_key=self.rng.choice((None, *MATCH_KEYS)),
            condition=self.text(),
            due_ms=self.maybe(self.ms()),
            child_id=self.maybe(self.run_id()),
            detached=self.rng.random() < 0.5,
            attempt=self.rng.choice((1, 2)),
            failure=self.bytes_(),
            input_hash=self.data(),
            opened_ms=self.ms(),
            after_event=self.maybe(self.rng.choice(("", *EVENTS))),
            function_id=self.rng.choice(FUNCTIONS),
        )

    def move(self) -> Move:
        turn = self.rng.choice(TURNS)
        return Move(
            env=self.env,
            run_id=self.run_id(),
            expect_turn=turn,
            turn=turn + self.rng.randrange(2),
            status=self.rng.choice(_LIVE),
            reason=self.rng.choice((0, 0, 2)),
            session_id=self.maybe(self.session_id()),
            losses=self.rng.randrange(2),
            started_ms=self.maybe(self.ms()),
            deployment=self.rng.choice(("", "d1", "d2")),
            failure=self.rng.choice((None, None, b"{}")),
            priority=self.priority(),
            queued_ms=self.ms(),
        )

    def take(self) -> Take:
        return Take(
            self.env,
            self.run_id(),
            self.session_id(),
            self.ms(),
            self.rng.choice(("", "d3")),
            self.rng.choice((None, 0, 1)),
        )

    def enqueue(self) -> Enqueue:
        return Enqueue(self.env, self.run_id(), self.priority(), self.ms(), self.maybe(self.rng.choice(EVENTS)))

    def reline(self) -> Reline:
        return Reline(self.env, self.run_id(), self.rng.choice(LINES))

    def end(self) -> End:
        status = self.rng.choice([end for end in _ENDS if end != RunStatus.SKIPPED])
        turn, output = self.rng.choice(TURNS), self.bytes_()
        return End(self.env, self.run_id(), turn, status, self.ms(), output, "", self.bytes_())

    def dedup(self) -> DedupRow:
        key, value = self.rng.choice(("r:1", "r:2", "e:1")), self.rng.choice(("v1", "v2"))
        return DedupRow(self.env, key, value, NOW + self.rng.choice((0, 1, DAY_MS, DAY_MS + 1)))

    def claim(self) -> ClaimRow:
        version, holder = self.rng.choice((1, 2, 2, 3, 3, 4)), self.rng.choice(("", RUNS[0], RUNS[1]))
        return ClaimRow(self.env, self.rng.choice(CLAIMS), version, holder, self.text(), self.ms())

    def claim_end(self) -> ClaimEnd:
        return ClaimEnd(self.env, self.rng.choice(CLAIMS), self.rng.choice(RUNS[:2]), self.ms())

    def member(self) -> MemberRow:
        joined = self.rng.choice((self.run_id(), self.run_id(), ""))
        return MemberRow(self.env, self.rng.choice(EVENTS), self.rng.choice(FUNCTIONS), joined)

    def deployment(self) -> DeploymentRow:
        function = self.rng.choice(FUNCTIONS)
        app, id_ = self.rng.choice(("shop", "bank")), self.rng.choice(("d1", "d2"))
        return DeploymentRow(self.env, app, id_, self.ms(), b'[{"id":"%s"}]' % function.encode())

    def shape(self) -> ShapeRow:
        return ShapeRow(self.env, self.rng.choice(EVENT_NAMES), self.rng.choice(("", "data.a", "data.b")))

    def switch(self) -> SwitchRow:
        return SwitchRow(self.env, self.rng.choice(FUNCTIONS), self.ms(), int(self.rng.choice(list(Standing))))

    def session(self) -> SessionRow:
        return SessionRow(
            env=self.env,
            id=self.session_id(),
            epoch=self.rng.choice((1, 2, 3)),
            node=self.rng.choice(("n1", "n2")),
            app="shop",
            deployment="d1",
            instance="i",
            sdk="s",
            capacity=10,
            function_ids=FUNCTIONS[0],
            opened_ms=NOW,
            closed_ms=self.ms() if self.rng.random() < 0.1 else None,
        )

    def session_write(self) -> SessionWrite:
        row = self.session()
        return SessionWrite(row.epoch - 1, row)

    def lease_write(self) -> LeaseWrite:
        holder, beat = self.rng.choice((("", 0), ("n1", 1), ("n1", 2), ("n2", 1)))
        return LeaseWrite(holder, beat, LeaseRow("serve", self.rng.choice(("n1", "n2")), beat + 1, ""))

    def fence(self) -> Fence:
        return Fence(self.env, self.session_id(), self.rng.choice((1, 2, 2, 3)))
