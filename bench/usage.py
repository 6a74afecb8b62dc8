"""CPU and memory of processes, from /proc."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU milliseconds so far."""

    server_ms: float
    database_ms: float
    worker_ms: float

    def since(self, before: Cpu) -> Cpu:
        return Cpu(
            self.server_ms - before.server_ms,
            self.database_ms - before.database_ms,
            self.worker_ms - before.worker_ms,
        )

    @property
    def all_ms(self) -> float:
        return self.server_ms + self.database_ms + self.worker_ms


def cpu_ms(pids: list[int]) -> float:
    """User and system time of these processes, all their threads."""
    return sum(_own_ms(psutil.Process(pid)) for pid in pids)


def cpu_ms_of_family(pid: int) -> float:
    """The process, its living children and those that it has buried (a database's sessions come and go)."""
    parent = psutil.Process(pid)
    times = parent.cpu_times()
    total = (times.user + times.system + times.children_user + times.children_system) * 1000
    for child in parent.children(recursive=True):
        try:
            total += _own_ms(child)
        except psutil.NoSuchProcess:
            continue
    return total


def rss_mb(pid: int) -> float:
    """Resident memory now."""
    return psutil.Process(pid).memory_info().rss / MIB


def peak_rss_mb(pid: int) -> float:
    """The most that was ever resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return rss_mb(pid)


def _own_ms(process: psutil.Process) -> float:
    times = process.cpu_times()
    return (times.user + times.system) * 1000
