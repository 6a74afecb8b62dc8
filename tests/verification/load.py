"""The people: they send events, start and cancel runs, each until it is acknowledged; nobody waits for ever."""

from __future__ import annotations

import heapq
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import grpc
from stepwell.api_errors import ApiError
from stepwell.client import Client
from stepwell.event import NewEvent
from stepwell.values import EventOutcome, RunStatus

from tests.support.programs import Program
from tests.support.traffic import Answer, answers
from tests.verification.app import APP

T = TypeVar("T")
_AGAIN = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)
_PEOPLE = 6
_CALL_S = 5.0


@dataclass
class Asked:
    """What was acknowledged. events: (name, uid, n) by the server's id. invoked: (program, uid) by run."""

    events: dict[str, tuple[str, str, int]] = field(default_factory=dict[str, tuple[str, str, int]])
    invoked: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    cancelled: set[str] = field(default_factory=set[str])


class Load:
    """A plan that some people work off in the order of its times."""

    def __init__(self, client: Client, programs: list[Program], seed: int) -> None:
        self.asked = Asked()
        self.troubles: list[str] = []
        self._client = client
        self._by_name = {program["name"]: program for program in programs}
        self._rng = random.Random(f"load {seed}")
        self._plan: list[tuple[float, int, Callable[[], None]]] = []
        self._busy = 0
        self._numbers = 0
        self._lock = threading.Condition()
        self._over = False
        self._people = [threading.Thread(target=self._work, daemon=True) for _ in range(_PEOPLE)]
        self._began = time.monotonic()
        for person in self._people:
            person.start()

    @property
    def left(self) -> int:
        """What is planned or under way."""
        with self._lock:
            return len(self._plan) + self._busy

    def stop(self) -> None:
        """Sends the people home."""
        with self._lock:
            self._over = True
            self._lock.notify_all()
        for person in self._people:
            person.join()

    def _later(self, after_s: float, act: Callable[[], None]) -> None:
        with self._lock:
            self._numbers += 1
            heapq.heappush(self._plan, (time.monotonic() + after_s, self._numbers, act))
            self._lock.notify()

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._over and (not self._plan or self._plan[0][0] > time.monotonic()):
                    self._lock.wait(self._plan[0][0] - time.monotonic() if self._plan else None)
                if self._over:
                    return
                _, _, act = heapq.heappop(self._plan)
                self._busy += 1
            try:
                act()
            except Exception as error:
                self.troubles.append(f"a client got {error!r}")
            finally:
                with self._lock:
                    self._busy -= 1

    def _until_answered(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except ApiError as error:
                if not error.retriable and error.code not in _AGAIN:
                    raise
                time.sleep(0.1)

    # -- what they do --------------------------------------------------------------------------------------------

    def plan(self, runs: int, within_s: float) -> None:
        """So many beginnings, spread over a time."""
        for number in range(runs):
            self._later(self._rng.uniform(0, within_s), self._beginning(number))

    def _beginning(self, number: int) -> Callable[[], None]:
        rng = self._rng
        started = [program for program in self._by_name.values() if program["on"].startswith("sim/start")]
        uid = f"u{number}"
        cancels = rng.random() < 0.08
        after_s = rng.choice((0.0, rng.uniform(0, 4)))
        if rng.random() < 0.3:
            program = rng.choice(started)
            planned = list(answers(self._by_name, program, uid, rng))

            def invoke() -> None:
                handle = self._until_answered(
                    lambda: self._client.start(f"{APP}/{program['name']}", {"uid": uid, "n": 0}, request_id=f"i-{uid}")
                )
                self.asked.invoked[handle.run_id] = (program["name"], uid)
                if cancels:
                    self._later(after_s, lambda: self.cancel(handle.run_id))
                self._answer(planned)

            return invoke
        name = rng.choice(sorted({program["on"] for program in started}))
        planned = [
            answer
            for program in started
            if program["on"] == name
            for answer in answers(self._by_name, program, uid, rng)
        ]

        def begin() -> None:
            event_id = self.send(name, uid, number)
            if cancels:
                self._later(after_s, lambda: self._cancel_one_of(event_id))
            self._answer(planned)

        return begin

    def _answer(self, planned: list[Answer]) -> None:
        for answer in planned:
            event, data = answer.event, answer.data
            self._later(answer.after_s / 5, lambda e=event, d=data: self.send(e, d["uid"], d["n"]))

    def send(self, name: str, uid: str, n: int) -> str:
        """Sends an event until it is acknowledged; the server's id."""
        own = f"{name} {uid} {n}"
        known = n % 2 == 0  # half are recognised by their own id when they come again, the others by their request's
        event = NewEvent(name, {"uid": uid, "n": n}, id=own if known else "")
        (status,) = self._until_answered(
            lambda: self._client.send_many([event], request_id=None if known else own, timeout_s=_CALL_S)
        )
        if status.outcome is EventOutcome.REFUSED:
            raise AssertionError(f"event {own} was refused: {status}")
        self.asked.events[status.event_id] = (name, uid, n)
        return status.event_id

    def _cancel_one_of(self, event_id: str) -> None:
        run_ids = self._until_answered(lambda: self._client.get_event(event_id)).run_ids
        if run_ids:
            self.cancel(min(run_ids))

    def cancel(self, run_id: str) -> None:
        """Asks a run to end."""
        self.asked.cancelled.add(run_id)
        self._until_answered(lambda: self._client.cancel_run(run_id))

    def answer_open_waits(self) -> None:
        """Sends an event for each run that waits for one, once the planned ones are all sent."""
        client = self._client
        parked = self._until_answered(lambda: list(client.list_runs(statuses=[RunStatus.PARKED], page_size=1_000)))
        for run in parked:
            for waiting in self._until_answered(partial(client.get_run, run.id)).waiting_for:
                if waiting.kind == "EVENT":
                    _, _, uid = waiting.match.partition("=")
                    self._numbers += 1
                    self.send(waiting.event, json.loads(uid) if uid else "anybody", 1_000_000 + self._numbers)
