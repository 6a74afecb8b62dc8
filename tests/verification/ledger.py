"""The ledger: what bodies did to the world, in files beside Stepwell that no kill can take a line from."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from tests.support.programs import Effect


class Line(NamedTuple):
    """Something that a worker process noted. at_ns: by the clock that all processes of a machine share."""

    kind: str
    run_id: str
    key: str
    pid: int
    at_ns: int
    rest: tuple[str, ...]


class Ledger:
    """One file for all processes; every line is written at once, so lines never mix."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, kind: str, run_id: str, key: str, *rest: object) -> None:
        """Adds a line: began, effect or acked."""
        fields = (kind, run_id, key, os.getpid(), time.monotonic_ns(), *rest)
        os.write(self._handle, ("\t".join(map(str, fields)) + "\n").encode())

    def lines(self) -> list[Line]:
        """All of it, in the order in which it was written."""
        found: list[Line] = []
        for text in self.path.read_text().splitlines():
            kind, run_id, key, pid, at_ns, *rest = text.split("\t")
            found.append(Line(kind, run_id, key, int(pid), int(at_ns), tuple(rest)))
        return found


class Books:
    """The ledger read: an effect counts once for its token, however often its body ran."""

    def __init__(self, lines: list[Line]) -> None:
        self.began = [line for line in lines if line.kind == "began"]
        self.acked: dict[tuple[str, str], int] = {}
        self.effects: dict[str, dict[str, Effect]] = defaultdict(dict)
        """Of each run, by key."""
        self.counters: dict[str, int] = {}
        self.repeats = len(self.began) - len({(line.run_id, line.key, line.rest) for line in self.began})
        tokens: set[str] = set()
        for line in lines:
            if line.kind == "acked":
                self.acked.setdefault((line.run_id, line.key), line.at_ns)
            elif line.kind == "effect" and line.rest[0] not in tokens:
                token, operation, counter, number = line.rest
                tokens.add(token)
                self.effects[line.run_id][line.key] = (operation, counter, int(number))
                count(self.counters, (operation, counter, int(number)))


def count(counters: dict[str, int], effect: Effect) -> None:
    """Applies an effect."""
    operation, counter, number = effect
    counters[counter] = number if operation == "set" else counters.get(counter, 0) + number
