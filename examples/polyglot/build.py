"""Builds the parts of the example that are not Python, where their tools are; says what is left out elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from scripts.test_all import NODE_PACKAGE, environment, go_missing, node_missing  # noqa: E402


def missing() -> list[str]:
    """Why the example cannot be built here, a line for each reason."""
    return [why for why in (go_missing(), node_missing()) if why]


def build(folder: Path) -> dict[str, list[str]]:
    """Builds into an empty folder: the commands of the workers, by the name of their app."""
    with ThreadPoolExecutor(2) as pool:
        go, typescript = pool.submit(_go, folder), pool.submit(_typescript, folder)
    return {
        "stock": go.result(),
        "shipping": typescript.result(),
        "orders": [sys.executable, str(HERE / "orders.py")],
    }


def _go(folder: Path) -> list[str]:
    program = folder / "stock"
    _run("go", "-C", HERE / "stock", "build", "-o", program, ".")
    return [str(program)]


def _typescript(folder: Path) -> list[str]:
    """Compiles the app against the package as it would be installed."""
    compiler = NODE_PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
    app = folder / "shipping"
    (app / "node_modules").mkdir(parents=True)
    (app / "node_modules" / "stepwell").symlink_to(package())
    (app / "package.json").write_text('{"type": "module"}\n')
    shutil.copy(HERE / "shipping" / "app.ts", app)
    options = ("--strict", "--target", "ES2023", "--module", "NodeNext", "--skipLibCheck")
    _run("node", compiler, *options, app / "app.ts")
    return ["node", str(app / "app.js")]


def package() -> Path:
    """Makes the package `stepwell` of TypeScript as it would be installed: its folder."""
    compiler = NODE_PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
    made = NODE_PACKAGE / "build" / "package"
    made.mkdir(parents=True, exist_ok=True)
    shutil.copy(NODE_PACKAGE / "package.json", made)
    config = NODE_PACKAGE / "tsconfig.build.json"
    _run("node", compiler, "-p", config, "--noCheck", "--outDir", made / "dist")
    return made


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
