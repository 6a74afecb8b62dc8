"""An app whose worker has one place, and a body that holds it."""

from __future__ import annotations

import asyncio

from effects import effect, instance
from stepwell import App, Step

app = App("small")


async def holding() -> None:
    effect()
    await asyncio.sleep(3600)


@app.function
async def hold(step: Step) -> None:
    """Takes its worker's only place and keeps it."""
    await step.run(holding)


if __name__ == "__main__":
    app.run(instance=instance(), capacity=1)
