"""The outbound half of a worker's stream."""

from __future__ import annotations

from typing import Protocol

from stepwell_server.model.journal import OutcomeRow
from stepwell_server.ports.store import RunState


class Link(Protocol):
    """Puts things into the outbox of one stream. Never blocks, never fails: a broken stream is learned elsewhere.

    What one call of the event loop puts in leaves in few frames, acknowledgements first.
    """

    def ack(self, run_id: str, turn: int, number: int) -> None:
        """Everything of the run up to the number is durable."""
        ...

    def assign(self, state: RunState, cancel: OutcomeRow | None) -> None:
        """A run to execute. state.run.turn is the turn. cancel: why it is to be unwound, unless its code knows."""
        ...

    def outcome(self, turn: int, outcome: OutcomeRow) -> None:
        """An outcome of an open key."""
        ...

    def cancel(self, turn: int, request: OutcomeRow) -> None:
        """Unwind the run that the request, the outcome $cancel, is of."""
        ...

    def evict(self, run_id: str, turn: int) -> None:
        """Forget a run."""
        ...

    def refuse(self, run_id: str, turn: int, key: str, reason: str, message: str) -> None:
        """A command was refused."""
        ...

    def pulse(self) -> None:
        """An empty frame, so that the worker hears something; nothing if something is on its way."""
        ...

    def drain(self, reconnect_after_ms: int, reason: str) -> None:
        """Connect elsewhere, then leave."""
        ...

    def close(self, reason: str, message: str) -> None:
        """End the stream with a typed error."""
        ...

    def frames_sent(self) -> int:
        """Frames written so far."""
        ...
