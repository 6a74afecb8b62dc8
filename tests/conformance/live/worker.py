"""The conformance worker in Python: the functions that README.md describes, as somebody would write them in Python."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import stepwell
from stepwell import (
    App,
    Event,
    InvokeError,
    InvokeTimeoutError,
    NewEvent,
    NonRetriableError,
    Retry,
    RetryAfterError,
    RunCancelledError,
    RunFailedError,
    RunTimedOutError,
    Step,
    StepError,
    Trigger,
)

FOLDER = Path(os.environ["CONFORMANCE"])
ONCE = Retry(attempts=1)
LOOK_S = 0.01

app = App("conformance")
Json = Any


class Declined(Exception):
    """An error of the user's own."""


def effect() -> None:
    """Notes that a body executes."""
    step = stepwell.current_step()
    line = f"{step.run_id}\t{step.key}\t{step.attempt}\tpython\n"
    handle = os.open(FOLDER / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


async def value_of(value: Json = None) -> Json:
    """The body of a note."""
    effect()
    return value


async def until_open(value: Json = None) -> Json:
    """The body of a hold: ends once its gate is open."""
    effect()
    step = stepwell.current_step()
    gate = FOLDER / f"{step.run_id} {step.key}"
    while not gate.exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(LOOK_S)
    return value


# --- steps and values ---


@app.function
async def sequential(step: Step, event: Event[Json]) -> Json:
    a = await step.run(value_of, event.data["a"], name="a")
    b = await step.run(value_of, [a, event.data["b"]], name="b")
    return {"a": a, "b": b}


@app.function
async def echo(step: Step, event: Event[Json]) -> Json:
    return await step.run(value_of, event.data, name="echo")


@app.function
async def numbers(step: Step, event: Event[dict[str, Json]]) -> Json:
    whole = await step.run(value_of, event.data["whole"], name="whole")
    real = await step.run(value_of, event.data["real"], name="real")
    return {"whole": whole, "real": real}


@app.function
async def nothing(step: Step) -> None:
    await step.run(value_of, name="nothing")


@app.function
async def absent(event: Event[dict[str, Json]]) -> Json:
    return {"has": "value" in event.data, "null": event.data.get("value") is None}


@app.function
async def loop(step: Step, event: Event[Json]) -> int:
    total = 0
    for n in range(event.data["times"]):
        total += await step.run(value_of, n, name="item")
    return total


@app.function
async def nested(step: Step) -> list[str]:
    async def inner(value: str) -> str:
        return await step.run(value_of, value, name="inner")

    first = await inner("x")
    await step.run(value_of, name="between")
    return [first, await inner("y")]


@app.function
async def large(step: Step, event: Event[Json]) -> Json:
    try:
        text = await step.run(text_of, event.data["bytes"], name="large")
    except StepError as error:
        return {"type": error.type, "attempts": error.attempts}
    return len(text)


def text_of(size: int) -> str:
    effect()
    return "x" * size


@app.function
async def unserializable(step: Step) -> Json:
    try:
        await step.run(value_of, math.nan, name="odd")
    except StepError as error:
        return {"type": error.type, "attempts": error.attempts}
    return "it passed"


@app.function
async def misuse(step: Step) -> None:
    await step.run(value_of, name="")


@app.function
async def stable(step: Step) -> Json:
    began = step.now()
    made = [str(step.uuid()), step.random().random()]
    recorded = await step.run(value_of, made, name="recorded")
    await step.sleep("1h")
    slept = step.now() - began
    return {"same": recorded == made, "slept": slept >= timedelta(hours=1), "again": str(step.uuid()) == made[0]}


@app.function(strict=True)
async def strict(step: Step, event: Event[Json]) -> Json:
    a = await step.run(value_of, event.data, name="a")
    await step.sleep("1h")
    echoed = await step.invoke("echo", event.data)
    await step.send_event("conformance/noted", event.data)
    await step.wait_for_event(event.data["event"], timeout="720h", name="come")
    return [a, echoed]


# --- side by side ---


@app.function
async def together(step: Step) -> int:
    a, b = await asyncio.gather(step.run(value_of, 1, name="a"), step.run(value_of, 2, name="b"))
    return await step.run(value_of, a + b, name="c")


@app.function
async def branches(step: Step) -> list[str]:
    async def branch(name: str, pause: str) -> str:
        await step.sleep(pause, name=f"pause {name}")
        return await step.run(value_of, name, name="same")

    return await asyncio.gather(branch("a", "2h"), branch("b", "1h"))


@app.function
async def spread(step: Step, event: Event[Json]) -> int:
    return sum(await asyncio.gather(*(step.run(value_of, n, name="part") for n in range(event.data["parts"]))))


@app.function
async def timers(step: Step, event: Event[Json]) -> int:
    sleeps = [step.sleep(timedelta(minutes=n + 1)) for n in range(event.data["timers"])]
    await asyncio.gather(*sleeps)
    return len(sleeps)


@app.function
async def first(step: Step, event: Event[Json]) -> str:
    go = step.wait_for_event(event.data["event"], timeout="2h", name="go")
    limit = step.sleep("1h", name="limit")
    done, pending = await asyncio.wait({go, limit}, return_when=asyncio.FIRST_COMPLETED)
    for rest in pending:
        rest.cancel()
    return await step.run(value_of, "x" if go in done else "y", name="x" if go in done else "y")


@app.function
async def race(step: Step) -> str:
    fast = step.run(value_of, "fast", name="fast")
    slow = step.sleep("24h", name="slow")
    _, pending = await asyncio.wait({fast, slow}, return_when=asyncio.FIRST_COMPLETED)
    for rest in pending:
        rest.cancel()
    return await step.run(value_of, fast.result(), name="won")


@app.function
async def undone(step: Step) -> str:
    async def charge() -> None:
        await step.run(decline, name="charge", retries=ONCE)

    async def pause() -> None:
        await step.sleep("24h", name="pause")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pause())
            group.create_task(charge())
    except* StepError:
        await step.run(value_of, name="undo")
    return "undone"


def decline() -> None:
    effect()
    raise Declined("no money")


@app.function
async def mixed(step: Step, event: Event[Json]) -> Json:
    slept, came, noted, child = await asyncio.gather(
        step.sleep("1h", name="pause"),
        step.wait_for_event(event.data["event"], timeout="720h", name="come"),
        step.run(value_of, "n", name="note"),
        step.invoke("echo", {"n": 1}),
    )
    return [slept, came and came.data, noted, child]


# --- time and events ---


@app.function
async def sleeper(step: Step, event: Event[Json]) -> int:
    for duration in event.data["sleeps"]:
        await step.sleep(duration)
    return len(event.data["sleeps"])


@app.function
async def until(step: Step, event: Event[Json]) -> str:
    await step.sleep_until(event.data["at_ms"] / 1000)
    return "slept"


@app.function(on="conformance/wait")
async def waiter(step: Step, event: Event[Json]) -> list[Json]:
    seen: list[Json] = []
    if event.data.get("held"):
        await step.run(until_open, name="held")
    for wait in event.data["waits"]:
        options = {"match": wait.get("match", ""), "if_": wait.get("if", ""), "name": wait.get("name")}
        came = await step.wait_for_event(wait["event"], timeout=wait["timeout"], **options)
        seen.append(came and came.data)
    return seen


@app.function
async def seen(step: Step, event: Event[Json]) -> Json:
    came = await step.wait_for_event(event.data["event"], timeout="720h")
    assert came
    return {"name": came.name, "data": came.data, "metadata": dict(came.metadata), "sender_id": came.sender_id}


CONDITION = "event.data.amount > 10 && event.metadata.kind == 'big'"


@app.function(on=["conformance/exact", Trigger("conformance/judged", CONDITION), "conformance/wild/*"])
async def triggered(event: Event[Json]) -> Json:
    return {"name": event.name, "data": event.data, "metadata": dict(event.metadata), "sender_id": event.sender_id}


@app.function
async def sender(step: Step, event: Event[Json]) -> Json:
    own = event.data["id"]
    one = await step.send_event("conformance/sent", {"to": own, "n": 1})
    more = await step.send_events(
        [NewEvent("conformance/sent", {"to": own, "n": 2}, own), NewEvent("conformance/other", None)]
    )
    again = await step.send_events([NewEvent("conformance/sent", {"to": own, "n": 2}, own)], name="again")
    back = await step.wait_for_event("conformance/back", match="data.id", if_="async.data.n == 2", timeout="24h")
    return {"ids": [*one, *more], "again": again[0] == more[0], "back": back and back.data["n"]}


@app.function(on="conformance/sent")
async def receiver(step: Step, event: Event[Json]) -> Json:
    await step.send_event("conformance/back", {"id": event.data["to"], "n": event.data["n"]})
    return event.data["n"]


# --- other functions ---


@app.function
async def parent(step: Step, event: Event[Json]) -> Json:
    """Invokes as told; says what came."""
    data = event.data
    try:
        output = await step.invoke(
            data["function"], data.get("input"), timeout=data.get("timeout"), detached=data.get("detached", False)
        )
    except InvokeError as error:
        return {"error": _kind(error), "type": error.type, "message": error.message}
    return {"output": output}


def _kind(error: InvokeError) -> str:
    kinds = {
        RunFailedError: "failed",
        RunCancelledError: "cancelled",
        RunTimedOutError: "timed out",
        InvokeTimeoutError: "took too long",
    }
    return kinds.get(type(error), "not begun")


@app.function
async def forever(step: Step) -> None:
    await step.run(value_of, name="began")
    await step.wait_for_event("conformance/never")


@app.function
async def deep(step: Step, event: Event[int]) -> int:
    if event.data == 0:
        return await step.run(value_of, 0, name="bottom")
    return 1 + await step.invoke("deep", event.data - 1)


# --- failures ---


def failing(how: str) -> None:
    if how == "non_retriable":
        raise NonRetriableError("never again")
    if how == "retry_after":
        raise RetryAfterError("1h", "busy")
    raise Declined("no money")


def charge(fails: int, how: str) -> Json:
    effect()
    me = stepwell.current_step()
    if me.attempt <= fails:
        failing(how)
    return [me.attempt, me.last_error.message if me.last_error else None, me.token]


@app.function
async def flaky(step: Step, event: Event[Json]) -> Json:
    data = event.data
    retry = Retry(attempts=data["attempts"], initial="1m", factor=2, jitter=False)
    try:
        return await step.run(charge, data["fails"], data["how"], retries=retry)
    except StepError as error:
        caught = {"type": error.type, "message": error.message, "attempts": error.attempts}
        return await step.run(value_of, caught, name="refund")


@app.function(retries=Retry(attempts=3, initial="1h", factor=2, max="24h", jitter=False))
async def fails(step: Step, event: Event[Json]) -> Json:
    before = await step.run(value_of, step.attempt, name="before")
    if step.attempt <= event.data["times"]:
        failing(event.data["how"])
    return [before, step.attempt]


@app.function(retries=ONCE)
async def uncaught(step: Step) -> None:
    await step.run(value_of, name="a")
    await step.run(decline, name="charge")


@app.function
async def slow(step: Step) -> Json:
    try:
        retry = Retry(attempts=2, initial="1m", jitter=False)
        await step.run(until_open, name="slow", timeout="50ms", retries=retry)
    except StepError as error:
        return {"error": type(error).__name__, "type": error.type, "attempts": error.attempts}
    return "in time"


# --- the end, from outside ---


@app.function
async def cleanup(step: Step, event: Event[Json]) -> str:
    try:
        await step.run(until_open if event.data.get("held") else value_of, name="work")
        await step.sleep("720h")
    finally:
        await step.run(value_of, name="clean")
    return "end"


@app.function
async def told(step: Step) -> None:
    await _told(step.sleep("720h"), step)


@app.function(timeout="1h")
async def deadline(step: Step) -> None:
    await _told(step.sleep("720h"), step)


async def _told(sleep: asyncio.Future[None], step: Step) -> None:
    try:
        await sleep
    except asyncio.CancelledError as why:
        await step.run(value_of, str(why), name="told")
        raise


@app.function
async def stubborn(step: Step) -> str:
    try:
        await step.sleep("720h")
    except asyncio.CancelledError:
        await step.run(value_of, name="so what")
    return "went on"


# --- from one worker to the next ---


@app.function
async def carried(step: Step, event: Event[Json]) -> Json:
    a = await step.run(until_open, "a", name="a")
    b = await step.run(value_of, [a, "b"], name="b")
    await step.sleep("1h")
    came = await step.wait_for_event(event.data["event"], timeout="720h", name="come")
    child = await step.invoke("echo", b)
    c = await step.run(until_open, child, name="c")
    return [c, came and came.data]


@app.function
async def held_pair(step: Step) -> Json:
    async def branch(name: str) -> list[Json]:
        return [await step.run(until_open, name, name=name), await step.run(value_of, name, name="same")]

    work: list[Coroutine[Any, Any, list[Json]]] = [branch("left"), branch("right")]
    return await asyncio.gather(*work)


if __name__ == "__main__":
    name = f"{os.environ['WORKER_INSTANCE']}:{os.getpid()}"
    app.run(instance=name, max_parked=int(os.environ["MAX_PARKED"]))
