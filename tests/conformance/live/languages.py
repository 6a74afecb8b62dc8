"""The three conformance workers: how each is built and started, and why one cannot be."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from scripts.test_all import GO_MODULE, NODE_PACKAGE, go_missing, node_missing

LANGUAGES = ("python", "go", "typescript")
_MISSING = {"python": lambda: "", "go": go_missing, "typescript": node_missing}


@functools.cache
def command(language: str) -> list[str | Path]:
    """What starts the worker of a language; built if it must be. Skips the test where its tools are missing."""
    if why := _MISSING[language]():
        assert os.environ.get("CI") != "true", why
        pytest.skip(why)
    return {"python": _python, "go": _go, "typescript": _typescript}[language]()


def _python() -> list[str | Path]:
    return [sys.executable, Path(__file__).with_name("worker.py")]


def _go() -> list[str | Path]:
    folder = Path(tempfile.mkdtemp(prefix="stepwell-conformance-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / "conformance"
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/go/bin"))
    _run("go", "-C", GO_MODULE, "build", "-o", program, "./internal/conformance", PATH=path)
    return [program]


def _typescript() -> list[str | Path]:
    made = NODE_PACKAGE / "build" / "conformance"
    compiler = NODE_PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
    _run("node", compiler, "-p", NODE_PACKAGE / "tsconfig.test.json", "--noCheck", "--outDir", made)
    return ["node", made / "test" / "live" / "worker.js"]


def _run(*command: str | Path, **variables: str) -> None:
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
