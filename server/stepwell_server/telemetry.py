"""What a scrape shows: the node's counts and what it holds right now, as metric families of Prometheus."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from stepwell_server.engine import dispatch
from stepwell_server.engine.node import Node
from stepwell_server.engine.tally import COMPLETED, FAILED, MOST_FUNCTIONS, OTHER, TIMED_OUT, Histogram, Tally
from stepwell_server.engine.timers import Timers
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.journal import StepKind
from stepwell_server.model.run import ENDS
from stepwell_server.ports.queue import Backlog, Watched
from stepwell_server.transport.scope import Scope

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OUTCOMES = {COMPLETED: "completed", FAILED: "failed", TIMED_OUT: "timed_out"}
_STEPS = (StepKind.RUN, StepKind.SLEEP, StepKind.EVENT, StepKind.INVOKE, StepKind.SEND)
_WAITS = (StepKind.SLEEP, StepKind.EVENT, StepKind.INVOKE, StepKind.RETRY)
_READ_S = 2.0


class _Families(Collector):
    """Families that were made on the loop, for a registry that is written as text in a thread."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class Telemetry:
    """The metrics of one server. queue: what shows its backlog. rows: operations that the store has applied."""

    def __init__(self, node: Node, scope: Scope, timers: Timers, queue: Watched, rows: Callable[[], int]) -> None:
        self._node = node
        self._scope = scope
        self._timers = timers
        self._queue = queue
        self._rows = rows
        self._tally = node.tally = node.lane.tally = Tally()
        self._scrapes = 0
        self._process = ProcessCollector(registry=None)

    async def text(self) -> bytes:
        """One scrape. It reads the store at most once: a page of a queue that is not all in memory."""
        await self._read_on()
        families = [*self._families(), *self._process.collect()]
        registry = CollectorRegistry()
        registry.register(_Families(families))
        return await asyncio.to_thread(generate_latest, registry)

    async def _read_on(self) -> None:
        due = [item for item in self._queue.backlogs() if item.more and self._is_due(item)]
        if not due:
            return
        self._scrapes += 1
        unread = due[self._scrapes % len(due)]
        try:
            async with asyncio.timeout(_READ_S):
                came = await self._queue.refill(unread.env, unread.function_id)
        except (UnavailableError, TimeoutError):
            return  # it stays marked as incomplete
        if came:
            dispatch.pump(self._node, self._node.environment(unread.env))

    def _is_due(self, backlog: Backlog) -> bool:
        """Whether a read would bring more of it into memory."""
        head = self._queue.head(backlog.env, backlog.function_id)
        return head is not None and head.due

    def _families(self) -> list[Metric]:
        backlogs = self._queue.backlogs()
        return [
            *queue_families(backlogs, self._node.clock.now_ms()),
            *_runs(self._tally),
            *_steps(self._tally),
            *self._events_and_waits(),
            *self._store(),
            *self._workers(),
        ]

    def _events_and_waits(self) -> list[Metric]:
        tally = self._tally
        events = CounterMetricFamily("stepwell_events", "Events by what became of them.", labels=("outcome",))
        events.add_metric(("accepted",), tally.events)
        events.add_metric(("duplicate",), tally.duplicates)
        events.add_metric(("refused",), tally.refused)
        waits = CounterMetricFamily("stepwell_waits_opened", "Waits that runs have opened.", labels=("kind",))
        for kind in _WAITS:
            waits.add_metric((kind.name.lower(),), tally.waits[kind])
        return [
            events,
            waits,
            _counter("stepwell_timers_fired", "Waits that fell due.", self._timers.fired),
            _counter("stepwell_runs_lost", "Runs that were lost with their worker while they executed.", tally.lost),
            _counter("stepwell_swept", "Things that the sweep had to take up: hints that were lost.", tally.healed),
        ]

    def _store(self) -> list[Metric]:
        tally, lane = self._tally, self._node.lane
        return [
            GaugeMetricFamily("stepwell_store_up", "0 while the store is in trouble.", float(lane.trouble is None)),
            _counter("stepwell_store_transactions", "Transactions that the store has answered.", lane.transactions),
            _counter("stepwell_store_rows", "Rows that were written.", self._rows()),
            GaugeMetricFamily("stepwell_lane_pending", "Commits that wait for the store.", lane.pending),
            _histogram("stepwell_commit_batch_size", "Commits that share a transaction.", tally.batches, 1),
            _histogram("stepwell_commit_seconds", "From sending a transaction to its answer.", tally.commit_ms, 1000),
        ]

    def _workers(self) -> list[Metric]:
        sessions: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        for session in self._node.sessions.values():
            app = session.row.app
            if app not in sessions and len(sessions) >= MOST_FUNCTIONS:
                app = OTHER
            counts = sessions[app]
            counts[0] += session.link is not None
            counts[1] += session.capacity if session.link is not None else 0
            counts[2] += session.executing
            counts[3] += len(session.residents)
        gauges = [
            _gauge("stepwell_sessions", "Workers that are connected.", "app"),
            _gauge("stepwell_capacity_runs", "Runs that the connected workers execute at most.", "app"),
            _gauge("stepwell_executing_runs", "Runs that have a place.", "app"),
            _gauge("stepwell_resident_runs", "Runs in the memory of workers, parked ones included.", "app"),
        ]
        for app, counts in sessions.items():
            for gauge, count in zip(gauges, counts, strict=True):
                gauge.add_metric((app,), count)
        frames = self._scope.counters
        return [
            *gauges,
            _counter("stepwell_frames_received", "Frames from workers.", frames.frames_in),
            _counter("stepwell_frames_sent", "Frames to workers.", frames.frames_out),
        ]


def queue_families(backlogs: Sequence[Backlog], now_ms: int) -> list[Metric]:
    """What is queued by function, those beyond the bound together."""
    runs = _gauge("stepwell_queue_runs", "Queued runs in memory.", *_FUNCTION)
    age = _gauge("stepwell_queue_oldest_seconds", "How long the oldest of them has been queued.", *_FUNCTION)
    more = _gauge("stepwell_queue_more", "1 where the store holds more queued runs than these.", *_FUNCTION)
    folded: dict[tuple[str, str], Backlog] = {}
    for item in backlogs:
        key = (item.env, item.function_id)
        if len(folded) >= MOST_FUNCTIONS:
            key = (item.env, OTHER)
        sofar = folded.get(key)
        if sofar is not None:
            oldest_ms = min([row.oldest_ms for row in (sofar, item) if row.runs], default=0)
            item = Backlog(*key, sofar.runs + item.runs, oldest_ms, sofar.more or item.more)
        folded[key] = item
    for key, item in folded.items():
        labels = _function_labels(*key)
        runs.add_metric(labels, item.runs)
        age.add_metric(labels, max(now_ms - item.oldest_ms, 0) / 1000 if item.runs else 0)
        more.add_metric(labels, item.more)
    return [runs, age, more]


_FUNCTION = ("environment", "app", "function")


def _function_labels(env: str, function_id: str) -> tuple[str, str, str]:
    app, _, name = function_id.partition("/")
    return env, app, name or app


def _runs(tally: Tally) -> list[Metric]:
    created = CounterMetricFamily("stepwell_runs_created", "Runs that were accepted.", labels=_FUNCTION)
    ended = CounterMetricFamily("stepwell_runs_ended", "Runs that have ended.", labels=(*_FUNCTION, "status"))
    queued = HistogramMetricFamily(
        "stepwell_run_queue_seconds", "From QUEUED to a worker's place; 0 where one was free.", labels=_FUNCTION
    )
    for key, function in tally.functions.items():
        labels = _function_labels(*key)
        created.add_metric(labels, function.created)
        for status in sorted(ENDS):
            if function.ended[status]:
                ended.add_metric((*labels, status.name.lower()), function.ended[status])
        queued.add_metric(labels, *_buckets(function.queue_ms, 1000))
    return [created, ended, queued]


def _steps(tally: Tally) -> list[Metric]:
    steps = CounterMetricFamily("stepwell_steps", "Steps that have their outcome.", labels=("kind", "outcome"))
    for kind in _STEPS:
        for outcome, name in _OUTCOMES.items():
            if tally.steps[kind][outcome] or outcome == COMPLETED:
                steps.add_metric((kind.name.lower(), name), tally.steps[kind][outcome])
    latency = _histogram("stepwell_step_seconds", "How long bodies of steps ran, by their worker.", tally.step_ms, 1000)
    return [steps, latency]


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _counter(name: str, text: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value)


def _histogram(name: str, text: str, histogram: Histogram, scale: int) -> HistogramMetricFamily:
    buckets, total = _buckets(histogram, scale)
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)


def _buckets(histogram: Histogram, scale: int) -> tuple[Any, float]:
    """Cumulative, as Prometheus wants them. scale: of the histogram's unit in that of the metric."""
    count = 0
    buckets: list[tuple[str, float]] = []
    for bound, more in zip((*histogram.bounds, None), histogram.counts, strict=True):
        count += more
        buckets.append(("+Inf" if bound is None else f"{bound / scale:g}", count))
    return buckets, histogram.total / scale
