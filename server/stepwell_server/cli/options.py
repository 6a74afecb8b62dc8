"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stepwell_server.cli.failures import UsageFailure
from stepwell_server.model.limits import LIMITS


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


Address = Annotated[
    str, typer.Option("--address", envvar="STEPWELL_ADDRESS", metavar="HOST:PORT", help="Address of the server.")
]
Environment = Annotated[
    str,
    typer.Option("--environment", envvar="STEPWELL_ENVIRONMENT", help="Environment; the server's default if empty."),
]
Output = Annotated[
    Format, typer.Option("-o", "--output", help="table, or json: one object, or one object a line for lists.")
]
Data = Annotated[str, typer.Option("-d", "--data", metavar="JSON|@FILE|-", help="JSON text, @file, or - for stdin.")]
Filter = Annotated[str, typer.Option("--filter", metavar="CEL", help="Only those that fit this condition.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most this many.")]

DEFAULT_ADDRESS = "127.0.0.1:7777"


def duration_ms(text: str) -> int:
    """ "4d", "1h30m", "500ms" → milliseconds."""
    from stepwell.duration import DurationError, to_ms

    try:
        return to_ms(text)
    except DurationError as e:
        raise UsageFailure(str(e)) from None


def status_numbers(given: list[str] | None, known: Sequence[str]) -> list[Any]:
    """What --status names, several at once parted by commas, as the protocol has it."""
    from stepwell.v1 import run_pb2

    found: list[Any] = []
    for word in [one.strip().lower() for text in given or () for one in text.split(",")]:
        if word not in known:
            raise UsageFailure(f"--status {word!r}: expected one of {', '.join(known)}")
        found.append(run_pb2.RunStatus.Value(f"RUN_STATUS_{word.upper()}"))
    return found


def json_bytes(text: str, what: str, limit: str) -> bytes:
    """The JSON text that -d names, checked, as compact UTF-8. limit: the one of model/limits.py that it must keep."""
    data = _json_bytes(text, what)
    most: int = getattr(LIMITS, limit)
    if len(data) > most:
        raise UsageFailure(f"{what} has {len(data)} bytes; {limit} is {most} [TOO_LARGE]")
    return data


def _json_bytes(text: str, what: str) -> bytes:
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8-sig")
        except OSError as e:
            raise UsageFailure(f"{what}: cannot read {text[1:]}: {e.strerror}") from None
        except UnicodeDecodeError as e:
            raise UsageFailure(f"{what}: {text[1:]} is not UTF-8 (byte {e.start})") from None
    try:
        value = json.loads(text, parse_constant=_refuse)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise UsageFailure(f"{what}: a lone surrogate is not valid text") from None
    except RecursionError:
        raise UsageFailure(f"{what}: nested too deeply") from None
    except ValueError as e:
        raise UsageFailure(f"{what} is not JSON: {e}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")
