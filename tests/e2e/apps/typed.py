"""Functions whose annotations say what they take, and one that asks others for what it is told to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from effects import instance
from stepwell import App, Event, InvokeError, Step, StepError, Trigger

app = App("typed")


@dataclass
class Item:
    sku: str
    count: int = 1


@dataclass
class Charge:
    amount: int
    currency: Literal["EUR", "USD"]
    items: list[Item]


@dataclass
class Receipt:
    id: str


@app.function(on="typed/charge")
async def charge(step: Step, event: Event[Charge]) -> Receipt:
    """Takes a Charge, from an event or an invoke."""
    return Receipt(f"{event.data.amount} {event.data.currency}")


@app.function(on=Trigger("typed/maybe", if_="event.data.kind == 'charge'"))
async def sometimes(step: Step, event: Event[Charge]) -> str:
    """Takes some of the events of its name."""
    return event.data.currency


@app.function(on="typed/anything")
async def anything(step: Step, event: Event[Any]) -> Any:
    """Says nothing of what it takes."""
    return event.data


@app.function(on="typed/charge", input_schema={})
async def lenient(step: Step, event: Event[dict[str, Any]]) -> str:
    """Takes what it is given."""
    return "took it"


@app.function(retries=5)
async def ask(step: Step, event: Event[Any]) -> Any:
    """Invokes, and answers what came of it."""
    try:
        return await step.invoke(event.data["function"], event.data["input"])
    except InvokeError as error:
        failure = error.failure
        return failure and {"reason": failure.reason, "message": failure.message, "final": failure.non_retriable}


@app.function
async def uncaught(step: Step, event: Event[Any]) -> Any:
    """Invokes, and leaves the error to others."""
    return await step.invoke("typed/charge", event.data)


@app.function
async def tell(step: Step, event: Event[Any]) -> Any:
    """Sends an event, and answers what came of it."""
    try:
        await step.send_event("typed/charge", event.data)
    except StepError as error:
        return error.failure and {"reason": error.failure.reason, "message": error.message}
    return "sent"


if __name__ == "__main__":
    app.run(instance=instance())
