"""The people of the simulated world: they send events, invoke, cancel, and look at runs; each asks until answered."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from stepwell.v1 import event_pb2, function_pb2, run_pb2
from stepwell_server.model import ids
from stepwell_server.model.run import LIVE

from tests.simulation.hosts import ENVIRONMENT
from tests.support.programs import Program
from tests.support.traffic import answers

if TYPE_CHECKING:
    from tests.simulation.world import World

_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass
class Sent:
    """An event that a client sent, and keeps sending until it is acknowledged."""

    name: str
    data: dict[str, Any]
    event_id: str = ""


@dataclass
class Invoked:
    """A run that a client starts by itself, and keeps starting until it is acknowledged."""

    program: str
    uid: str
    run_id: str = ""


class Clients:
    """What they have asked for, and what is still to be answered (pending)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng: random.Random = world.rng
        self.sent: list[Sent] = []
        self.invoked: list[Invoked] = []
        self.cancels: set[str] = set()
        self.pending = 0

    def _later(self, after_s: float, what: Callable[[], Awaitable[None]]) -> None:
        self.pending += 1

        async def work() -> None:
            await asyncio.sleep(after_s)
            await what()
            self.pending -= 1

        self.world.loop.process("client").spawn(work())

    async def _until_answered(self, service: str, method: str, request: Any) -> Any:
        while True:
            try:
                return await self.world.network.unary(service, method, request)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN:
                    self.world.problem(f"{method} failed: {error.code()} {error.details()}")
                    raise
                await asyncio.sleep(self.rng.uniform(0.05, 1))

    # -- events --------------------------------------------------------------------------------------------------

    def send(self, name: str, data: dict[str, Any], after_s: float, then: Callable[[str], None] | None = None) -> None:
        """A client sends an event until it is acknowledged."""
        sent = Sent(name, data)
        self.sent.append(sent)
        self._later(after_s, lambda: self._send(sent, then))

    async def _send(self, sent: Sent, then: Callable[[str], None] | None) -> None:
        number = len(self.sent)
        event = event_pb2.NewEvent(name=sent.name, id="", data={"data": json.dumps(sent.data).encode()})
        request_id = f"request {sent.name} {sent.data['uid']} {sent.data['n']}"
        if number % 2:
            event.id = request_id
            request_id = ""
        request = event_pb2.SendEventsRequest(request_id=request_id, events=[event])
        response = await self._until_answered("EventService", "SendEvents", request)
        status = response.statuses[0]
        if status.outcome not in (event_pb2.EventStatus.OUTCOME_ACCEPTED, event_pb2.EventStatus.OUTCOME_DUPLICATE):
            self.world.problem(f"event {sent} was refused: {status}")
        sent.event_id = status.event_id
        if then is not None:
            then(status.event_id)

    def trigger(self, number: int, within_s: float) -> None:
        """Runs begin, by an event or by hand; the events that they will wait for come early, late, or never."""
        rng, world = self.rng, self.world
        uid, at_s = f"u{number}", rng.uniform(0, within_s)
        started = [program for program in world.programs if program["on"].startswith("sim/start")]
        if rng.random() < 0.2:
            self._invoke(rng.choice(started), uid, at_s)
            return
        name = rng.choice(sorted({program["on"] for program in started}))
        fitting = [program for program in started if program["on"] == name]
        for program in fitting:
            self._answers(program, uid, at_s)
        cancelled = [program for program in fitting if rng.random() < 0.1]

        def begun(event_id: str) -> None:
            for program in cancelled:
                run_id = ids.run_id_for_event(ENVIRONMENT, event_id, f"{world.app}/{program['name']}")
                self.cancel(run_id, rng.choice((0.0, rng.expovariate(0.5))))

        self.send(name, {"uid": uid, "n": number}, at_s, begun)

    def _answers(self, program: Program, uid: str, at_s: float) -> None:
        for answer in answers(self.world.by_name, program, uid, self.rng):
            self.send(answer.event, answer.data, at_s + answer.after_s)

    # -- runs ----------------------------------------------------------------------------------------------------

    def _invoke(self, program: Program, uid: str, at_s: float) -> None:
        invoked = Invoked(program["name"], uid)
        self.invoked.append(invoked)
        self._answers(program, uid, at_s)
        data = json.dumps({"uid": uid, "n": 0}).encode()
        request = function_pb2.InvokeRequest(
            function_id=f"{self.world.app}/{program['name']}", input={"data": data}, request_id=f"invoke {uid}"
        )

        async def work() -> None:
            invoked.run_id = (await self._until_answered("FunctionService", "Invoke", request)).run.id
            if self.rng.random() < 0.1:
                self.cancel(invoked.run_id, self.rng.choice((0.0, self.rng.expovariate(0.5))))

        self._later(at_s, work)

    def cancel(self, run_id: str, after_s: float) -> None:
        """A client asks a run to end."""
        self.cancels.add(run_id)
        request = run_pb2.CancelRunRequest(run_id=run_id, reason="simulated")

        async def work() -> None:
            await self._until_answered("RunService", "CancelRun", request)

        self._later(after_s, work)

    async def look(self) -> None:
        """Somebody asks where a run stands, again and again: a live one always says what it waits for (promise 4)."""
        while True:
            await asyncio.sleep(self.rng.uniform(0.2, 4))
            runs = list(self.world.store.memory.tables.run.values())
            if not runs:
                continue
            request = run_pb2.GetRunRequest(run_id=self.rng.choice(runs).id)
            try:
                answer = await self.world.network.unary("RunService", "GetRun", request)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN:
                    self.world.problem(f"GetRun failed: {error.code()} {error.details()}")
                continue
            if bool(answer.waiting_for) != (answer.run.status in LIVE):
                self.world.problem(f"GetRun does not say why: {answer}")
