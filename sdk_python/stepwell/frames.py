"""Packs what the code did into Commands frames, and a worker's Hello into Hello frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from stepwell.v1 import function_pb2, step_pb2

FRAME_ITEMS = 128
FRAME_BYTES = 64 * 1024
DECISION_BYTES = 4 * 1024 * 1024
HELLO_RESIDENTS = 1000
TIMEOUTS, FLOW = "timeouts", "flow"
"""Capabilities: time-outs of functions, and their flow. A server without them would ignore them in silence."""

Command = Any
"""A command message of step.proto; its class decides the list of the frame it goes to."""

FIELDS: dict[type[Any], str] = {
    step_pb2.StepResult: "results",
    step_pb2.StepFailure: "failures",
    step_pb2.Sleep: "sleeps",
    step_pb2.WaitForEvent: "waits",
    step_pb2.Invoke: "invokes",
    step_pb2.SendEvents: "sends",
    step_pb2.Delivered: "delivered",
    step_pb2.Abandon: "abandons",
    step_pb2.Park: "parks",
    step_pb2.Release: "releases",
    step_pb2.Mismatch: "mismatches",
    step_pb2.Complete: "completes",
    step_pb2.Fail: "fails",
    step_pb2.Cancelled: "cancelled",
}

Decision: TypeAlias = tuple[str, Sequence[Command]]
"""A run's id and commands of it that belong together: they travel in one frame."""


def pack(decisions: Iterable[Decision], epoch: int) -> Iterator[step_pb2.ConnectRequest]:
    """Yields frames of at most 128 commands or 64 KiB, unless one decision alone is larger."""
    frame = step_pb2.ConnectRequest()
    body = frame.commands
    items = size = 0
    # What follows a Park of the same run must not share its frame: the lists of a frame do not tell which came first.
    parked: set[str] = set()
    for run_id, commands in decisions:
        # Both the size of a command and its copy in a frame come out of its bytes: so they are made once.
        parts: list[tuple[str, bytes]] = []
        weight = 0
        for command in commands:
            data = command.SerializeToString()
            weight += len(data)
            parts.append((FIELDS[type(command)], data))
        if weight > DECISION_BYTES and len(commands) > 1:
            # Larger than a message may be: it is committed in parts, in order.
            if items:
                body.epoch = epoch
                yield frame
            yield from pack(split(run_id, commands), epoch)
            frame = step_pb2.ConnectRequest()
            body = frame.commands
            items = size = 0
            parked.clear()
            continue
        if items and (items + len(commands) > FRAME_ITEMS or size + weight > FRAME_BYTES or run_id in parked):
            body.epoch = epoch
            yield frame
            frame = step_pb2.ConnectRequest()
            body = frame.commands
            items = size = 0
            parked.clear()
        for field, data in parts:
            getattr(body, field).add().MergeFromString(data)
            if field == "parks":
                parked.add(run_id)
        items += len(commands)
        size += weight
    if items:
        body.epoch = epoch
        yield frame


def split(run_id: str, commands: Sequence[Command]) -> Iterator[Decision]:
    """Decisions of at most 64 KiB out of commands of one run, in order: what is sent again was once many decisions."""
    part: list[Command] = []
    size = 0
    for command in commands:
        weight = command.ByteSize()
        if part and size + weight > FRAME_BYTES:
            yield run_id, part
            part, size = [], 0
        part.append(command)
        size += weight
    if part:
        yield run_id, part


class Introduction(NamedTuple):
    """What Hello says of the worker, apart from its residents."""

    environment: str
    app: str
    deployment: str
    instance: str
    sdk_version: str
    functions: Sequence[function_pb2.FunctionSpec]
    labels: Mapping[str, str] = {}

    def missing(self, capabilities: Iterable[str]) -> str:
        """What a server would have to have and has not, and the first function that needs it; empty if all is there."""
        timed = next((one.name for one in self.functions if one.timeout_ms or one.start_timeout_ms), "")
        if timed and TIMEOUTS not in capabilities:
            return f"{TIMEOUTS} of functions, which {timed} has"
        flowing = next((one.name for one in self.functions if one.HasField("flow") or one.labels), "")
        return f"{FLOW} of functions, which {flowing} has" if flowing and FLOW not in capabilities else ""


def hello_frames(
    worker: Introduction, session_id: str, capacity: int, residents: Sequence[step_pb2.Resident]
) -> Iterator[step_pb2.ConnectRequest]:
    """Yields the frames that open a stream; only the last says that no other follows."""
    hello = step_pb2.Hello(
        environment=worker.environment,
        app=worker.app,
        deployment=worker.deployment,
        instance=worker.instance,
        sdk="python",
        sdk_version=worker.sdk_version,
        session_id=session_id,
        functions=worker.functions,
        capacity=capacity,
        capabilities=[TIMEOUTS, FLOW],
        labels=worker.labels,
    )
    at = 0
    while True:
        hello.residents.extend(residents[at : at + HELLO_RESIDENTS])
        at += HELLO_RESIDENTS
        hello.more = at < len(residents)
        yield step_pb2.ConnectRequest(hello=hello)
        if not hello.more:
            return
        hello = step_pb2.Hello()
