"""What docs/hazards.md names as proof exists: tests, transcripts, and guards of the simulation."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TABLE = (ROOT / "docs" / "hazards.md").read_text()
ROWS = re.findall(r"^\| (H\d+) \|.*\| (.*) \|$", TABLE, re.MULTILINE)
RULES = dict(re.findall(r"^\| (H\d+) \| [^|]* \| ([^|]*) \|", TABLE, re.MULTILINE))
LETTERS = {
    "H1": "abc", "H7": "ab", "H8": "ab", "H12": "abcde", "H14": "abcd", "H18": "abcd", "H21": "ab", "H32": "abcd",
    "H39": "ab",
}  # fmt: skip


def test_every_hazard_has_a_row_and_a_proof_or_the_feature_it_comes_with() -> None:
    assert [name for name, _ in ROWS] == [f"H{number}" for number in range(1, 40)]
    for name, shown in ROWS:
        assert re.search(r"tests/|simulation|with \w|figure", shown), name


def test_every_letter_of_a_rule_has_a_proof_of_its_own() -> None:
    for name, shown in ROWS:
        prose = re.sub(r"`[^`]*`", "", shown)
        letters = (re.findall(r"(?:^|\. )([a-z]) ", RULES[name]), re.findall(r"(?:^|; |, )([a-z])\b", prose))
        assert ["".join(found) for found in letters] == [LETTERS.get(name, "")] * 2, name


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`((?:tests|clients)/[\w/]+\.(?:py|go))::(\w+)`", TABLE)
    assert len(named) > 40
    missing = [f"{path}::{name}" for path, name in named if not _has(path, name)]
    assert not missing


def _has(path: str, name: str) -> bool:
    file = ROOT / path
    return file.exists() and re.search(rf"^(async def|def|func) {name}\(", file.read_text(), re.MULTILINE) is not None


def test_every_test_in_typescript_that_is_named_exists() -> None:
    named = re.findall(r"`(clients/typescript/test/[\w/]+\.test\.ts): ([^`]+)`", TABLE)
    assert len(named) > 5
    missing = [
        f"{path}: {name}" for path, name in named if f"test({json.dumps(name)}," not in (ROOT / path).read_text()
    ]
    assert not missing


def test_every_transcript_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/conformance/transcripts/\w+\.json): ([^`]+)`", TABLE)
    assert len(named) > 15
    for path, name in named:
        assert json.dumps(name, ensure_ascii=False) in (ROOT / path).read_text(), f"{path}: {name}"


def test_every_guard_that_is_named_can_be_turned_off() -> None:
    guards = (ROOT / "tests" / "simulation" / "ablations.py").read_text()
    named = re.findall(r"simulation without ([\w-]+?)[,;| ]", TABLE.split("## Order", 1)[1])
    assert len(named) >= 4
    for name in named:
        assert f'"{name}": ' in guards, name
