"""Every transcript, played against the Python core."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.programs import app
from tests.conformance.replay import play
from tests.conformance.table import told

FILES = sorted(Path(__file__).with_name("transcripts").glob("*.json"))
ALL = [(file.stem, transcript) for file in FILES for transcript in json.loads(file.read_text())]


@pytest.mark.parametrize("transcript", [t for _, t in ALL], ids=[f"{stem}: {t['name']}" for stem, t in ALL])
def test_transcript(transcript: dict[str, object], record_property: Callable[[str, object], None]) -> None:
    told(record_property, "transcripts", transcript["name"], "python")
    steps: list[dict[str, object]] = transcript["steps"]  # type: ignore[assignment]
    assert play(app, transcript) == [step["then"] for step in steps]


def test_names_are_unique() -> None:
    names = [transcript["name"] for _, transcript in ALL]
    assert len(names) == len(set(names)) >= 40
