"""One node over the memory store with workers written by hand; a test holds any call of the store back as long as it
likes, so that an interleaving is played and not hoped for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
from stepwell_server.adapters.local.clock import SystemClock
from stepwell_server.adapters.local.limiter import LocalLimiter
from stepwell_server.adapters.local.queue import LocalQueue
from stepwell_server.adapters.memory.disjoint import guarded_writes
from stepwell_server.adapters.memory.peers import MemoryPeers, Switchboard
from stepwell_server.adapters.memory.store import MemoryStore
from stepwell_server.engine import begin, conclude, control, ingest, register, sessions
from stepwell_server.engine.advance import Frame
from stepwell_server.engine.cluster import Cluster
from stepwell_server.engine.gates import Gates
from stepwell_server.engine.hearing import Hearing
from stepwell_server.engine.lane import Lane
from stepwell_server.engine.node import Node, Tuning
from stepwell_server.engine.residents import Session, Tree
from stepwell_server.engine.timers import Timers
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.flow import Flow
from stepwell_server.model.function import FunctionSpec, RetryPolicy, Trigger
from stepwell_server.model.journal import OutcomeRow
from stepwell_server.model.run import RunRow, RunStatus
from stepwell_server.model.session import Fence
from stepwell_server.ports.store import RunState

ENV, APP = "dev", "app"
Labels = tuple[tuple[str, str], ...]
_TURNS = 200


class Held:
    """Calls that a test holds back."""

    def __init__(self, fits: Callable[[Any], bool], reads: str = "", asks: str = "") -> None:
        self.fits = fits
        self.reads = reads
        self.asks = asks
        self.calls = 0
        self._go = asyncio.Event()

    async def wait(self) -> None:
        self.calls += 1
        await self._go.wait()

    def release(self) -> None:
        self._go.set()


class HeldStore:
    """The memory store behind gates. overlaps: batches that wrote one place twice, which no store may meet (H33).
    reads: names of those that were asked for.
    """

    flushers = 2

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.overlaps: list[Sequence[Commit]] = []
        self.reads: list[str] = []
        self._held: list[Held] = []
        self.refuses: Callable[[Commit], bool] = lambda commit: False
        """Commits that this store can never take."""

    def hold(self, fits: Callable[[Commit], bool]) -> Held:
        """Batches with a Commit that fits wait until released."""
        return self._add(Held(fits))

    def hold_read(self, name: str) -> Held:
        """The next answer of this read waits until released; what it says is from before."""
        return self._add(Held(lambda _: True, name))

    def hold_question(self, name: str) -> Held:
        """The next call of this read waits until released, and only then looks."""
        return self._add(Held(lambda _: True, asks=name))

    def forget(self, held: Held) -> None:
        """Holds no more calls back, but those that it already does."""
        self._held.remove(held)

    def _add(self, held: Held) -> Held:
        self._held.append(held)
        return held

    async def commit(self, commits: Sequence[Commit], owner: Fence | None = None) -> list[CommitResult]:
        written = [place for commit in commits for place in set(guarded_writes(commit))]
        if len(written) != len(set(written)):
            self.overlaps.append(commits)
        for held in list(self._held):
            if not (held.reads or held.asks) and any(held.fits(commit) for commit in commits):
                await held.wait()
        taken = [commit for commit in commits if not self.refuses(commit)]
        results = iter(await self.memory.commit(taken, owner))
        return [
            CommitResult(Verdict.REFUSED, "too odd") if self.refuses(commit) else next(results) for commit in commits
        ]

    async def _pass(self, gates: list[Held]) -> None:
        for held in gates:
            self._held.remove(held)
            await held.wait()

    def __getattr__(self, name: str) -> Any:
        read = getattr(self.memory, name)

        async def gated(*args: Any, **kwargs: Any) -> Any:
            self.reads.append(name)
            await self._pass([held for held in self._held if held.asks == name][:1])
            result = await read(*args, **kwargs)
            await self._pass([held for held in self._held if held.reads == name][:1])
            return result

        return gated


class Recorder:
    """Implements ports/link.py: keeps what the server tells a worker."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def ack(self, run_id: str, turn: int, number: int) -> None:
        self.told.append(("ack", run_id, turn, number))

    def assign(self, state: RunState, cancelled: bool) -> None:
        self.told.append(("assign", state.run.id, state.run.turn, cancelled))

    def outcome(self, turn: int, outcome: OutcomeRow) -> None:
        self.told.append(("outcome", outcome.run_id, turn, outcome.key))

    def cancel(self, turn: int, request: OutcomeRow) -> None:
        self.told.append(("cancel", request.run_id, turn))

    def evict(self, run_id: str, turn: int) -> None:
        self.told.append(("evict", run_id, turn))

    def refuse(self, run_id: str, turn: int, key: str, reason: str, message: str) -> None:
        self.told.append(("refuse", run_id, turn, reason))

    def pulse(self) -> None:
        return

    def drain(self, reconnect_after_ms: int, reason: str) -> None:
        self.told.append(("drain",))

    def close(self, reason: str, message: str) -> None:
        self.told.append(("close", reason))

    def frames_sent(self) -> int:
        return len(self.told)


class Worker:
    """A connected worker; what it was told is in `link`."""

    def __init__(self, rig: Rig, session: Session, link: Recorder) -> None:
        self.rig = rig
        self.session = session
        self.link = link

    def told(self, kind: str, run_id: str = "") -> list[tuple[Any, ...]]:
        """Everything of a kind that it was told of a run."""
        return [one for one in self.link.told if one[0] == kind and (not run_id or one[1] == run_id)]

    def turn(self, run_id: str) -> int:
        """Of the run's last assignment to this worker."""
        return self.told("assign", run_id)[-1][2]

    def frame(self) -> Frame:
        """A frame of commands; finish() sends it."""
        return Frame(self.rig.node, self.session)

    def park(self, run_id: str, *keys: str, all_of: bool = False, received: int = 0) -> None:
        """The run waits for any of these keys, which are open, or for all of them."""
        frame = self.frame()
        frame.park(run_id, self.turn(run_id), Tree(all_of, keys, ()), received)
        frame.finish()

    def wait(self, run_id: str, key: str, event: str, timeout_ms: int = 3_600_000) -> None:
        """The run begins to wait for an event."""
        frame = self.frame()
        begin.wait_for_event(frame, run_id, self.turn(run_id), key, event, "", b"", "", timeout_ms)
        frame.finish()

    def end(self, run_id: str) -> None:
        """The function returns."""
        frame = self.frame()
        number = self.session.residents[run_id].last_number + 1
        conclude.complete(frame, run_id, self.turn(run_id), number, b"1", "")
        frame.finish()

    def sleep(self, run_id: str, key: str = "nap") -> None:
        """The run begins to sleep, and parks."""
        frame = self.frame()
        begin.sleep(frame, run_id, self.turn(run_id), key, 3_600_000, 0)
        frame.finish()
        self.park(run_id, key)

    def executing(self) -> set[str]:
        """Runs that execute here."""
        return {run_id for run_id, resident in self.session.residents.items() if resident.executing}

    def release(self, run_id: str) -> None:
        """The run is given back."""
        frame = self.frame()
        frame.release(run_id, self.turn(run_id))
        frame.finish()

    async def lost(self) -> None:
        """Its stream ends, and the grace is over."""
        sessions.stream_ended(self.rig.node, self.session, goodbye=False)
        if self.session.expiry is not None:
            self.session.expiry.cancel()
            self.session.expiry = None
        await sessions.expire(self.rig.node, self.session, lost=True)


class Rig:
    """See the module."""

    def __init__(self, tuning: Tuning, name: str, store: HeldStore | None, board: Switchboard | None = None) -> None:
        self.store = store or HeldStore()
        clock = SystemClock()
        cluster = Cluster(name, MemoryPeers(board), clock) if board is not None else None
        ports: Any = self.store
        self.node = Node(
            id_=name, store=ports, history=ports, claims=ports, homes=ports, lane=Lane(ports), clock=clock,
            queue=LocalQueue(ports) if cluster is None else LocalQueue(ports, cluster.share), limiter=LocalLimiter(),
            entropy=lambda n: bytes(range(n)) if n != 10 else self._entropy(), chance=lambda: 0.5, tuning=tuning,
        )  # fmt: skip
        Gates(self.node)
        self.node.alone_since_ms = 0 if cluster is None else None
        self.node.cluster = cluster
        self.timers = Timers(self.node)
        self.hearing: Hearing
        # Two nodes make different ids, also within a millisecond.
        self._count = int.from_bytes(name.encode()[:4], "big") << 32

    def _entropy(self) -> bytes:
        self._count += 1
        return self._count.to_bytes(10, "big")

    async def settle(self) -> None:
        """Everything that can happen without time or a test's leave has happened."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def functions(
        self, deployment: str, names: Sequence[str], attempts: int = 1, flow: Flow | None = None
    ) -> list[FunctionSpec]:
        retry = RetryPolicy(attempts, 1, 1.0, 1, False)
        return [
            FunctionSpec(f"{APP}/{name}", APP, name, (Trigger(f"on/{name}"),), retry, deployment=deployment, flow=flow)
            for name in names
        ]

    def hello(
        self,
        *,
        capacity: int = 10,
        session_id: str = "",
        residents: Sequence[sessions.Held] = (),
        functions: Sequence[str] = ("f",),
        instance: str = "worker",
        deployment: str = "one",
        attempts: int = 1,
        flow: Flow | None = None,
        needs: Labels = (),
        labels: Labels = (),
    ) -> sessions.Hello:
        """What a worker says of itself. attempts, flow: of its functions; needs: the labels that these ask for."""
        specs = [replace(spec, labels=needs) for spec in self.functions(deployment, functions, attempts, flow)]
        nothing = frozenset[str]()
        return sessions.Hello(
            APP, deployment, instance, "hand", session_id, specs, capacity, residents, nothing, labels
        )

    async def connect(self, **hello: Any) -> Worker:
        """A worker that is welcomed."""
        link = Recorder()
        session, _ = await sessions.connect(self.node, self.node.environment(ENV), self.hello(**hello), link)
        sessions.opened(self.node, session)
        await self.settle()
        return Worker(self, session, link)

    async def start(self, function: str = "f") -> str:
        """A new run; durable when this returns."""
        run_id = await control.invoke(self.node, ENV, f"{APP}/{function}", b"", "", "", b"")
        await self.settle()
        return run_id

    async def cancel(self, run_id: str) -> None:
        """Somebody asks for the end of a run; what follows has happened when this returns."""
        await control.cancel(self.node, ENV, run_id, "")
        await self.settle()

    async def send(self, name: str, data: dict[str, Any] | None = None) -> str:
        """An event; durable when this returns, and whoever it was for has it."""
        event = ingest.NewEvent(name, orjson.dumps(data or {}), "", "", 0, b"")
        (status,) = await ingest.send_events(self.node, ENV, "", [event])
        await self.settle()
        return status.event_id

    def outcomes(self, run_id: str) -> dict[str, OutcomeRow]:
        """Outcomes of a run as the store has them, by key."""
        return dict(self.store.memory.tables.outcome.get((ENV, run_id), {}))

    def row(self, run_id: str) -> RunRow:
        """The run as the store has it."""
        return self.store.memory.tables.run[ENV, run_id]

    def status(self, run_id: str) -> RunStatus:
        """The run's status as the store has it."""
        return RunStatus(self.row(run_id).status)

    def waits(self, run_id: str) -> set[str]:
        """Keys of a run's open waits as the store has them."""
        return {row.key for row in self.store.memory.tables.wait.get((ENV, run_id), {}).values()}


async def _nothing(*_: Any) -> None:
    """Nobody needs to be told."""


@asynccontextmanager
async def rig(
    name: str = "node", store: HeldStore | None = None, board: Switchboard | None = None, **tuning: int
) -> AsyncIterator[Rig]:
    """A node with a loaded registry, on a store of its own or beside another node; with a board, one of a cluster."""
    made = Rig(Tuning(**tuning), name, store, board)
    if made.node.cluster is not None:
        made.hearing = Hearing(made.node, made.node.cluster, _nothing, _nothing)
        await made.hearing.start("cluster")
    await register.refresh(made.node, made.node.environment(ENV))
    try:
        yield made
    finally:
        made.timers.stop()
        if made.node.cluster is not None:
            await made.hearing.stop()
        await made.node.cancel_tasks()
        assert not made.store.overlaps
