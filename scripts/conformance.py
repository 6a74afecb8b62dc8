"""Plays all transcripts and live scenarios in all three languages, and prints who passed what.

    make conformance

Each language plays the transcripts in its own test runner; the live scenarios are those of tests/conformance/live. A
row is a scenario, a column a language: for a run that is handed over, the one that begins it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.test_all import GO_MODULE, NODE_PACKAGE, environment, go_missing, in_ci, node_missing  # noqa: E402

LANGUAGES = ("python", "go", "typescript")
TRANSCRIPTS = ROOT / "tests" / "conformance" / "transcripts"
NAME_WIDTH = 84


class Played(NamedTuple):
    """One scenario in one language, once."""

    suite: str
    scenario: str
    language: str
    outcome: str  # passed, failed or skipped


def python() -> Iterator[Played]:
    """The transcripts in Python, and every live scenario."""
    for case in _report([sys.executable, "-m", "pytest", "tests/conformance", "--junitxml={report}"], ROOT):
        told = {one.get("name"): one.get("value", "") for one in case.iter("property")}
        if "scenario" in told:
            yield Played(told["suite"], told["scenario"], told["language"], _outcome(case))


def go() -> Iterator[Played]:
    """The transcripts in Go."""
    command = ["go", "-C", str(GO_MODULE), "test", "-count=1", "-json", "-run", "^TestTranscripts$", "."]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    names = {_as_go(name): name for name in _names()}
    before = "TestTranscripts/"
    for line in done.stdout.splitlines():
        told = json.loads(line)
        # file: name
        name = names.get(told.get("Test", "").removeprefix(before).partition(":_")[2])
        if name and told["Action"] in ("pass", "fail", "skip"):
            outcome = {"pass": "passed", "fail": "failed", "skip": "skipped"}[told["Action"]]
            yield Played("transcripts", name, "go", outcome)
    if done.returncode:
        print(done.stdout[-4000:] + done.stderr)


def typescript() -> Iterator[Played]:
    """The transcripts in TypeScript."""
    names = _names()
    for case in _report(["node", "scripts/test.js", "conformance"], NODE_PACKAGE):
        if case.get("name") in names:
            yield Played("transcripts", case.get("name", ""), "typescript", _outcome(case))


def _report(command: list[str], folder: Path) -> list[ElementTree.Element]:
    with tempfile.TemporaryDirectory() as made:
        report = Path(made) / "report.xml"
        command = [part.format(report=report) for part in command]
        variables = {**environment(), "REPORT": str(report), "STEPWELL_PYTHON": sys.executable}
        done = subprocess.run(command, cwd=folder, env=variables, check=False, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout[-8000:] + done.stderr[-2000:])
        return list(ElementTree.parse(report).getroot().iter("testcase")) if report.exists() else []


def _outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def _names() -> set[str]:
    return {one["name"] for file in TRANSCRIPTS.glob("*.json") for one in json.loads(file.read_text())}


def _as_go(name: str) -> str:
    """How Go's test runner writes a name."""
    return name.replace(" ", "_")


def table(played: list[Played]) -> Iterator[str]:
    """A row for each scenario, and the totals."""
    rows: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for suite, scenario, language, outcome in played:
        rows[suite, scenario][language][outcome] += 1
    shown = ""
    for (suite, scenario), cells in sorted(rows.items()):
        if suite != shown:
            yield f"\n{suite:<{NAME_WIDTH}}" + "".join(f"{language:>12}" for language in LANGUAGES)
            shown = suite
        name = scenario if len(scenario) < NAME_WIDTH else f"{scenario[: NAME_WIDTH - 2]}…"
        yield f"  {name:<{NAME_WIDTH - 2}}" + "".join(f"{_cell(cells[language]):>12}" for language in LANGUAGES)
    yield f"\n{'in all':<{NAME_WIDTH}}" + "".join(f"{_total(played, language):>12}" for language in LANGUAGES)


def _cell(outcomes: Counter[str]) -> str:
    if outcomes["failed"]:
        return "FAILED"
    return "ok" if outcomes["passed"] else "left out" if outcomes["skipped"] else "–"


def _total(played: list[Played], language: str) -> str:
    outcomes = [one.outcome for one in played if one.language == language]
    return f"{outcomes.count('passed')}/{len(outcomes)}"


def main() -> int:
    """0 if nothing failed, and on CI nothing was left out."""
    played = list(python())
    left_out: list[str] = []
    for play, missing in ((go, go_missing), (typescript, node_missing)):
        if why := missing():
            left_out.append(why)
        else:
            played += play()
    print("\n".join(table(played)))
    print(*left_out, sep="\n")
    outcomes = Counter(one.outcome for one in played)
    print(f"{outcomes['passed']} passed, {outcomes['failed']} failed, {outcomes['skipped']} left out", flush=True)
    # A language that ran nothing at all did not pass.
    silent = {language for language in LANGUAGES if not any(one.language == language for one in played)}
    return int(bool(outcomes["failed"] or silent or (in_ci() and (left_out or outcomes["skipped"]))))


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
