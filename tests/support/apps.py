"""Programs of tests/support/programs.py as functions of a real app, for the simulation and the verification."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Protocol

import stepwell
from stepwell import App, Event, Retry, Step, StepError
from stepwell.reentry import Reentry
from stepwell.v1 import step_pb2

from tests.support.programs import Effect, Node, Program, effect_of, mix


def covered(reentry: Reentry, number: int) -> Iterator[tuple[str, str]]:
    """The steps whose results an acknowledgement of this number tells a worker to be durable: run and key."""
    for covered_by, command in reentry._outbox._sent:
        if covered_by <= number and isinstance(command, step_pb2.StepResult):
            yield command.run_id, command.key


class World(Protocol):
    """What bodies do to the world around them."""

    def body_began(self, run_id: str, key: str, attempt: int) -> None:
        """A body begins."""
        ...

    def effect(self, run_id: str, key: str, token: str, effect: Effect) -> None:
        """A body does something to a counter: once, whatever happens to it afterwards, if the token is heeded."""
        ...

    def kill(self) -> None:
        """The process of the body that runs is killed."""
        ...


def build(name: str, programs: list[Program], world: World, number: int = 1) -> App:
    """An app with a function for each program, in its first build or the next."""
    app = App(name)
    for program in programs:
        app.function(
            on=program["on"] or (),
            name=program["name"],
            retries=Retry(attempts=program["attempts"], initial=0.2, factor=2, max=2),
            timeout=_seconds(program.get("timeout_ms")),
            start_timeout=_seconds(program.get("start_timeout_ms")),
            concurrency=program.get("concurrency", ()),
        )(_function(program, world, number))
    return app


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def _function(program: Program, world: World, number: int) -> Any:
    async def function(step: Step, event: Event[Any]) -> Any:
        uid = event.data["uid"]
        values, acc = await _Code(step, uid, world, number).sequence(program["body"], mix(uid))
        return {"values": values, "acc": acc}

    return function


async def body(world: World, node: Node, uid: str, acc: str) -> str:
    """The body of every step."""
    step = stepwell.current_step()
    world.body_began(step.run_id, step.key, step.attempt)
    if node["ms"]:
        await asyncio.sleep(node["ms"] / 1000)
    if node["do"] == "deadly":
        world.kill()
        await asyncio.get_running_loop().create_future()
    return _outcome(world, node, uid, acc)


def plain_body(world: World, node: Node, uid: str, acc: str) -> str:
    """… or of one in a thread."""
    step = stepwell.current_step()
    world.body_began(step.run_id, step.key, step.attempt)
    time.sleep(node["ms"] / 1000)
    return _outcome(world, node, uid, acc)


def _outcome(world: World, node: Node, uid: str, acc: str) -> str:
    step = stepwell.current_step()
    fails = step.attempt <= node["fails"]
    if node.get("effect") and (node["late"] or not fails):
        world.effect(step.run_id, step.key, step.token, effect_of(node, uid))
    if fails:
        raise ValueError("planned")
    return mix(node["name"], uid, acc)


class _Code:
    def __init__(self, step: Step, uid: str, world: World, number: int) -> None:
        self._step = step
        self._uid = uid
        self._world = world
        self._number = number

    async def sequence(self, nodes: list[Node], acc: str) -> tuple[list[Any], str]:
        values: list[Any] = []
        for node in nodes:
            value = await self.node(node, acc)
            values.append(value)
            acc = mix(acc, value)
        return values, acc

    async def node(self, node: Node, acc: str) -> Any:
        match node["do"]:
            case "gather":
                work = [self.sequence(branch, acc) for branch in node["branches"]]
                return [values for values, _ in await self.all_of(node.get("how", "gather"), work)]
            case "first":
                return await self.first(node["branches"], acc)
            case "deadline":
                try:
                    async with asyncio.timeout(node["ms"] / 1000):
                        return await self.finish(node["node"], self.begin(node["node"], acc))
                except TimeoutError:
                    return "late"
            case "deadly" if self._number > 1:
                return await self.node({**node, "do": "run", "fails": 0}, acc)
            case "changed":
                if self._number == 1:
                    return await self.node(node["before"], acc)
                await self.node(node["new"], acc)
                return await self.node(node["after"], acc)
            case "raise":
                if self._step.attempt <= node["times"]:
                    raise ValueError("planned")
                return "went on"
            case "guard":
                try:
                    values, _ = await self.sequence(node["body"], acc)
                finally:
                    await self.finish(node["cleanup"], self.begin(node["cleanup"], acc))
                return values
            case _:
                return await self.finish(node, self.begin(node, acc))

    async def all_of(self, how: str, work: list[Any]) -> list[Any]:
        match how:
            case "wait":
                tasks = [asyncio.ensure_future(one) for one in work]
                await asyncio.wait(tasks)
                return [task.result() for task in tasks]
            case "group":
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one) for one in work]
                return [task.result() for task in tasks]
            case _:
                return await asyncio.gather(*work)

    async def first(self, branches: list[Node], acc: str) -> Any:
        futures = [self.begin(node, acc) for node in branches]
        done, pending = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        for rest in pending:
            rest.cancel()
        won = min(futures.index(future) for future in done)
        return [won, await self.finish(branches[won], futures[won])]

    def begin(self, node: Node, acc: str) -> Any:
        step, name = self._step, node["name"]
        match node["do"]:
            case "run" | "deadly":
                retry = Retry(attempts=node["attempts"], initial=0.1, factor=2, max=1)
                made = plain_body if node.get("plain") else body
                return step.run(made, self._world, node, self._uid, acc, name=name, retries=retry)
            case "sleep":
                return step.sleep(node["ms"] / 1000, name=name)
            case "wait":
                return step.wait_for_event(
                    node["event"], match=node["match"], timeout=node["timeout_ms"] / 1000, name=name
                )
            case "send":
                return step.send_event(node["event"], {"uid": f"{self._uid}/{name}", "n": 1}, name=name)
            case kind:
                assert kind == "invoke", kind
                timeout = node["timeout_ms"] / 1000 if node["timeout_ms"] else None
                return step.invoke(node["program"], {"uid": f"{self._uid}/{name}"}, timeout=timeout, name=name)

    async def finish(self, node: Node, future: Any) -> Any:
        kind = node["do"]
        try:
            value = await future
        except StepError as error:
            if not node.get("catch"):
                raise
            return f"failed:{error.attempts}" if kind == "run" else f"failed:{error.type}"
        match kind:
            case "wait":
                return None if value is None else value.data["n"]
            case "run" | "deadly" | "invoke":
                return value
            case _:
                return "sent" if kind == "send" else "slept"
