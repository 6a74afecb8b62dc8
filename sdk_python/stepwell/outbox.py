"""Commands of one run: what goes out now, what travels with the next command, what is not yet acknowledged."""

from __future__ import annotations

from typing import Any

from stepwell.v1 import step_pb2

_BEGINNINGS = (step_pb2.Sleep, step_pb2.WaitForEvent, step_pb2.Invoke, step_pb2.SendEvents)


class Outbox:
    """Everything emitted within one call of the core leaves in one frame, and so is committed together."""

    __slots__ = ("_numbered", "_sent", "commands", "deferred", "fresh", "run_id", "turn")

    def __init__(self, run_id: str, turn: int) -> None:
        self.run_id = run_id
        self.turn = turn
        # Of every call whose commands the host has not taken; it empties the list, which stays the same one.
        self.commands: list[Any] = []
        # Numbers of outcomes seen while nothing else was open: they travel with the next command (H1a).
        self.deferred: list[step_pb2.DeliveredKey] = []
        # Commands with the number whose acknowledgement covers them, oldest first.
        self._sent: list[tuple[int, Any]] = []
        # What this call of the core emitted, and whether that holds a number.
        self.fresh: list[Any] = []
        self._numbered = False

    def emit(self, command: Any, *, numbered: bool = False) -> None:
        """Adds a command; numbers that waited for one go first."""
        if self.deferred:
            self.flush()
        self.commands.append(command)
        self.fresh.append(command)
        if numbered:
            self._numbered = True

    def flush(self) -> None:
        """Reports the outcomes that the code has seen."""
        delivered = step_pb2.Delivered(run_id=self.run_id, turn=self.turn, keys=self.deferred)
        self.deferred = []
        self.commands.append(delivered)
        self.fresh.append(delivered)
        self._numbered = True

    def withdraw(self, command: Any) -> bool:
        """Takes back what was emitted within this call of the core; False if it is too late."""
        for index in range(len(self.fresh) - 1, -1, -1):
            if self.fresh[index] is command:
                del self.fresh[index]
                self.commands[:] = [c for c in self.commands if c is not command]
                return True
        return False

    def withdraw_beginnings(self) -> None:
        """Before a mismatch: what this call of the core began must not begin."""
        for command in [c for c in self.fresh if isinstance(c, _BEGINNINGS)]:
            self.withdraw(command)

    def close_call(self, last_number: int) -> None:
        """The call of the core is over: notes which acknowledgement will cover its commands.

        A frame that holds a number is durable with it. Commands without one are known to be durable when a later
        number is, because a run's frames are applied in order.
        """
        covered_by = last_number if self._numbered else last_number + 1
        for command in self.fresh:
            self._sent.append((covered_by, command))
        self.fresh.clear()
        self._numbered = False

    def acknowledge(self, number: int) -> None:
        """Everything up to the number is durable."""
        sent = self._sent
        if not sent or sent[0][0] > number:
            return
        if sent[-1][0] <= number:
            sent.clear()
        else:
            self._sent = [entry for entry in sent if entry[0] > number]

    def resolved(self, key: str) -> None:
        """An outcome for the key came: the server must have taken the command that began or failed it."""
        if self._sent:
            self._sent = [entry for entry in self._sent if getattr(entry[1], "key", None) != key or _numbers(entry[1])]

    def unacknowledged(self, parked: bool) -> list[Any]:
        """Commands to send again, in order. A park that the code has left since is not among them."""
        commands = [command for _, command in self._sent]
        last = commands[-1] if commands else None
        return [c for c in commands if not isinstance(c, step_pb2.Park) or (parked and c is last)]

    def clear(self) -> None:
        """The run is no longer this worker's: nothing of it is sent any more."""
        self.commands.clear()
        self.deferred = []
        self._sent = []
        self.fresh = []


_NUMBERED = (step_pb2.StepResult, step_pb2.Delivered, step_pb2.Complete, step_pb2.Fail, step_pb2.Cancelled)


def _numbers(command: Any) -> bool:
    return isinstance(command, _NUMBERED)
