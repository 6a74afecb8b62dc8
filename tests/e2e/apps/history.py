"""The app of the tests of history: runs that fail in several ways, and one that goes through every kind of step."""

from __future__ import annotations

from typing import Any

from effects import instance
from stepwell import App, Event, Retry, Step

app = App("history")
ONCE = Retry(attempts=1)


def charge(amount: int) -> int:
    """A body that refuses what is too much."""
    if amount > 100:
        raise ValueError(f"amount {amount} of order 'o-{amount}' is too much")
    return amount


@app.function(on="order/placed")
async def pay(step: Step, event: Event[Any]) -> dict[str, int]:
    """Fails in its step where the amount is too much."""
    return {"paid": await step.run(charge, event.data["amount"], retries=ONCE)}


@app.function(retries=ONCE)
async def refuse(step: Step, event: Event[Any]) -> None:
    """Fails by itself."""
    raise KeyError(event.data)


if __name__ == "__main__":
    app.run(instance=instance())
