"""Functions with gates before them: rate limit, debounce, batch, singleton, and some of them together."""

from __future__ import annotations

from typing import Any

from effects import effect, instance
from stepwell import App, Batch, Debounce, Event, RateLimit, Singleton, Step, SyncStep

USER = "event.data.user"
app = App("gated")


def note(value: Any) -> Any:
    effect()
    return value


@app.function(on="gate/rated", rate_limit=RateLimit(3, "1d", key=USER))
async def rated(step: Step, event: Event[Any]) -> Any:
    return await step.run(note, event.data["n"])


@app.function(on="gate/settled", debounce=Debounce("1h", key=USER, max_wait="150m"))
async def settled(step: Step, event: Event[Any]) -> Any:
    return await step.run(note, event.data["n"])


@app.function(on="gate/many", batch=Batch(10, "1h", key=USER, if_="!has(event.data.urgent)"))
async def many(step: Step, events: list[Event[Any]]) -> list[int]:
    first = await step.run(note, [event.data["n"] for event in events], name="first")
    await step.sleep("2h")
    assert first == [event.data["n"] for event in events], "it is entered with the same events"
    return first


@app.function(on="gate/small", batch=Batch(3, "1s", key=USER))
def small(step: SyncStep, events: list[Event[Any]]) -> list[int]:
    return step.run(note, [event.data["n"] for event in events])


@app.function(on="gate/mixed", rate_limit=RateLimit(5, "1d"), batch=Batch(2, "1h"))
async def mixed(step: Step, events: list[Event[Any]]) -> list[int]:
    return [event.data["n"] for event in events]


@app.function(on="gate/single", singleton=Singleton(key=USER))
async def single(step: Step, event: Event[Any]) -> Any:
    if event.data.get("sleep"):
        await step.sleep(event.data["sleep"])
    return await step.run(note, event.data.get("n"))


@app.function(on="gate/latest", singleton=Singleton(mode="cancel"))
async def latest(step: Step, event: Event[Any]) -> Any:
    await step.run(note, event.data["n"], name="began")
    await step.wait_for_event("gate/go", timeout="1d")
    return event.data["n"]


@app.function
async def parent(step: Step, event: Event[Any]) -> Any:
    return await step.invoke("gated/single", event.data)


if __name__ == "__main__":
    app.run(instance=instance(), capacity=50)
