"""The load of the crash tests: programs of every shape; each body answers the token of its execution."""

from __future__ import annotations

import asyncio
from typing import Any

from effects import effect, instance
from stepwell import App, Event, Retry, Step, SyncStep, current_step

app = App("mixed")
FAST = Retry(attempts=4, initial="50ms", factor=1, jitter=False)


def body() -> str:
    return effect()


async def abody() -> str:
    token = effect()
    await asyncio.sleep(0.02)
    return token


def flaky() -> str:
    token = effect()
    if current_step().attempt < 3:
        raise RuntimeError("not yet")
    return token


@app.function(on="mixed/chain")
async def chain(step: Step) -> list[str]:
    return [await step.run(abody, name=f"s{n}") for n in range(6)]


@app.function(on="mixed/plain")
def plain(step: SyncStep) -> list[str]:
    return [step.run(body, name=f"s{n}") for n in range(4)]


@app.function(on="mixed/parallel")
async def parallel(step: Step) -> list[str]:
    first = await asyncio.gather(*(step.run(abody if n % 2 else body, name=f"p{n}") for n in range(8)))
    return [*first, await step.run(body, name="last")]


@app.function(on="mixed/sleepy")
async def sleepy(step: Step) -> list[str]:
    tokens: list[str] = []
    for n in range(3):
        tokens.append(await step.run(body, name=f"s{n}"))
        await step.sleep("150ms")
    return tokens


@app.function(on="mixed/waiting")
async def waiting(step: Step, event: Event[Any]) -> list[str]:
    first = await step.run(body, name="before")
    found = await step.wait_for_event("mixed/signal", match="data.id", timeout="10m")
    assert found is not None
    return [first, await step.run(body, name="after")]


@app.function(on="mixed/parent")
async def parent(step: Step) -> list[str]:
    first = await step.run(body, name="before")
    tokens = await step.invoke(chain, None)
    assert len(tokens) == 6
    return [first, await step.run(body, name="after")]


@app.function(on="mixed/retrying")
async def retrying(step: Step) -> list[str]:
    return [await step.run(flaky, retries=FAST), await step.run(body, name="after")]


@app.function(on="mixed/sending")
async def sending(step: Step, event: Event[Any]) -> list[str]:
    first = await step.run(body, name="before")
    await step.send_event("mixed/sent", {"id": event.data["id"]})
    return [first, await step.run(body, name="after")]


@app.function(on="mixed/racing")
async def racing(step: Step) -> list[str]:
    """A choice: what came first stays first, whatever is killed (H1)."""
    slow, quick = step.sleep("120ms", name="slow"), step.run(abody, name="quick")
    done, _ = await asyncio.wait([slow, quick], return_when=asyncio.FIRST_COMPLETED)
    name = "quick-won" if quick in done else "slow-won"
    token = await step.run(body, name=name)
    return [await quick, token]


if __name__ == "__main__":
    app.run(instance=instance())
