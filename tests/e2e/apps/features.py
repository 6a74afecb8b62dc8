"""The app of the feature tests: one small function for each kind of step and option."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from effects import effect, instance
from stepwell import (
    App,
    Event,
    InvokeError,
    InvokeTimeoutError,
    NonRetriableError,
    Retry,
    RetryAfterError,
    RunFailedError,
    Step,
    StepError,
    StepTimeoutError,
    SyncStep,
    Trigger,
    current_step,
)

app = App("features")
FAST = Retry(attempts=4, initial="20ms", factor=1, jitter=False)
ONCE = Retry(attempts=1)


@dataclass
class Receipt:
    """What a charge answers."""

    id: str
    amount: int


def note(value: Any = None) -> Any:
    """A plain body."""
    effect()
    return value


async def anote(value: Any = None) -> Any:
    """An async body."""
    effect()
    await asyncio.sleep(0)
    return value


@app.function
async def echo(step: Step, event: Event[Any]) -> Any:
    """One step."""
    return await step.run(note, event.data)


@app.function
def plain(step: SyncStep, event: Event[Any]) -> Any:
    """A synchronous function with bodies of both kinds, a sleep, and a child."""
    first = step.run(note, event.data)
    second = step.run(anote, first)
    step.sleep("10ms")
    return [second, step.invoke("echo", "child")]


# --- triggers ---


@app.function(on="t/exact")
async def by_name(event: Event[Any]) -> str:
    return event.name


@app.function(on="t/wild/*")
async def by_wildcard(event: Event[Any]) -> str:
    return event.name


@app.function(on=Trigger("t/cond", "event.data.amount > 10 && event.metadata.kind == 'big'"))
async def by_condition(event: Event[Any]) -> int:
    return event.data["amount"]


@app.function(on=Trigger("t/costly", "event.data.l.all(x, x >= 0)"))
async def costly(event: Event[Any]) -> int:
    """Its condition looks at every element."""
    return len(event.data["l"])


@app.function(on=["t/one", Trigger("t/two", "event.data.yes == true"), "t/o*"])
async def by_several(event: Event[Any]) -> str:
    return event.name


@app.function(on="t/fan")
async def fan_a(step: Step) -> str:
    return await step.run(note, "a")


@app.function(on="t/fan")
async def fan_b(step: Step) -> str:
    return await step.run(note, "b")


# --- time and events ---


@app.function
async def sleeper(step: Step, event: Event[Any]) -> list[float]:
    """Sleeps as told; the times that the code saw."""
    before = step.now().timestamp()
    if "until" in event.data:
        await step.sleep_until(event.data["until"])
    else:
        await step.sleep(event.data["for"])
    return [before, step.now().timestamp()]


@app.function(on="w/start")
async def waiter(step: Step, event: Event[Any]) -> Any:
    """Waits once or twice as told."""
    seen: list[Any] = []
    await step.run(note)
    for options in event.data["waits"]:
        found = await step.wait_for_event(**options)
        seen.append(None if found is None else found.data.get("n"))
    return seen


@app.function(on="h18/*")
async def consumer(step: Step, event: Event[Any]) -> Any:
    """Its own trigger is consumed; an abandoned wait consumes nothing; what one wait took, the next does not get."""
    if event.name != "h18/start":
        return None
    await step.run(note)
    own = await step.wait_for_event("h18/start", match="data.u", timeout="300ms")
    lost = step.wait_for_event("h18/next", match="data.u", timeout="1h", name="lost")
    lost.cancel()
    await step.run(note, name="between")
    first = await step.wait_for_event("h18/next", match="data.u", timeout="20s")
    second = await step.wait_for_event("h18/next", match="data.u", timeout="300ms")
    return [own and own.name, first and first.data["n"], second and second.data["n"]]


# --- children ---


@app.function
async def charge(step: Step, event: Event[dict[str, Any]]) -> Receipt:
    if event.data["amount"] < 0:
        raise NonRetriableError("the amount is negative")
    return await step.run(make_receipt, event.data["amount"])


def make_receipt(amount: int) -> Receipt:
    effect()
    return Receipt("r-1", amount)


@app.function
async def parent(step: Step, event: Event[Any]) -> Any:
    """Invokes as told, and says what came."""
    kind = event.data["kind"]
    try:
        if kind == "typed":
            receipt = await step.invoke(charge, {"amount": 5})
            return [type(receipt).__name__, receipt.amount]
        if kind == "failing":
            return await step.invoke("charge", {"amount": -1}, returns=Receipt)
        if kind == "unknown":
            return await step.invoke("nobody/nothing", {})
        if kind == "slow":
            return await step.invoke("forever", {}, timeout="200ms", detached=event.data["detached"])
        return await step.invoke("forever", {}, detached=event.data["detached"])
    except (RunFailedError, InvokeTimeoutError) as error:
        cause = error.failure
        return [type(error).__name__, cause.reason if cause else "", cause.message if cause else "", error.message]
    except InvokeError as error:
        return ["InvokeError", error.failure.reason if error.failure else "", error.message]


@app.function
async def forever(step: Step) -> None:
    await step.run(note)
    await step.wait_for_event("never/comes")


@app.function
async def depth(step: Step, event: Event[int]) -> int:
    return await step.invoke("depth", event.data + 1)


@app.function
async def sender(step: Step, event: Event[Any]) -> Any:
    """Sends two events in one step, then fails once: the second time over, nothing is sent again."""
    ids = await step.send_events([("sent/it", {"u": event.data, "n": 1}), ("sent/it", {"u": event.data, "n": 2})])
    one = await step.send_event("sent/one", {"u": event.data}, id=f"one-{event.data}")
    if step.attempt == 1:
        raise RuntimeError("once more")
    return ids + one


# --- parallel ---


@app.function
async def many(step: Step, event: Event[int]) -> int:
    """One step after the other."""
    for n in range(event.data):
        await step.run(note, n)
    return event.data


@app.function
async def gatherer(step: Step) -> list[Any]:
    """gather, wait and TaskGroup over bodies, sleeps and children."""
    a = await asyncio.gather(*(step.run(note, n) for n in range(20)), step.sleep("20ms"), step.invoke("echo", 7))
    done, open_ = await asyncio.wait(
        [asyncio.ensure_future(step.run(anote, "fast")), asyncio.ensure_future(step.sleep("1h"))],
        return_when=asyncio.FIRST_COMPLETED,
    )
    for one in open_:
        one.cancel()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(branch(step, "x"))
        second = group.create_task(branch(step, "y"))
    return [a[:20], a[21], [one.result() for one in done], first.result(), second.result()]


async def branch(step: Step, name: str) -> str:
    for n in range(3):
        await step.run(note, name=f"{name}{n}")
    return name


@app.function
async def times(step: Step) -> list[Any]:
    """asyncio's own timers are durable."""
    began = step.now()
    await asyncio.sleep(0.15)
    slept = (step.now() - began).total_seconds() >= 0.15
    try:
        async with asyncio.timeout(0.1):
            await step.wait_for_event("never/comes")
        out = "no"
    except TimeoutError:
        out = "timeout"
    async with asyncio.timeout(60):
        got = await step.run(note, "in time")
    return [slept, out, got, str(step.uuid()) == str(step.uuid())]


# --- failures ---


def flaky(fails: int, how: str) -> Any:
    """Fails so often; then says what it knows of itself."""
    effect()
    me = current_step()
    if me.attempt <= fails:
        if how == "non_retriable":
            raise NonRetriableError("never again")
        if how == "retry_after":
            raise RetryAfterError("60ms", "busy")
        raise ValueError(f"attempt {me.attempt}")
    return [me.attempt, me.last_error.message if me.last_error else None, me.token]


@app.function
async def retrier(step: Step, event: Event[Any]) -> Any:
    """A failing step, caught."""
    data = event.data
    retry = Retry(attempts=data.get("attempts", 4), initial=data.get("initial", "20ms"), factor=1, jitter=False)
    try:
        return await step.run(flaky, data["fails"], data.get("how", ""), retries=retry)
    except StepError as error:
        return ["caught", error.type, error.message, error.attempts]


@app.function(retries=FAST)
async def uncaught(step: Step) -> None:
    await step.run(flaky, 9, "", retries=ONCE)


@app.function(retries=FAST)
async def raising(step: Step, event: Event[int]) -> list[int]:
    """The function itself fails so often."""
    done = await step.run(note, step.attempt)
    if step.attempt <= event.data:
        raise RuntimeError(f"attempt {step.attempt}")
    return [done, step.attempt]


def busy(kind: str) -> None:
    effect()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if kind == "polite":
            current_step().check()
        time.sleep(0.005)


async def abusy() -> None:
    effect()
    await asyncio.sleep(60)


@app.function
async def outrun(step: Step, event: Event[Any]) -> Any:
    """A body that takes longer than its time-out."""
    try:
        if event.data == "async":
            await step.run(abusy, timeout="150ms", retries=ONCE)
        else:
            await step.run(busy, event.data, timeout="150ms", retries=ONCE)
    except StepTimeoutError as error:
        return [type(error).__name__, error.failure.reason if error.failure else ""]
    return "not interrupted"


# --- cancel ---


@app.function
async def cancellable(step: Step, event: Event[Any]) -> None:
    """Executes, sleeps or waits until it is cancelled; then cleans up."""
    try:
        if event.data == "sync":
            await step.run(busy, "plain")
        elif event.data == "async":
            await step.run(abusy)
        elif event.data == "child":
            await step.invoke("forever", {})
        else:
            await step.sleep("1h")
    finally:
        await step.run(note, "cleaned", name="clean-up")


@app.function
async def stubborn(step: Step, event: Event[Any]) -> None:
    """Swallows every cancellation."""
    while True:
        try:
            if event.data == "body":
                await step.run(swallower)
            await step.wait_for_event("never/comes")
        except asyncio.CancelledError:
            continue


async def swallower() -> None:
    effect()
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            continue


# --- the dev clock ---


@app.function(on="drip/start")
async def drip(step: Step, event: Event[Any]) -> str:
    """Waits four days for a booking."""
    await step.run(note, "welcome", name="welcome")
    booking = await step.wait_for_event("drip/booked", match="data.user", timeout="4d")
    if booking is None:
        await step.run(note, name="reminder")
        return "reminded"
    return "booked"


@app.function
async def daily(step: Step, event: Event[int]) -> list[str]:
    """A loop of one-day sleeps."""
    days: list[str] = []
    for _ in range(event.data):
        await step.sleep("1d")
        days.append(await step.run(note, step.now().isoformat()))
    return days


# --- values ---


def odd(kind: str) -> Any:
    effect()
    values: dict[str, Any] = {
        "object": object(),
        "nan": float("nan"),
        "large": "x" * (2 * 1024 * 1024 + 1),
        "edge": "x" * (2 * 1024 * 1024 - 2),
        "text": "a\0b\x7f\u2028 😀 \"'; drop table runs; --",
        "surrogate": "\ud800",
    }
    return values[kind]


@app.function(retries=ONCE)
async def outputs(step: Step, event: Event[Any]) -> Any:
    """A step with an odd result; or the function's own."""
    if event.data.get("own"):
        return odd_value(event.data["kind"])
    value = await step.run(odd, event.data["kind"])
    return len(value) if event.data["kind"] in ("edge", "large") else value


def odd_value(kind: str) -> Any:
    return {"object": object(), "large": "x" * (2 * 1024 * 1024 + 1)}[kind]


if __name__ == "__main__":
    app.run(instance=instance())
