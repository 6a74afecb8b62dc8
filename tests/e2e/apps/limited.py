"""Functions with limits. Each body notes when it begins and ends, so that a test sees how many ran at once."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from effects import instance
from stepwell import App, Concurrency, Event, InvokeError, Step, Throttle, current_step

app = App("limited")
BODY_S = float(os.environ.get("BODY_S", "0.01"))


def note(what: str, group: str) -> None:
    """One line, appended at once: what, which group of runs, which run, which process."""
    line = f"{what}\t{group}\t{current_step().run_id}\t{os.getpid()}\n"
    handle = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


async def work(group: str) -> str:
    note("begin", group)
    await asyncio.sleep(BODY_S)
    note("end", group)
    return group


@app.function(on="limited/two", concurrency=2)
async def two(step: Step, event: Event[Any]) -> str:
    return await step.run(work, "two")


@app.function(on="limited/sleepy", concurrency=1)
async def sleepy(step: Step, event: Event[Any]) -> str:
    await step.run(work, "sleepy", name="before")
    await step.wait_for_event("limited/go", match="data.id", timeout="1h")
    return await step.run(work, "sleepy", name="after")


@app.function(on="limited/user", concurrency=Concurrency(1, "event.data.user"))
async def user(step: Step, event: Event[Any]) -> str:
    return await step.run(work, f"user {event.data['user']}")


@app.function(on="limited/shared", concurrency=Concurrency(3, scope="environment", key="'all'"))
async def shared(step: Step, event: Event[Any]) -> str:
    return await step.run(work, "all")


@app.function(on="limited/shared", concurrency=Concurrency(3, scope="environment", key="'al' + 'l'"))
async def shared_too(step: Step, event: Event[Any]) -> str:
    return await step.run(work, "all")


@app.function(on="limited/paced", throttle=Throttle(1, "1s"))
async def paced(step: Step, event: Event[Any]) -> str:
    return await step.run(work, "paced")


@app.function(on="limited/urgent", concurrency=1, priority="event.data.ahead")
async def urgent(step: Step, event: Event[Any]) -> int:
    await step.run(work, f"urgent {event.data['ahead']}")
    return event.data["ahead"]


WHOLE = Concurrency(1, "event.data.user", scope="app", hold="run")


@app.function(on="limited/whole", concurrency=WHOLE)
async def whole(step: Step, event: Event[Any]) -> str:
    await step.run(work, f"whole {event.data['user']}", name="before")
    await step.sleep("300ms")
    return await step.run(work, f"whole {event.data['user']}", name="after")


@app.function(on="limited/parent", concurrency=WHOLE)
async def parent(step: Step, event: Event[Any]) -> str:
    try:
        return await step.invoke(whole, {"user": event.data["child"]})
    except InvokeError as error:
        return error.failure.reason if error.failure is not None else ""


@app.function(on="limited/labelled", labels={"gpu": "a100"})
async def labelled(step: Step, event: Event[Any]) -> str:
    return await step.run(work, "labelled")


if __name__ == "__main__":
    app.run(instance=instance(), capacity=int(os.environ.get("CAPACITY", "20")))
