"""One function in three builds: what its second step is depends on the variable BUILD."""

from __future__ import annotations

import os
from typing import Any

from effects import effect, instance
from stepwell import App, Event, Step

BUILD = os.environ.get("BUILD", "one")
app = App("changing", deployment=f"build-{BUILD}")


def note(value: str) -> str:
    effect()
    return f"{value} by {BUILD}"


@app.function
async def changing(step: Step, event: Event[Any]) -> list[Any]:
    """In build two the key `second` is a body where it was a sleep."""
    seen = [await step.run(note, "first", name="first")]
    if BUILD == "two":
        seen.append(await step.run(note, "second", name="second"))
    else:
        await step.sleep("100ms", name="second")
    await step.wait_for_event("changing/go", match="data.u", timeout="60s")
    return [*seen, await step.run(note, "third", name="third")]


if __name__ == "__main__":
    app.run(instance=instance())
