"""Functions with time-outs: parked, executing, queued, failing, invoking, and one that does not listen."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from effects import effect, instance
from stepwell import App, Event, InvokeTimeoutError, Retry, RunTimedOutError, Step, SyncStep, current_step

BUILD = os.environ.get("BUILD", "one")
app = App("timed", deployment=f"build-{BUILD}")


def note(value: Any = None) -> Any:
    effect()
    return value


async def busy() -> None:
    effect()
    await asyncio.sleep(3_600)


def plain_busy() -> None:
    effect()
    while True:
        current_step().check()
        time.sleep(0.01)


def hopeless() -> None:
    raise ValueError("as ever")


@app.function(timeout="1h")
async def asleep(step: Step) -> None:
    """Sleeps longer than it may, beside a child; cleans up and notes why."""
    child = step.invoke("forever")
    try:
        await step.sleep("30d")
        await child
    except asyncio.CancelledError as why:
        await step.run(note, str(why), name="why")
        raise


@app.function
async def forever(step: Step) -> None:
    await step.wait_for_event("never/comes")


@app.function(timeout="2h", start_timeout="30m")
async def in_time(step: Step) -> str:
    await step.sleep("1h")
    return "in time"


@app.function(timeout="700ms")
async def executing(step: Step, event: Event[str]) -> None:
    """A body executes when the time is over."""
    try:
        await step.run(plain_busy if event.data == "plain" else busy, name="busy")
    finally:
        await step.run(note, name="clean-up")


@app.function(timeout="700ms")
def sync_executing(step: SyncStep) -> None:
    try:
        step.run(busy)
    finally:
        step.run(note, name="clean-up")


@app.function(timeout="1h", retries=Retry(attempts=9, initial="3h", jitter=False))
async def failing(step: Step) -> None:
    """Backs off when the time is over."""
    await step.run(note)
    raise ValueError("as ever")


@app.function(timeout="1h")
async def deaf(step: Step) -> None:
    while True:
        try:
            await step.sleep("1d")
        except asyncio.CancelledError:
            continue


@app.function(timeout="1h")
async def changing(step: Step) -> None:
    """The second build does not fit the journal of the first."""
    await step.run(note, name="first")
    if BUILD == "one":
        await step.wait_for_event("timed/go", name="second")
    else:
        await step.run(note, name="second")


@app.function
async def parent(step: Step, event: Event[dict[str, Any]]) -> list[str]:
    """Invokes a function, and says how that ended."""
    try:
        await step.invoke(event.data["function"], timeout=event.data.get("timeout"))
    except RunTimedOutError as error:
        return ["RunTimedOutError", error.message, error.failure.reason if error.failure else ""]
    except InvokeTimeoutError:
        return ["InvokeTimeoutError"]
    return ["no error"]


@app.function(timeout="4s")
async def four_seconds(step: Step) -> None:
    """For servers and workers that die meanwhile."""
    await step.run(note, name="begun")
    try:
        await step.wait_for_event("never/comes")
    finally:
        await step.run(note, name="clean-up")


@app.function(start_timeout="10m")
async def placed(step: Step) -> None:
    await step.run(busy)


@app.function(start_timeout="1s")
async def one_second(step: Step) -> None:
    """With one place in all, the second of these has none."""
    await step.run(busy)


@app.function(start_timeout="1h")
async def quick(step: Step) -> str:
    return await step.run(note, "started in time")


if __name__ == "__main__":
    app.run(instance=instance(), capacity=int(os.environ.get("CAPACITY", "50")))
