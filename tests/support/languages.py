"""Programs of the checkout in Go and TypeScript: how each is built, what starts it, and why it cannot be had."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from scripts.test_all import GO_MODULE, NODE_PACKAGE, environment, go_missing, node_missing

MISSING = {"python": lambda: "", "go": go_missing, "typescript": node_missing}
"""Why nothing of a language can be run here; empty if it can."""


@functools.cache
def go_program(package: str) -> tuple[str, ...]:
    """The command of a program of clients/go, by its folder there."""
    folder = Path(tempfile.mkdtemp(prefix="stepwell-go-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / Path(package).name
    _run("go", "-C", GO_MODULE, "build", "-o", program, f"./{package}")
    return (str(program),)


def typescript_program(file: str) -> tuple[str, ...]:
    """The command of a program of clients/typescript, by its file there, without the ending."""
    return ("node", str(_typescript() / f"{file}.js"))


@functools.cache
def _typescript() -> Path:
    made = NODE_PACKAGE / "build" / "programs"
    compiler = NODE_PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
    # Types are checked where the suite compiles it.
    _run("node", compiler, "-p", NODE_PACKAGE / "tsconfig.test.json", "--noCheck", "--outDir", made)
    return made


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
