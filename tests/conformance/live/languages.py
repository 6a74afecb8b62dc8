"""The three conformance workers: what starts each."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.languages import MISSING, go_program, typescript_program

LANGUAGES = ("python", "go", "typescript")


def command(language: str) -> tuple[str, ...]:
    """What starts the worker of a language; built if it must be. Skips the test where its tools are missing."""
    if why := MISSING[language]():
        assert os.environ.get("CI") != "true", why
        pytest.skip(why)
    if language == "python":
        return sys.executable, str(Path(__file__).with_name("worker.py"))
    return go_program("internal/conformance") if language == "go" else typescript_program("test/live/worker")
