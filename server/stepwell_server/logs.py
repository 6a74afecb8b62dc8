"""How a server writes its log: one JSON object a line, or lines for a person; never a password, never a payload."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from enum import StrEnum
from typing import TextIO

FIELDS = ("environment", "run_id", "session", "database", "metrics")
"""What a record may name with `extra`."""

_CREDENTIALS = re.compile(r"(://[^:/\s@\"']*):[^\s\"']+@")
_PASSWORD = re.compile(r"(password=)[^&\s\"']+", re.IGNORECASE)


class Form(StrEnum):
    """What a line of the log looks like."""

    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def redacted(text: str) -> str:
    """The text without the passwords of the URLs in it."""
    return _PASSWORD.sub(r"\1***", _CREDENTIALS.sub(r"\1:***@", text))


class JsonFormatter(logging.Formatter):
    """time, level, logger, message; environment, run_id, session where they are known; error with its stack."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        fields: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        fields.update((name, redacted(str(value))) for name in FIELDS if (value := getattr(record, name, "")))
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["error"] = redacted(f"{type(error).__name__}: {error}")
            fields["stack"] = redacted(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """The same for a person."""

    def format(self, record: logging.LogRecord) -> str:
        """A line, and the stack of an error below it."""
        line = f"{_time(record)} {record.levelname:<8} {record.name}: {record.getMessage()}"
        known = [f"{name}={value}" for name in FIELDS if (value := getattr(record, name, ""))]
        line = "  ".join([line, *known])
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redacted(line)


def configure(form: Form, level: Level, stream: TextIO | None = None) -> None:
    """Everything that is logged goes to stderr in this form; of other libraries only what is wrong."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form is Form.JSON else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("stepwell").setLevel(level.upper())


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
