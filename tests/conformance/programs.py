"""The programs that transcripts run, as README.md describes them in words."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from stepwell import (
    App,
    Batch,
    Event,
    InvokeError,
    InvokeTimeoutError,
    NewEvent,
    NonRetriableError,
    RetryAfterError,
    RunCancelledError,
    RunTimedOutError,
    Step,
    StepError,
)

app = App("test")
Json = Any


async def body(*args: Json) -> Json:
    """Never executed: transcripts say how bodies end."""
    raise AssertionError(args)


def program(**options: Any) -> Any:
    return app.function(**options)


@program()
async def sequential(step: Step) -> Json:
    a = await step.run(body, name="a")
    b = await step.run(body, a, name="b")
    return {"a": a, "b": b}


@program()
async def repeat(step: Step) -> Json:
    return [await step.run(body, n, name="charge") for n in (1, 2, 3)]


@program()
async def loop(step: Step, event: Event[Json]) -> Json:
    total = 0
    for n in range(event.data["times"]):
        total += await step.run(body, n, name="item")
    return total


@program()
async def gather(step: Step) -> Json:
    a, b = await asyncio.gather(step.run(body, name="a"), step.run(body, name="b"))
    return await step.run(body, a, b, name="c")


@program()
async def branches(step: Step) -> Json:
    async def branch(name: str) -> Json:
        await step.run(body, name=name)
        return await step.run(body, name, name="same")

    return await asyncio.gather(branch("a"), branch("b"))


@program()
async def first(step: Step) -> Json:
    go = asyncio.ensure_future(step.wait_for_event("go", timeout="2h"))
    limit = asyncio.ensure_future(step.sleep("1h", name="limit"))
    done, pending = await asyncio.wait({go, limit}, return_when=asyncio.FIRST_COMPLETED)
    for rest in pending:
        rest.cancel()
    return await step.run(body, name="x" if go in done else "y")


@program()
async def race(step: Step) -> Json:
    a, b = step.run(body, name="a"), step.run(body, name="b")
    done, pending = await asyncio.wait({a, b}, return_when=asyncio.FIRST_COMPLETED)
    for rest in pending:
        rest.cancel()
    return await step.run(body, [task.result() for task in done], name="won")


@program()
async def group(step: Step) -> Json:
    async def branch(name: str) -> None:
        await step.run(body, name=name)

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(branch("a"))
            tasks.create_task(branch("b"))
    except* StepError:
        await step.run(body, name="undo")
    return "end"


@program()
async def sleep(step: Step) -> Json:
    await step.sleep("1h30m")
    return "slept"


@program()
async def sleep_until(step: Step) -> Json:
    await step.sleep_until(1_000_000_000)
    return "slept"


@program()
async def clock(step: Step) -> Json:
    times = [round(step.now().timestamp() * 1000)]
    await step.run(body, name="a")
    times.append(round(step.now().timestamp() * 1000))
    await step.sleep(60)
    return [*times, round(step.now().timestamp() * 1000)]


@program()
async def wait(step: Step) -> Json:
    booking = await step.wait_for_event("booking/created", match="data.user_id", if_="async.data.ok", timeout="4d")
    return None if booking is None else {"id": booking.id, "data": booking.data}


@program()
async def invoke(step: Step) -> Json:
    try:
        return await step.invoke("billing/charge", {"amount": 5}, timeout="1m")
    except InvokeTimeoutError:
        return "timed out"
    except RunCancelledError:
        return "cancelled"
    except RunTimedOutError:
        return "out of time"
    except InvokeError as error:
        return f"failed with {error.type}"


@program()
async def invoke_uncaught(step: Step) -> Json:
    return await step.invoke("charge", None, detached=True, name="pay")


@program()
async def send(step: Step) -> Json:
    one = await step.send_event("x/y", {"n": 1})
    two = await step.send_events([("x/a", {"n": 2}), ("x/b", None)])
    return [*one, *two]


@program(retries=1)
async def caught(step: Step) -> Json:
    try:
        await step.run(body, name="charge")
    except StepError as error:
        return await step.run(body, error.type, error.attempts, name="refund")
    return "charged"


@program()
async def raises(step: Step) -> Json:
    await step.run(body, name="a")
    raise ValueError("boom")


@program()
async def second_try(step: Step) -> Json:
    a = await step.run(body, name="a")
    if step.attempt == 1:
        raise ValueError("boom")
    return [a, await step.run(body, name="b"), step.attempt]


@program()
async def hopeless(step: Step) -> Json:
    raise NonRetriableError("no use")


@program()
async def later(step: Step) -> Json:
    raise RetryAfterError("30s", "busy")


@program()
async def cleanup(step: Step) -> Json:
    try:
        await step.run(body, name="work")
        await step.sleep("1d")
    finally:
        await step.run(body, name="clean")
    return "end"


@program()
async def stubborn(step: Step) -> Json:
    with contextlib.suppress(asyncio.CancelledError):
        await step.sleep("1d")
    return "went on"


@program()
async def told(step: Step) -> Json:
    try:
        await step.sleep("1d")
    except asyncio.CancelledError as why:
        await step.run(body, str(why), name="note")
        raise


@program()
async def deaf(step: Step) -> Json:
    while True:
        try:
            await step.sleep("1d")
        except asyncio.CancelledError:
            continue


@program()
async def timer(step: Step) -> Json:
    await asyncio.sleep(5)
    await asyncio.sleep(0)
    return "slept"


@program()
async def timeout(step: Step) -> Json:
    try:
        async with asyncio.timeout(10):
            return await step.run(body, name="slow")
    except TimeoutError:
        return await step.run(body, name="late")


@program()
async def foreign(step: Step) -> Json:
    await step.run(body, name="a")
    await asyncio.get_running_loop().create_future()


@program()
async def threads(step: Step) -> Json:
    return await asyncio.to_thread(print)


@program()
async def pass_on(step: Step) -> Json:
    return await step.run(body, await step.run(body, name="a"), name="b")


@program()
async def keys(step: Step, event: Event[Json]) -> Json:
    return await step.run(body, name=event.data["key"])


@program()
async def other_kind(step: Step) -> Json:
    await step.run(body, name="a")
    await step.sleep("1h", name="charge")


@program()
async def other_target(step: Step) -> Json:
    await step.wait_for_event("new/name", name="answer", timeout="1h")


@program(strict=True)
async def strict(step: Step) -> Json:
    return await step.run(body, 1, name="a")


@program(strict=True)
async def strict_nothing(step: Step) -> Json:
    return await step.run(body, name="a")


@program(strict=True)
async def strict_values(step: Step, event: Event[Json]) -> Json:
    return [await step.run(body, value, name="item") for value in event.data["values"]]


@program(strict=True)
async def strict_calls(step: Step) -> Json:
    await step.invoke("billing/charge", {"cents": 5, "amount": 0.05})
    return await step.send_events([NewEvent("x/a", {"n": 2}, "mine"), NewEvent("x/b")])


@program()
async def chance(step: Step) -> Json:
    drawn = [str(step.uuid()), step.random().random(), str(step.uuid()), step.random().random()]
    await step.run(body, *drawn, name="a")
    return [*drawn, str(step.uuid()), step.random().random()]


@program()
async def two_waits(step: Step) -> Json:
    a, b = step.wait_for_event("a", timeout="1h"), step.wait_for_event("b", timeout="1h")
    await b
    await a
    return await step.run(body, name="end")


@program()
async def late_question(step: Step) -> Json:
    a = await step.run(body, name="a")
    return [a, await step.run(body, name="b"), await step.run(body, name="c")]


@program()
async def unasked(step: Step) -> Json:
    step.run(body, name="never awaited")
    return await step.run(body, name="a")


@program(batch=Batch(10, "1s"))
async def batch(step: Step, events: list[Event[Any]]) -> Json:
    await step.run(body, *(one.id for one in events), name="note")
    return [one.data["n"] for one in events]
