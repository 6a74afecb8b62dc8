"""An app in Python beside one in TypeScript: each invokes functions of the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepwell import App, Event, InvokeError, NonRetriableError, Step

app = App("billing")


async def add(cents: int) -> int:
    return cents + 1


@app.function
async def price(step: Step, event: Event[dict[str, int]]) -> int:
    if event.data["cents"] < 0:
        raise NonRetriableError("negative")
    return await step.run(add, event.data["cents"])


@app.function
async def mirror(event: Event[Any]) -> Any:
    return event.data


@app.function
async def ask_typescript(step: Step, event: Event[Any]) -> Any:
    return await step.invoke("features/echo", event.data)


@dataclass
class Refund:
    receipt: str
    cents: int


@app.function(on="refund/asked")
async def refund(step: Step, event: Event[Refund]) -> str:
    return f"{event.data.cents} back for {event.data.receipt}"


@app.function
async def ask(step: Step, event: Event[dict[str, Any]]) -> str | None:
    try:
        return await step.invoke(event.data["function"], event.data["input"], returns=str)
    except InvokeError as error:
        return error.failure and f"{error.failure.reason}: {error.failure.message}"


if __name__ == "__main__":
    app.run()
