"""A Python app that the Go app invokes, and that invokes the Go app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepwell import App, Event, InvokeError, NonRetriableError, Step

app = App("billing")


class CardRefusedError(NonRetriableError):
    """The card is empty."""


def charge_card(amount: int) -> dict[str, Any]:
    """A body."""
    if amount > 100:
        raise CardRefusedError(f"{amount} is too much")
    return {"id": f"r-{amount}", "amount": amount}


@app.function
async def charge(step: Step, event: Event[dict[str, int]]) -> dict[str, Any]:
    """Invoked from Go."""
    return await step.run(charge_card, event.data["amount"])


@app.function
async def deliver(step: Step, event: Event[int]) -> str:
    """Charges here, and ships with the Go app."""
    receipt = await step.run(charge_card, event.data)
    return await step.invoke("shop/ship", receipt, returns=str)


@dataclass
class Refund:
    """What Go has to give."""

    receipt: str
    amount: int


@app.function(on="refund/asked")
async def refund(step: Step, event: Event[Refund]) -> str:
    """Invoked from Go, with the right shape."""
    return f"{event.data.amount} back for {event.data.receipt}"


@app.function
async def ask(step: Step, event: Event[dict[str, Any]]) -> str | None:
    """Invokes the function that it is told, and answers why that failed."""
    try:
        return await step.invoke(event.data["function"], event.data["input"], returns=str)
    except InvokeError as error:
        return error.failure and f"{error.failure.reason}: {error.failure.message}"


if __name__ == "__main__":
    app.run()
