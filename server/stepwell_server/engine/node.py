"""A node: what the use cases share. It holds state and wiring, and decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from stepwell_server.engine.cluster import Cluster
from stepwell_server.engine.expressions import Unjudged
from stepwell_server.engine.lane import Lane
from stepwell_server.engine.matching import TriggerIndex
from stepwell_server.engine.residents import Resident, Session
from stepwell_server.engine.resting import Resting
from stepwell_server.engine.tally import Tally
from stepwell_server.model import ids
from stepwell_server.model.errors import CorruptError, UnavailableError
from stepwell_server.model.event import EventRow
from stepwell_server.model.function import FunctionSpec, SwitchRow
from stepwell_server.model.journal import LookedBack, OutcomeRow, WaitRow
from stepwell_server.model.run import End, RunRow
from stepwell_server.model.session import Fence, LeaseRow
from stepwell_server.ports.clock import Clock
from stepwell_server.ports.limiter import Limiter
from stepwell_server.ports.queue import Queue
from stepwell_server.ports.store import FIRST, Claims, History, Homes, RunState, Store

T = TypeVar("T")


@dataclass(slots=True)
class Tuning:
    """Times of the engine, in milliseconds. Tests shorten them; nothing else changes them."""

    lease_ms: int = 10_000
    heartbeat_ms: int = 2_500
    stream_grace_ms: int = 700
    home_wait_ms: int = 1_000
    cancel_grace_ms: int = 30_000
    sweep_ms: int = 5_000
    lookback_events: int = 1_000
    lookback_pages: int = 50
    lookback_ms: int = 2_000
    max_losses: int = 5
    drain_ms: int = 2_000
    retention_ms: int = 60_000
    foreign_ms: int = 50
    degraded_ms: int = 400


@dataclass(slots=True)
class Environment:
    """The registry of one environment as this node last read it, and who serves it.

    shapes: paths by event name that waits use, from the moment when a wait asks for one. kept: (event name, path) of
    those that are durable.
    """

    name: str
    version: int = 0
    loaded: bool = False
    unjudged: Unjudged = field(default_factory=Unjudged)
    triggers: TriggerIndex = field(default_factory=lambda: TriggerIndex((), Unjudged()))
    shapes: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    kept: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    current: dict[str, str] = field(default_factory=dict[str, str])
    serving: dict[str, list[Session]] = field(default_factory=dict[str, list[Session]])
    last_event: dict[str, str] = field(default_factory=dict[str, str])
    unmarked: dict[str, int] = field(default_factory=dict[str, int])
    """Batches of an event name on their way to the store without a cursor."""
    pumping: bool = False
    limited: dict[str, FunctionSpec] = field(default_factory=dict[str, FunctionSpec])
    """Functions whose runs have to be granted something: see engine/limits.py."""
    paused: dict[str, SwitchRow] | None = None
    """Functions whose new runs are held back; None where there is none."""
    carried: set[SwitchRow] = field(default_factory=set[SwitchRow])
    """Switches whose consequences for runs are done."""
    carrying: bool = False


class Gates(Protocol):
    """What the gates of functions are told (engine/gates.py)."""

    def admit(
        self, env: Environment, pairs: Sequence[tuple[FunctionSpec, EventRow]], then: Callable[[], None], *, again: bool
    ) -> None:
        """Durable events came to the gates of functions. then: called once for each that is decided. again: some may
        have been decided before."""
        ...

    def waiting(self, state: RunState) -> None:
        """A run that waits at a gate is durable."""
        ...

    async def due(self, waits: Sequence[WaitRow]) -> None:
        """Runs at gates are to be looked at; returns when they were."""
        ...

    def freed(self, env_name: str, key: str) -> None:
        """A claim was let go of."""
        ...

    def until_ms(self, wait: WaitRow) -> int:
        """When a run that gathers starts, as far as this node knows: a debounce is put off without its wait."""
        ...


class Node:
    """One server process: its ports, its environments, its sessions. One loop, no locks."""

    def __init__(
        self,
        *,
        id_: str,
        store: Store,
        history: History,
        claims: Claims,
        homes: Homes,
        lane: Lane,
        clock: Clock,
        queue: Queue,
        limiter: Limiter,
        entropy: Callable[[int], bytes],
        chance: Callable[[], float],
        tuning: Tuning | None = None,
    ) -> None:
        self.id = id_
        self.store = store
        self.history = history
        self.claims = claims
        self.homes = homes
        self.lane = lane
        self.clock = clock
        self.queue = queue
        self.limiter = limiter
        self.resting = Resting()
        self.entropy = entropy
        self.chance = chance
        self.tuning = tuning or Tuning()
        self.loop = asyncio.get_running_loop()
        self.environments: dict[str, Environment] = {}
        self.sessions: dict[str, Session] = {}
        self.residents: dict[str, Resident] = {}
        self.run_watchers: dict[str, set[Callable[[RunRow | None], None]]] = {}
        self.event_watchers: set[Callable[[EventRow], None]] = set()
        self.lease: LeaseRow | None = None
        self.tally: Tally | None = None  # who counts, where somebody scrapes metrics
        self.busy = 0
        self.to_load: list[tuple[Session, str, str, str]] = []
        # Runs that are being taken: what follows once one has a place, or has none after all. Called with its function.
        self.arriving: dict[str, list[Callable[[str], None]]] = {}
        self.coming: dict[str, int] = {}  # by session: runs that have a place there and are not assigned yet
        self.closing: set[str] = set()  # sessions that are over, and whose runs are being moved
        self.connecting: dict[str, asyncio.Task[Any]] = {}  # by session: who takes it up
        # Runs whose session is being taken up: the outcomes that became durable while their state was read.
        self.adopting: dict[str, list[OutcomeRow]] = {}
        self.unserved: list[Any] = []
        self.cursor_deletes: list[Any] = []
        self.looked_back: list[LookedBack] = []
        self.wake_timers: Callable[[int], None] = lambda due_ms: None  # the timers, once they run: see engine/timers.py
        self.look_again: Callable[[Environment], None] = lambda env: None  # the pump, once it hands out limited runs
        self.gates: Gates
        self._tasks: set[asyncio.Task[Any]] = set()
        self.alone_since_ms: int | None = None
        self.cluster: Cluster | None = None
        """The other nodes; None where this one is alone."""
        self.inbox_read = FIRST
        """Up to where the sweep has looked through the undelivered outcomes."""
        self.seen_held: set[tuple[str, int]] = set()
        """Runs, with their turns, that the last sweep found in sessions that are over."""
        self.awaited_until_ms = 0
        """Until when workers of an earlier server may take their sessions up."""
        self._event_ms = 0
        self._event_tail = 0
        self.tidying = False
        self.stopping = False
        self.not_ready = "starting"
        """Why it should get no traffic; "" if it should: see engine/readiness.py."""

    def environment(self, name: str) -> Environment:
        """An environment's cached registry."""
        env = self.environments.get(name)
        if env is None:
            env = self.environments[name] = Environment(name)
        return env

    def check_accepting(self) -> None:
        """Raises UnavailableError while the server leaves: the next one takes what is asked. CorruptError: none can."""
        if self.stopping:
            raise UnavailableError("SERVER_STOPPING", "this server is stopping: try again", retry_ms=200)
        if isinstance(trouble := self.lane.trouble, CorruptError):
            raise CorruptError(trouble.reason, trouble.message)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs something in the background; a failure is logged by the loop's handler."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def event_id(self, now_ms: int) -> str:
        """The next event's id. Ids of one node ascend, so that "after this event" means what it says."""
        if now_ms > self._event_ms:
            self._event_ms = now_ms
            self._event_tail = int.from_bytes(self.entropy(10), "big") >> 1
        else:
            self._event_tail += 1 + (self._event_tail & 0xFFFF)
        return ids.event_id(self._event_ms, self._event_tail)

    def changed(self, run_id: str) -> None:
        """Tells those who watch a run."""
        if self.run_watchers:
            for watcher in tuple(self.run_watchers.get(run_id, ())):
                watcher(None)
        if self.cluster is not None:
            self.cluster.changed(run_id)

    def has_ended(self, run: RunRow, end: End) -> None:
        """Tells those who watch a run how it ended, so that they need not read it."""
        if self.tally is not None:
            self.tally.ended(run, end)
        if self.cluster is not None:
            self.cluster.changed(end.run_id, ended=True)
        watchers = self.run_watchers.get(end.run_id) if self.run_watchers else None
        if watchers:
            row = run._replace(
                status=end.status,
                ended_ms=end.ended_ms,
                output=end.output,
                output_encoding=end.output_encoding,
                failure=end.failure,
            )
            for watcher in tuple(watchers):
                watcher(row)

    def place_fence(self, session: Session) -> tuple[Fence, ...]:
        """What a commit checks that gives a run to a session: with other nodes, one of them may have taken that up."""
        return session.fence if self.cluster is not None else ()

    def quiet(self) -> bool:
        """No run executes, nothing is on its way to the store, and nothing waits to be served."""
        if self.busy or not self.lane.idle() or self.to_load or self.unserved:
            return False
        return all(session.executing == 0 for session in self.sessions.values() if session.link is not None)

    async def cancel_tasks(self) -> None:
        """Ends what runs in the background."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
