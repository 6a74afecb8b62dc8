"""An app whose bodies may kill their process; and innocent ones beside them."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from effects import effect, instance
from stepwell import App, Event, Retry, Step

app = App("losing")


def deadly() -> None:
    effect()
    os.kill(os.getpid(), signal.SIGKILL)


async def slow(value: Any) -> Any:
    effect()
    await asyncio.sleep(0.3)
    return value


@app.function(on="losing/deadly")
async def killer(step: Step) -> str:
    await step.run(slow, "before", name="before")
    await step.run(deadly, retries=Retry(attempts=3, initial="10ms"))
    return "survived"


@app.function(on="losing/innocent")
async def innocent(step: Step, event: Event[Any]) -> list[Any]:
    return [await step.run(slow, n) for n in range(3)]


if __name__ == "__main__":
    app.run(instance=instance())
