"""Functions whose runs and steps can be counted."""

from __future__ import annotations

from typing import Any

from effects import instance
from stepwell import App, Event, Step

app = App("counted")


def may_fail(fail: bool) -> str:
    if fail:
        raise ValueError("as told")
    return "done"


@app.function(on="counted/work", retries=0)
async def work(step: Step, event: Event[dict[str, Any]]) -> str:
    """Two bodies, of which the second may fail."""
    await step.run(may_fail, False, name="first")
    return await step.run(may_fail, event.data.get("fail", False), name="second", retries=0)


@app.function(retries=0)
async def waits(step: Step, event: Event[Any]) -> Any:
    """A sleep, a wait that times out, an invoke, and a body that is tried twice."""
    await step.sleep("1ms")
    missed = await step.wait_for_event("counted/never", timeout="1ms")
    await step.invoke("counted/child")
    tries: list[int] = []

    def second_time() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")
        return len(tries)

    return [missed, await step.run(second_time, retries=1)]


@app.function
async def child(step: Step, event: Event[Any]) -> None:
    """Nothing."""


if __name__ == "__main__":
    app.run(instance=instance())
