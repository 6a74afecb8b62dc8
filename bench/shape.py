"""What a world of the harness looks like: how many workers, what their function does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """Workers, and the function that they execute."""

    workers: int = 1
    capacity: int = 1000  # runs at once in each worker
    steps: int = 3
    payload: int = 200  # bytes of event data; a step's result and a run's output have half of it
    app: tuple[str, ...] = ()  # further arguments of bench/app.py
