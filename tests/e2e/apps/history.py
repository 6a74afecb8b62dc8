"""The app of the tests of history: runs that fail in several ways, and one that goes through every kind of step."""

from __future__ import annotations

from typing import Any

from effects import instance
from stepwell import App, Event, Retry, Step, StepError

app = App("history")
ONCE = Retry(attempts=1)


def charge(amount: int) -> int:
    """A body that refuses what is too much."""
    if amount > 100:
        raise ValueError(f"amount {amount} of order 'o-{amount}' is too much")
    return amount


def fail(amount: int) -> None:
    """A body that fails."""
    raise ValueError(f"amount {amount}")


@app.function(on="order/placed")
async def pay(step: Step, event: Event[Any]) -> dict[str, int]:
    """Fails in its step where the amount is too much."""
    return {"paid": await step.run(charge, event.data["amount"], retries=ONCE)}


@app.function(retries=ONCE)
async def refuse(step: Step, event: Event[Any]) -> None:
    """Fails by itself."""
    raise KeyError(event.data)


@app.function(on="tour/begun")
async def tour(step: Step, event: Event[Any]) -> list[Any]:
    """Every kind of step that one run has alone."""
    first = await step.run(charge, event.data["n"], name="first")
    await step.sleep("1ms", name="nap")
    found = await step.wait_for_event("tour/never", timeout="1ms")
    await step.send_event("tour/sent", {"n": first})
    try:
        await step.run(fail, first, name="broken", retries=ONCE)
    except StepError as error:
        return [first, found, str(error)]
    return []


if __name__ == "__main__":
    app.run(instance=instance())
