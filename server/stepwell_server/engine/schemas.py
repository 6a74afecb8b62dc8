"""JSON Schemas of functions and events: checked at registration, compiled once, asked whether a value fits.

Whatever a schema costs is bounded when it is registered: its size, its depth, and how far it grows once its references
are followed. It cannot lead out of its own document. A value that cannot be judged all the same fits: judging is a
courtesy to the sender, and must not lose what it sends.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

import jsonschema_rs
import orjson

from stepwell_server.model.errors import InvalidError
from stepwell_server.model.limits import LIMITS

log = logging.getLogger("stepwell.schemas")
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAMED_BYTES = 32 * 1024
_MESSAGE_CHARS = 300
_PATH_CHARS = 200
_IN_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_IN_MAPS = ("properties", "patternProperties", "dependentSchemas")
_IN_PLACE = (
    "items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "not",
    "if", "then", "else",
)  # fmt: skip
_FOREIGN = ("$dynamicRef", "$recursiveRef")
_BRANCHES = frozenset(("allOf", "anyOf", "oneOf", "not", "if", "contains", "dependentSchemas", "patternProperties"))
_DEPTH_MAX = 256
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
_CHOICES = (jsonschema_rs.ValidationErrorKind.AnyOf, jsonschema_rs.ValidationErrorKind.OneOfNotValid)
_BROKEN_OFF = (
    jsonschema_rs.ValidationErrorKind.BacktrackLimitExceeded,
    jsonschema_rs.ValidationErrorKind.RegexEngineFailure,
)


class Misfit(NamedTuple):
    """Where a value does not fit, and why. path: ".items[0].sku", empty for the value as a whole."""

    path: str
    message: str

    def refusal(self, reason: str, root: str, what: str) -> InvalidError:
        """What the sender is told. root: the field that holds the value."""
        place = root + self.path
        return InvalidError(reason, f"{place} does not fit {what}: {self.message}", fields=((place, self.message),))


class Schema:
    """A compiled schema."""

    __slots__ = ("_branching", "_recursive", "_validator")

    def __init__(self, validator: Any, *, recursive: bool, branching: bool) -> None:
        self._validator = validator
        self._recursive = recursive
        self._branching = branching

    def misfit(self, value: Any, size: int) -> Misfit | None:
        """Where the value, whose text has so many bytes, does not fit; None if it does, or cannot be judged."""
        try:
            if self._validator.is_valid(value):
                return None
            # To explain takes exponential time where a schema with branches holds itself, and much where the value is
            # large.
            if self._branching and (self._recursive or size > _NAMED_BYTES):
                return Misfit("", "no alternative of its schema fits")
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            deepest = _deepest(error)
            if not isinstance(deepest.kind, _BROKEN_OFF):
                return Misfit(_path(deepest.instance_path), _cut(deepest.message, _MESSAGE_CHARS))
            log.warning("a value could not be judged: %s; it is let in", type(deepest.kind).__name__)
        except (ValueError, RecursionError) as error:
            log.warning("a value could not be judged: %s; it is let in", type(error).__name__)
        return None


def check(field: str, text: bytes) -> None:
    """Raises InvalidError (BAD_SCHEMA, TOO_LARGE), naming the field, unless the text is a schema."""
    if len(text) > LIMITS.schema_bytes:
        raise InvalidError(
            "TOO_LARGE",
            f"{field} has {len(text)} bytes, more than {LIMITS.schema_bytes}",
            fields=((field, "too large"),),
        )
    try:
        _compile(text)
    except ValueError as error:
        why = _cut(str(error), _MESSAGE_CHARS)
        message = f"{field} is not a JSON Schema (2020-12): {why}"
        raise InvalidError("BAD_SCHEMA", message, fields=((field, why),)) from error


def of(text: bytes) -> Schema | None:
    """A checked schema; None where the text is empty, or was stored by a server that took what this one refuses."""
    if not text:
        return None
    try:
        return _compile(text)
    except ValueError as error:
        log.warning("a registered schema is not used: %s", error)
        return None


@lru_cache(maxsize=4096)
def _compile(text: bytes) -> Schema:
    document = orjson.loads(text)
    if not isinstance(document, (dict, bool)):  # the library would take a text for a document of its own
        raise ValueError("it is neither an object nor true or false")
    walk = _Walk(document)
    walk.size(document, 0)
    try:
        validator = jsonschema_rs.Draft202012Validator(
            document, offline=True, mask="the value", pattern_options=_PATTERNS
        )
    except jsonschema_rs.ValidationError as error:
        path = _path(error.instance_path)
        raise ValueError(f"{path}: {error.message}" if path else error.message) from error
    return Schema(validator, recursive=walk.recursive, branching=walk.branching)


class _Walk:
    """Follows a schema into all its parts, and says how large it is with each reference replaced by its target.

    Parts in which it holds itself count once. Raises ValueError for what cannot be allowed.
    """

    def __init__(self, document: Any) -> None:
        self.recursive = False
        self.branching = False
        self._document = document
        self._sizes: dict[int, int] = {}  # by identity: 0 while a part is being followed

    def size(self, schema: Any, depth: int) -> int:
        if not isinstance(schema, dict):
            return 1
        known = self._sizes.get(id(cast("object", schema)))
        if known is not None:
            self.recursive = self.recursive or known == 0
            return known or 1
        if depth > _DEPTH_MAX:
            raise ValueError(f"it is nested deeper than {_DEPTH_MAX} levels once its references are followed")
        part = cast("dict[str, Any]", schema)
        self._check(part, depth)
        self._sizes[id(part)] = 0
        size = 1
        for inner in self._inner(part):
            size += self.size(inner, depth + 1)
        if size > LIMITS.schema_parts:
            raise ValueError(f"it has more than {LIMITS.schema_parts} parts once its references are followed")
        self._sizes[id(part)] = size
        return size

    def _check(self, part: dict[str, Any], depth: int) -> None:
        if part.get("$schema", _DIALECT) not in (_DIALECT, _DIALECT + "#"):
            raise ValueError(f"$schema {_cut(str(part['$schema']), _PATH_CHARS)!r} is not {_DIALECT}")
        if "$id" in part and depth:
            raise ValueError("$id stands only at its top")
        for keyword in _FOREIGN:
            if keyword in part:
                raise ValueError(f"{keyword} is not allowed")

    def _inner(self, part: dict[str, Any]) -> list[Any]:
        inner = [part[keyword] for keyword in _IN_PLACE if keyword in part]
        for keyword in _IN_LISTS:
            if isinstance(part.get(keyword), list):
                inner.extend(part[keyword])
        for keyword in _IN_MAPS:
            if isinstance(part.get(keyword), dict):
                inner.extend(part[keyword].values())
        if "$ref" in part:
            inner.append(self._target(part["$ref"]))
        self.branching = self.branching or not _BRANCHES.isdisjoint(part) or ("$ref" in part and len(inner) > 1)
        return inner

    def _target(self, ref: Any) -> Any:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise ValueError(f"$ref {_cut(str(ref), _PATH_CHARS)!r} leads out of the document: it must begin with #/")
        target = self._document
        for step in unquote(ref).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and key in target:
                target = cast("dict[str, Any]", target)[key]
            elif isinstance(target, list) and key.isdecimal() and int(key) < len(cast("list[Any]", target)):
                target = cast("list[Any]", target)[int(key)]
            else:
                raise ValueError(f"$ref {_cut(ref, _PATH_CHARS)!r} leads nowhere")
        return target


def _deepest(error: Any) -> Any:
    """Of a failed choice the error of the alternative that went furthest into the value: the one that was meant."""
    while isinstance(error.kind, _CHOICES):
        inner = [one for branch in error.kind.context for one in branch]
        best = max(inner, key=lambda one: len(one.instance_path), default=error)
        if len(best.instance_path) <= len(error.instance_path):
            return error
        error = best
    return error


def _path(steps: list[str | int]) -> str:
    return _cut("".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps), _PATH_CHARS)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + " …"
