"""The examples of the guide: what stands there in each language, and the commands that run it.

A block of Python begins an example; blocks of Go and TypeScript after it are the same in these languages. The comment
`<!-- example … -->` that ends it says, a line each, what shall happen, in all of them. A line that begins with the name
of a language and a colon is for that language alone.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from examples.polyglot.build import HERE as POLYGLOT
from examples.polyglot.build import package
from scripts.test_all import GO_MODULE, NODE_PACKAGE, environment

Commands = dict[int, list[str]]
"""What starts each example, by its number."""

_PART = re.compile(
    r"^## (?P<title>[^\n]*)$"
    r"|^```(?P<fence>python|go|ts)\n(?P<code>.*?)^```$"
    r"|^<!-- example\n(?P<orders>.*?)-->$",
    re.M | re.S,
)
_LANGUAGES = {"python": "python", "go": "go", "ts": "typescript"}
_TAIL = '\nif __name__ == "__main__":\n    app.run()\n'
_package = functools.cache(package)


class Example(NamedTuple):
    """What stands under a heading. code: by language."""

    number: int
    title: str
    code: dict[str, str]
    orders: list[str]

    @property
    def app(self) -> str:
        """The name of its app; empty if it has none."""
        return match[1] if (match := re.search(r'App\("(.*?)"\)', self.code["python"])) else ""

    @property
    def is_script(self) -> bool:
        """Whether it runs by itself and prints, instead of serving an app."""
        return any("prints " in order for order in self.orders)

    def orders_in(self, language: str) -> list[str]:
        """The lines for a language."""
        others = tuple(f"{one}: " for one in _LANGUAGES.values() if one != language)
        return [order.removeprefix(f"{language}: ") for order in self.orders if not order.startswith(others)]


def read(page: Path) -> list[Example]:
    """The examples of a page, in order."""
    found: list[Example] = []
    title = "Introduction"
    for part in _PART.finditer(page.read_text()):
        if part["title"]:
            title = part["title"]
        elif part["fence"] == "python":
            found.append(Example(len(found) + 1, title, {"python": part["code"]}, []))
        elif part["fence"]:
            language = _LANGUAGES[part["fence"]]
            assert language not in found[-1].code, f"{title}: {language} stands there twice"
            found[-1].code[language] = part["code"]
        else:
            assert not found[-1].orders, f"{title}: the comment follows no example"
            found[-1].orders.extend(part["orders"].splitlines())
    return found


def build(language: str, examples: list[Example], folder: Path) -> Commands:
    """Builds all that stand there in a language, at once, into an empty folder."""
    codes = {one.number: one.code[language] for one in examples if language in one.code}
    return _BUILDERS[language](codes, folder)


def _python(codes: dict[int, str], folder: Path) -> Commands:
    for number, code in codes.items():
        defines_only = "App(" in code and not re.search(r"^(asyncio|    app)\.run\(", code, re.M)
        own = folder / f"example{number}"
        own.mkdir()
        (own / "app.py").write_text(code + _TAIL if defines_only else code)
    return {number: [sys.executable, str(folder / f"example{number}" / "app.py")] for number in codes}


def _go(codes: dict[int, str], folder: Path) -> Commands:
    """A module with a program for each; it needs what the one of examples/polyglot needs."""
    module = (POLYGLOT / "stock" / "go.mod").read_text().replace("../../../clients/go", str(GO_MODULE))
    (folder / "go.mod").write_text(module)
    shutil.copy(POLYGLOT / "stock" / "go.sum", folder)
    for number, code in codes.items():
        (folder / f"example{number}").mkdir()
        (folder / f"example{number}" / "main.go").write_text(code)
    (folder / "bin").mkdir()
    _run(folder, "go", "build", "-ldflags=-w", "-o", folder / "bin", "./...")
    _run(folder, "go", "vet", "./...")
    assert not (said := _run(folder, "gofmt", "-d", ".")), said
    return {number: [str(folder / "bin" / f"example{number}")] for number in codes}


def _typescript(codes: dict[int, str], folder: Path) -> Commands:
    """Modules beside the package as it would be installed."""
    modules = folder / "node_modules"
    modules.mkdir()
    (modules / "stepwell").symlink_to(_package())
    (modules / "zod").symlink_to(NODE_PACKAGE / "node_modules" / "zod")
    (folder / "package.json").write_text('{"type": "module"}\n')
    for number, code in codes.items():
        (folder / f"example{number}.ts").write_text(code)
    files = [folder / f"example{number}.ts" for number in codes]
    tools = NODE_PACKAGE / "node_modules"
    config = folder / "tsconfig.json"
    config.write_text(
        f'{{"extends": "{NODE_PACKAGE / "tsconfig.json"}", "include": ["*.ts"],'
        f' "compilerOptions": {{"noEmit": false, "typeRoots": ["{tools / "@types"}"]}}}}\n'
    )
    _run(folder, "node", tools / "typescript" / "bin" / "tsc", "-p", config)
    style = NODE_PACKAGE / ".prettierrc.json"
    _run(folder, "node", tools / "prettier" / "bin" / "prettier.cjs", "--config", style, "--check", *files)
    return {number: ["node", str(folder / f"example{number}.js")] for number in codes}


_BUILDERS: dict[str, Callable[[dict[int, str], Path], Commands]] = {
    "python": _python,
    "go": _go,
    "typescript": _typescript,
}


def _run(folder: Path, *command: str | Path) -> str:
    """What a command says; fails with it."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout
