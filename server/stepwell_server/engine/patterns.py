"""Constant regular expressions of a condition, found in its text: CEL compiles them only when it evaluates."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<text>[bB]?[rR]?(?:\"{3}.*?\"{3}|'{3}.*?'{3})|[bB]?[rR](?:"[^"]*"|'[^']*')"""
    r"""|[bB]?(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'))|(?P<name>\w+)|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<comma>,)|\S""",
    re.DOTALL,
)


def constant(condition: str) -> Iterator[str]:
    """The last arguments of all calls of `matches` that name nothing, as CEL."""
    tokens = [(one.lastgroup, one[0]) for one in _TOKEN.finditer(condition)]
    for at, (kind, word) in enumerate(tokens[:-1]):
        if (kind, word) == ("name", "matches") and tokens[at + 1][1] == "(":
            argument = _last_argument(tokens[at + 2 :])
            if argument and all(kind != "name" for kind, _ in argument):
                yield " ".join(word for _, word in argument)


def _last_argument(tokens: list[tuple[str | None, str]]) -> list[tuple[str | None, str]]:
    """Up to where the call is closed, from its last comma on."""
    found: list[tuple[str | None, str]] = []
    depth = 0
    for kind, word in tokens:
        depth += (kind == "open") - (kind == "close")
        if depth < 0:
            return found
        if kind == "comma" and depth == 0:
            found = []
        else:
            found.append((kind, word))
    return []
