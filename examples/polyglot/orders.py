"""An order in three languages: Python invokes Go, which invokes TypeScript, and waits for an event of the latter.

stepwell events send order/placed -d '{"order": 1, "item": "lamp", "pieces": 2}'
"""

from __future__ import annotations

from dataclasses import dataclass

import stepwell
from stepwell import Event, RunFailedError, Step

app = stepwell.App("orders")


@dataclass(frozen=True)
class Order:
    """Data of order/placed."""

    order: int
    item: str
    pieces: int


@dataclass(frozen=True)
class Reservation:
    """What stock/reserve, in Go, answers."""

    price_cents: int
    carrier: str


@dataclass(frozen=True)
class Shipped:
    """Data of order/shipped, which TypeScript sends."""

    order: int
    parcel: str


@app.function(on="order/placed")
async def place(step: Step, event: Event[Order]) -> str:
    """Reserves, has it shipped, and says how the order went."""
    order = event.data
    try:
        reservation = await step.invoke("stock/reserve", order, returns=Reservation)
    except RunFailedError as error:
        if error.type == "OutOfStock":  # an error of Go, by the name that it has there
            return f"declined: {error.message}"
        raise
    await step.send_event("order/paid", {"order": order.order, "carrier": reservation.carrier})
    shipped = await step.wait_for_event("order/shipped", match="data.order", timeout="4d", returns=Shipped)
    if shipped is None:
        return "lost on its way"
    return f"{reservation.price_cents} cents, sent with {reservation.carrier} as {shipped.data.parcel}"


if __name__ == "__main__":
    app.run()
