"""Two apps of one file, so that a parent and its child live on different workers: WHICH says which one this is."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from effects import effect, instance
from stepwell import App, Event, Step

app = App(os.environ["WHICH"])


async def work(value: Any) -> Any:
    effect()
    await asyncio.sleep(0.05)
    return value


if app.name == "parent":

    @app.function(on="pair/start")
    async def call(step: Step, event: Event[Any]) -> list[Any]:
        """Invokes the other app three times, with a step between."""
        found: list[Any] = []
        for n in range(3):
            found.append(await step.invoke("child/answer", n))
            await step.run(work, n)
        return found

    @app.function
    async def hold(step: Step) -> None:
        """Waits for a child that does not end."""
        await step.invoke("child/sleep", {})

else:

    @app.function
    async def answer(step: Step, event: Event[Any]) -> Any:
        return await step.run(work, event.data * 10)

    @app.function
    async def sleep(step: Step) -> None:
        await step.sleep("1h")


if __name__ == "__main__":
    app.run(instance=instance())
