"""Two apps that trace into the file SPANS: `front` invokes `back`, whose second body waits for another file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effects import effect, instance
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from stepwell import App, Event, Step


class Lines(SpanExporter):
    """Appends at once, so that a kill loses none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        handle = os.open(os.environ["SPANS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for span in spans:
            assert span.context is not None
            line = {
                "name": span.name,
                "trace": f"{span.context.trace_id:032x}",
                "span": f"{span.context.span_id:016x}",
                "parent": f"{span.parent.span_id:016x}" if span.parent is not None else "",
                "links": [f"{link.context.span_id:016x}" for link in span.links],
                "start": span.start_time,
                "end": span.end_time,
                "attributes": dict(span.attributes or {}),
            }
            os.write(handle, json.dumps(line).encode() + b"\n")
        os.close(handle)
        return SpanExportResult.SUCCESS


trace.set_tracer_provider(provider := TracerProvider())
provider.add_span_processor(SimpleSpanProcessor(Lines()))
app = App(os.environ["APP"])


def quick() -> str:
    with trace.get_tracer("user").start_as_current_span("inner"):
        effect()
    return "quick"


def slow() -> str:
    effect()
    while not Path(os.environ["GO"]).exists():
        time.sleep(0.02)
    return "slow"


if app.name == "front":

    @app.function
    async def order(step: Step, event: Event[Any]) -> list[str]:
        """Executes, invokes, sends, executes."""
        first = await step.run(quick, name="prepare")
        paid = await step.invoke("back/charge", 1)
        await step.send_event("traced/done", {})
        return [first, paid, await step.run(quick, name="finish")]

    @app.function
    async def relay(step: Step, event: Event[Any]) -> list[str]:
        """The beginning of a trace over three languages."""
        return await step.invoke("middle/pass", [await step.run(quick, name="prepare")])

    @app.function(on="traced/done")
    async def audit(step: Step) -> None:
        """Linked to what sent the event."""
        await step.run(quick, name="audit")
else:

    @app.function
    async def charge(step: Step, event: Event[Any]) -> str:
        """Executes twice; a sleep lies between."""
        await step.run(quick, name="check")
        await step.sleep("1ms")
        return await step.run(slow)


if __name__ == "__main__":
    app.run(instance=instance())
