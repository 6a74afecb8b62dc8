"""What a test tells the table of scripts/conformance.py."""

from __future__ import annotations

from collections.abc import Callable


def told(record: Callable[[str, object], None], suite: str, scenario: object, language: str) -> None:
    """Names the row and the column of a test."""
    record("suite", suite)
    record("scenario", scenario)
    record("language", language)
