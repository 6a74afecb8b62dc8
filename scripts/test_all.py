"""Runs every check and every suite with live output; the last line is the sum: `N passed, N failed`.

    make test                          everything
    make test ARGS='unit contract'     some of it, by name
    make lint                          the checks alone

A check counts as one. A suite is a folder of tests/; a new one needs no entry here. Skipped tests are named, but not
counted.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
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
GENERATED = (
    # script, folder of the committed files, the same folder of what it makes, its files
    ("generate", "sdk_python/stepwell/v1", "stepwell/v1", "*_pb2*.py*"),
    ("generate_go", "clients/go/v1", "v1", "*.pb.go"),
    ("generate_typescript", "clients/typescript/src/v1", ".", "*_pb.ts"),
)
GO_MODULE = ROOT / "clients" / "go"
NODE_PACKAGE = ROOT / "clients" / "typescript"
ORDER = ("unit", "contract", "model", "conformance", "go", "typescript", "simulation", "verification", "e2e")


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
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=environment(), check=False).returncode


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
    """The committed code is what the generators make of proto/."""
    if not GEN_PYTHON.exists():
        print("no generator here: `make generate` installs it")
        return 1
    drifted = [name for one in GENERATED for name in _drift(*one)]
    if drifted:
        print(f"differs from proto/: {', '.join(drifted)}; run `make generate`")
    return int(bool(drifted))


def _drift(script: str, kept: str, made: str, files: str) -> list[str]:
    """Files of a folder that are not as the script makes them."""
    if why := missing(script):
        print(why)
        return []
    with tempfile.TemporaryDirectory() as folder:
        if run(f"scripts/{script}", GEN_PYTHON, folder):
            return [f"scripts/{script} failed"]
        old, new = ROOT / kept, Path(folder) / made
        names = {path.name for base in (old, new) for path in base.glob(files)}
        return [f"{kept}/{name}" for name in sorted(names) if _bytes(new / name) != _bytes(old / name)]


@functools.cache
def go_missing() -> str:
    """Why nothing of clients/go can be run here; empty if it can."""
    wanted = re.search(r"^go (\d+)\.(\d+)", (GO_MODULE / "go.mod").read_text(), re.MULTILINE)
    assert wanted, "go.mod names the oldest Go that it needs"
    need = f"Go {wanted[1]}.{wanted[2]} or newer"
    how = f"install {need} (Debian 13: apt-get install golang; else go.dev/dl) and put it in PATH"
    if not (go := shutil.which("go", path=environment()["PATH"])):
        return f"LEFT OUT: no Go here; {how}"
    # Not the version that go.mod may ask it to fetch, but its own; before 1.21 it cannot fetch another.
    said = subprocess.run([go, "version"], capture_output=True, text=True, check=False, cwd="/").stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    if not found or (int(found[1]), int(found[2])) < (1, 21):
        return f"LEFT OUT: {go} is too old ({said.strip() or 'it does not run'}); {how}"
    return ""


@functools.cache
def node_missing() -> str:
    """Why nothing of clients/typescript can be run here; empty if it can."""
    looked = subprocess.run(
        ["scripts/has_node"], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    if looked.returncode:
        return looked.stdout.strip() or "LEFT OUT: scripts/has_node does not run"
    return "" if (NODE_PACKAGE / "node_modules" / ".made").exists() else "LEFT OUT: `make setup` installs its packages"


def node(tool: str, *arguments: str) -> int:
    """A tool of clients/typescript, in its folder."""
    command = ["node", f"node_modules/{tool}", *arguments]
    return subprocess.run(command, cwd=NODE_PACKAGE, env=environment(), check=False).returncode


def go_vet() -> int:
    """What the compiler and vet have against the Go code: the SDK, and the modules of examples/."""
    modules = [GO_MODULE, *sorted(path.parent for path in (ROOT / "examples").rglob("go.mod"))]
    return max(run("go", "-C", module, "vet", "./...") for module in modules)


def tsc() -> int:
    """What the compiler has against the TypeScript code: the SDK with its tests, and examples/ as they use it."""
    return max(node("typescript/bin/tsc", "--noEmit", "-p", project) for project in (".", "tsconfig.examples.json"))


def prettier() -> int:
    """Every TypeScript file is in the form that prettier gives it."""
    options = ("--check", "--log-level=warn", "--config", ".prettierrc.json")
    return node("prettier/bin/prettier.cjs", *options, ".", "../../examples/**/*.ts")


def gofmt() -> int:
    """Every Go file is in the form that gofmt gives it."""
    command = ["gofmt", "-l", GO_MODULE, "examples"]
    said = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    print(said.stdout + said.stderr, end="")
    return int(bool(said.stdout or said.returncode))


CHECKS: dict[str, Callable[[], int]] = {
    "ruff": lambda: run(BIN / "ruff", "check", "."),
    "format": lambda: run(BIN / "ruff", "format", "--check", "-q", "."),
    "pyright": pyright,
    "import-linter": lambda: run(BIN / "lint-imports", "--no-cache"),
    "buf-lint": lambda: run(BIN / "buf", "lint", "proto"),
    "buf-breaking": buf_breaking,
    "generated": generated,
    "gofmt": gofmt,
    "go-vet": go_vet,
    "tsc": tsc,
    "eslint": lambda: node("eslint/bin/eslint.js", "."),
    "prettier": prettier,
}
NEEDS: dict[str, Callable[[], str]] = {
    **dict.fromkeys(("generate_go", "gofmt", "go-vet", "go"), go_missing),
    **dict.fromkeys(("generate_typescript", "tsc", "eslint", "prettier", "typescript"), node_missing),
}
"""What each needs besides Python: left out where that is missing; on CI that is a failure."""


def missing(name: str) -> str:
    """Why a check, a suite or a generator cannot run here; empty if it can."""
    return NEEDS[name]() if name in NEEDS else ""


def check(name: str) -> Result:
    """One check: it passes or fails."""
    if missing(name):
        return left_out(name)
    began = time.monotonic()
    code = CHECKS[name]()
    return Result(name, int(code == 0), int(code != 0), seconds=time.monotonic() - began)


def left_out(name: str) -> Result:
    """What cannot run here, and says why."""
    print(missing(name))
    return Result(name, 0, int(in_ci()), skipped=1)


def suite(name: str) -> Result:
    """A folder of tests, counted by the report that pytest writes."""
    if missing(name):
        return left_out(name)
    if name in CLIENT_SUITES:
        return CLIENT_SUITES[name]()
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


def go_suite() -> Result:
    """The tests of clients/go, counted as the toolchain tells them; a test that holds others does not count itself."""
    began = time.monotonic()
    # The race detector needs a C compiler.
    race = ["-race"] if shutil.which("gcc") or shutil.which("cc") else []
    if not race:
        print("no C compiler here: the tests run without the race detector")
    command = ["go", "-C", str(GO_MODULE), "test", *race, "-count=1", "-json", "./..."]
    ended: dict[tuple[str, str], str] = {}
    said: dict[tuple[str, str], str] = {}
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            told: dict[str, str] = json.loads(line) if line.startswith("{") else {"Output": line}
            test = (told.get("Package", ""), told.get("Test", ""))
            if not test[1]:
                print(told.get("Output", ""), end="", flush=True)
                continue
            said[test] = said.get(test, "") + told.get("Output", "")
            if told["Action"] in ("pass", "fail", "skip"):
                ended[test] = told["Action"]
                output = said.pop(test)
                print(output if told["Action"] == "fail" else "", end="", flush=True)
    around = {(package, test.rsplit("/", 1)[0]) for package, test in ended if "/" in test}
    leaves = [action for test, action in ended.items() if test not in around]
    failed = leaves.count("fail") or int(process.returncode != 0)
    return Result("go", leaves.count("pass"), failed, leaves.count("skip"), time.monotonic() - began)


def typescript_suite() -> Result:
    """The tests of clients/typescript, counted by the report of Node's own runner."""
    began = time.monotonic()
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        env = {**environment(), "REPORT": str(report), "STEPWELL_PYTHON": sys.executable}
        code = subprocess.run(["node", "scripts/test.js"], cwd=NODE_PACKAGE, env=env, check=False).returncode
        if report.exists():
            for case in ElementTree.parse(report).getroot().iter("testcase"):
                failed += case.find("failure") is not None
                skipped += case.find("skipped") is not None
                passed += len(case) == 0
    return Result("typescript", passed, failed or int(code != 0), skipped, time.monotonic() - began)


CLIENT_SUITES: dict[str, Callable[[], Result]] = {"go": go_suite, "typescript": typescript_suite}


def suites() -> list[str]:
    """Folders of tests/ with tests in them, the quick ones first; and the tests of clients/."""
    found = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
    found |= CLIENT_SUITES.keys()
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


def environment() -> dict[str, str]:
    """That of the commands: the tools of this environment first, Go also where its own installer puts it."""
    path = os.pathsep.join((str(BIN), os.environ.get("PATH", ""), "/usr/local/go/bin"))
    return {**os.environ, "PATH": path, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}


def in_ci() -> bool:
    """Whether nothing may be left out."""
    return os.environ.get("CI") == "true"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
