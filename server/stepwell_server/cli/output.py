"""How results are printed: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from stepwell.v1 import common_pb2

from stepwell_server.cli.options import Format

if TYPE_CHECKING:
    from rich.console import Console

_SCHEMAS = ("input_schema", "output_schema", "schema")


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON values: payloads opened, enums by their short lower-case name, unset parts left out."""
    shown: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            shown[field.name] = dict(value)
        elif not isinstance(value, Message | str | bytes | int | float):
            shown[field.name] = [_value(field, item) for item in value]
        else:
            shown[field.name] = _value(field, value)
    return shown


def _value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, common_pb2.Payload):
        return payload(value)
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        return enum_name(field.enum_type.values_by_number[value].name, field.enum_type.name)
    if isinstance(value, bytes) and field.name in _SCHEMAS:
        return json.loads(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def enum_name(name: str, enum: str) -> str:
    """RUN_STATUS_TIMED_OUT of RunStatus → timed_out."""
    prefix = "".join("_" + c if c.isupper() and i else c for i, c in enumerate(enum)).upper() + "_"
    return name.removeprefix(prefix).lower()


def payload(value: common_pb2.Payload) -> Any:
    """The value inside, where it is JSON; else its size and encoding."""
    if not value.data:
        return None
    if value.encoding in ("", "json"):
        try:
            return json.loads(value.data)
        except ValueError:
            pass
    return f"<{len(value.data)} bytes, {value.encoding or 'not JSON'}>"


def one_line_json(value: Any) -> str:
    """Compact JSON text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def clock_time(ms: int) -> str:
    """Local date and time, to the second; "" for zero."""
    return datetime.fromtimestamp(ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if ms else ""


def clean(text: str) -> str:
    """Text of others without control characters: it must not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def short(value: Any, width: int = 60) -> str:
    """JSON text cut to a width."""
    text = one_line_json(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def write(text: str) -> None:
    """A line on stdout, at once: watching commands are read through pipes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def console(pipe_width: int = 120) -> Console:
    """Rich on stdout. NO_COLOR is honoured by rich; a pipe gets plain text of its own width."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else pipe_width)


def rows(output: Format, items: Iterable[Message], columns: Sequence[str], cells: Any) -> None:
    """A list: one JSON object a line, or a table whose cells ``cells(item)`` names."""
    if output is Format.JSON:
        for item in items:
            write(one_line_json(plain(item)))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    lines = [[clean(str(cell)) for cell in cells(item)] for item in items]
    widths = [max(map(len, column)) for column in zip(columns, *lines, strict=True)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        # Only the last column gives way on a narrow terminal: ids must stay whole to be copied.
        last = index == len(columns) - 1
        table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=8 if last else widths[index])
    for line in lines:
        table.add_row(*map(Text, line))
    if table.row_count:
        console(pipe_width=sum(widths) + 3 * len(widths)).print(table)
    else:
        print("none", file=sys.stderr)


def facts(output: Format, message: Message, pairs: Sequence[tuple[str, Any]]) -> None:
    """One thing: a JSON object, or its facts one a line."""
    if output is Format.JSON:
        write(one_line_json(plain(message)))
        return
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        if value not in ("", None, 0, False):
            write(f"{name:<{width}}  {clean(str(value))}")
