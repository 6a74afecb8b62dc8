"""What a failure is, apart from what differs from run to run and from deployment to deployment, in any language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

MESSAGE_MOST = 200
_READ_MOST = 1_000
_TYPE_MOST = 100
_KEY_MOST = 128
_DEPTH = 32

# Errors that only say which step or run another error came from; every SDK has them under these names.
_CARRIERS = frozenset(
    {
        "StepError",
        "StepTimeoutError",
        "InvokeError",
        "RunFailedError",
        "RunCancelledError",
        "RunTimedOutError",
        "InvokeTimeoutError",
    }
)

_PLACEHOLDERS = (
    (re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://[^\s'\"`<>)\]]+"), "<url>"),
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), "<uuid>"),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "<email>"),
    (re.compile(r"(?<!\w)(?:\"[^\"\n]*\"|'[^'\n]*'|`[^`\n]*`)(?!\w)"), "<text>"),
    (re.compile(r"\b0[xX][0-9a-fA-F]+\b"), "<hex>"),
    (re.compile(r"\b(?=[0-9a-fA-F]*[a-fA-F])(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{8,}\b"), "<hex>"),
    (re.compile(r"\b(?=\w*[A-Za-z])(?=\w*[0-9])\w{6,}\b"), "<id>"),
    (re.compile(r"(?<![\w<])[-+]?\d+(?:[.,:]\d+)*(?:[eE][-+]?\d+)?"), "<n>"),
    (re.compile(r"\d+"), "<n>"),
    (re.compile(r"\s+"), " "),
)
_KEY_REPEAT = re.compile(r":\d+$")

_PYTHON = re.compile(r'^ *File "([^"\n]+)", line \d+, in (.+)$', re.MULTILINE)
_NODE = re.compile(r"^ *at (?:async )?(?:(.+?) \()?((?:file://|node:|/|[A-Za-z]:)[^()\n]*?):\d+:\d+\)?$", re.MULTILINE)
_GO = re.compile(r"^([^\s(][^\n]*?)\([^()\n]*\)\n\t(\S+?):\d+", re.MULTILINE)
_FOREIGN = re.compile(
    r"site-packages/|dist-packages/|/lib/python3|sdk_python/stepwell/|^<|node_modules/|^node:|clients/typescript/(?:src|dist|build)/"
    r"|/pkg/mod/|/go/src/|clients/go/"
)
_GO_FOREIGN = re.compile(r"^(?:runtime|panic|created by|testing|reflect|stepwell\.example/)\b")


class Fingerprint(NamedTuple):
    """A failure in short. digest: of all the rest. frame: "function (file)". key: of the step that it came from."""

    digest: str
    type: str
    reason: str
    message: str
    frame: str
    key: str


def fingerprint(failure: dict[str, Any]) -> Fingerprint:
    """The fingerprint of a failure as it is stored (see failures.py): of what happened first in it."""
    first, key = _first(failure)
    type_ = _text(first, "type")[:_TYPE_MOST]
    reason = _text(first, "reason")[:_TYPE_MOST]
    message = normalised(_text(first, "message"))
    frame = next(filter(None, (frame_of(_text(one, "stack")) for one in _chain(first))), "")
    told = "\0".join((type_, reason, message, frame, normalised(_KEY_REPEAT.sub("", key))))
    digest = blake2b(told.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return Fingerprint(digest, type_, reason, message, frame, key[:_KEY_MOST])


def normalised(text: str) -> str:
    """A message with placeholders where it differs from run to run."""
    text = text[:_READ_MOST]
    for pattern, placeholder in _PLACEHOLDERS:
        text = pattern.sub(placeholder, text)
    text = text.strip()
    return text if len(text) <= MESSAGE_MOST else text[: MESSAGE_MOST - 1] + "…"


def frame_of(stack: str) -> str:
    """The deepest place of the user's code in a stack of Python, Go or JavaScript, without its line; empty if none."""
    found = ""
    for path, name in _python(stack):
        if not _FOREIGN.search(path):
            found = _frame(name, path)
    if found:
        return found
    for path, name in (*_node(stack), *_go(stack)):
        if not _FOREIGN.search(path):
            return _frame(name, path)
    return ""


def _python(stack: str) -> Iterator[tuple[str, str]]:
    """The deepest last."""
    return ((one[1], one[2]) for one in _PYTHON.finditer(stack))


def _node(stack: str) -> Iterator[tuple[str, str]]:
    """The deepest first."""
    return ((one[2], one[1] or "") for one in _NODE.finditer(stack))


def _go(stack: str) -> Iterator[tuple[str, str]]:
    """The deepest first."""
    return ((one[2], one[1]) for one in _GO.finditer(stack) if not _GO_FOREIGN.match(one[1]))


def _frame(name: str, path: str) -> str:
    file = re.split(r"[/\\]", path)[-1]
    name = name.removeprefix("Object.").strip()
    return f"{name} ({file})"[:MESSAGE_MOST] if name and name != "<anonymous>" else file[:MESSAGE_MOST]


def _first(failure: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What happened first, beneath the steps and invokes that only passed it on, and the outermost of their keys."""
    passed: list[dict[str, Any]] = []
    first = failure
    while len(passed) < _DEPTH and isinstance(first.get("cause"), dict) and first.get("type") in _CARRIERS:
        passed.append(first)
        first = first["cause"]
    while passed and not _text(passed[-1], "message").endswith(_described(first)):
        first = passed.pop()
    if not passed:
        return first, ""
    before = _text(passed[0], "message").removesuffix(_described(first)).removesuffix(": ")
    return first, before.rpartition(": ")[2]


def _described(failure: dict[str, Any]) -> str:
    type_, message = _text(failure, "type"), _text(failure, "message")
    return f"{type_}: {message}" if message else type_


def _chain(failure: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A failure and its causes."""
    one: Any = failure
    for _ in range(_DEPTH):
        if not isinstance(one, dict):
            return
        yield one
        one = one.get("cause")


def _text(failure: dict[str, Any], name: str) -> str:
    value = failure.get(name)
    return value if isinstance(value, str) else ""
