"""Runs every check and every suite with live output; the last line is the sum: `N passed, N failed`.

    make test                          everything
    make test ARGS='unit contract'     some of it, by name
    make lint                          the checks alone

A check counts as one. A suite is a folder of tests/; a new one needs no entry here. Skipped tests are named, but not
counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
GEN_PYTHON = ROOT / ".venv-gen" / "bin" / "python"
ORDER = ("unit", "contract", "model", "conformance", "simulation", "verification", "e2e")


@dataclass(frozen=True, slots=True)
class Result:
    """What one check or suite came to."""

    name: str
    passed: int
    failed: int
    skipped: int = 0
    seconds: float = 0.0


def run(*command: str | Path) -> int:
    """A command in the checkout, its output passed through."""
    env = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
    }
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=env, check=False).returncode


def pyright() -> int:
    """Types, against the interpreter that runs this."""
    return run(BIN / "pyright", "--pythonpath", sys.executable)


def buf_breaking() -> int:
    """The protocol still fits the last release, or the commit before this one."""
    against = _git("describe", "--tags", "--abbrev=0", "--match", "v*") or _git("rev-parse", "--verify", "-q", "HEAD~1")
    if not against or not _git("ls-tree", "--name-only", against, "proto/"):
        print("nothing to compare with yet")
        return 0
    print(f"against {against[:12]}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", against, "proto"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        return run(BIN / "buf", "breaking", "proto", "--against", Path(folder) / "proto")


def generated() -> int:
    """The committed code is what the generator makes of proto/."""
    if not GEN_PYTHON.exists():
        print("no generator here: `make generate` installs it")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        if run("scripts/generate", GEN_PYTHON, folder):
            return 1
        made, kept = Path(folder) / "stepwell" / "v1", ROOT / "sdk_python" / "stepwell" / "v1"
        names = {path.name for base in (made, kept) for path in base.glob("*_pb2*.py*")}
        drifted = [name for name in sorted(names) if _bytes(made / name) != _bytes(kept / name)]
    if drifted:
        print(f"differs from proto/: {', '.join(drifted)}; run `make generate`")
    return int(bool(drifted))


CHECKS: dict[str, Callable[[], int]] = {
    "ruff": lambda: run(BIN / "ruff", "check", "."),
    "format": lambda: run(BIN / "ruff", "format", "--check", "-q", "."),
    "pyright": pyright,
    "import-linter": lambda: run(BIN / "lint-imports", "--no-cache"),
    "buf-lint": lambda: run(BIN / "buf", "lint", "proto"),
    "buf-breaking": buf_breaking,
    "generated": generated,
}


def check(name: str) -> Result:
    """One check: it passes or fails."""
    began = time.monotonic()
    code = CHECKS[name]()
    return Result(name, int(code == 0), int(code != 0), seconds=time.monotonic() - began)


def suite(name: str) -> Result:
    """A folder of tests, counted by the report that pytest writes."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = run(sys.executable, "-m", "pytest", f"tests/{name}", "-rs", f"--junitxml={report}")
        counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
        if report.exists():
            for one in ElementTree.parse(report).getroot().iter("testsuite"):
                counts = {key: value + int(one.get(key, 0)) for key, value in counts.items()}
    failed = counts["failures"] + counts["errors"]
    passed = max(counts["tests"] - failed - counts["skipped"], 0)
    # A crash, or nothing collected, is a failure even where no test says so.
    return Result(name, passed, failed or int(code != 0), counts["skipped"], time.monotonic() - began)


def suites() -> list[str]:
    """Folders of tests/ with tests in them, the quick ones first."""
    found = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
    return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for; 0 if nothing failed."""
    known = [*CHECKS, *suites()]
    wanted = list(CHECKS) if "--lint" in arguments else known
    named = [name for name in arguments if name != "--lint"]
    if unknown := [name for name in named if name not in known]:
        print(f"no check or suite {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    results: list[Result] = []
    for name in named or wanted:
        print(f"\n── {name} " + "─" * (70 - len(name)), flush=True)
        results.append(check(name) if name in CHECKS else suite(name))
    print("\n── summary " + "─" * 63)
    for one in results:
        skipped = f", {one.skipped} skipped" if one.skipped else ""
        mark = "FAILED" if one.failed else "ok"
        print(f"{mark:<7}{one.name:<15}{one.passed:>6} passed, {one.failed} failed{skipped}  ({one.seconds:.1f} s)")
    passed, failed = sum(one.passed for one in results), sum(one.failed for one in results)
    print(f"{passed} passed, {failed} failed", flush=True)
    return int(failed > 0)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
