"""The form of the log's lines, and that no password comes into them."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from stepwell_server.logs import JsonFormatter, TextFormatter, redacted


def record(message: str, *args: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("stepwell.lane", logging.WARNING, __file__, 1, message, args, more.pop("exc_info", None))
    made.created, made.msecs = 1_795_000_000.25, 250.0
    vars(made).update(more)
    return made


def failed() -> Any:
    try:
        raise ValueError("cannot reach postgresql://ada:hunter2@db/x")
    except ValueError:
        return sys.exc_info()


def test_a_record_is_one_object_with_what_is_known() -> None:
    made = record("two lines\nof %s", "text", run_id="run_1", environment="prod", session="", stray="no")
    (line,) = JsonFormatter().format(made).splitlines()
    assert json.loads(line) == {
        "time": "2026-11-18T11:06:40.250Z",
        "level": "warning",
        "logger": "stepwell.lane",
        "message": "two lines\nof text",
        "environment": "prod",
        "run_id": "run_1",
    }
    shown = JsonFormatter().format(record("it listens", database="postgresql://ada:hunter2@db/x"))
    assert json.loads(shown)["database"] == "postgresql://ada:***@db/x"
    expected = "2026-11-18T11:06:40.250Z WARNING  stepwell.lane: hello  environment=prod"
    assert TextFormatter().format(record("hello", environment="prod")) == expected


def test_an_error_comes_with_its_stack_and_without_its_password() -> None:
    made = record("it failed", exc_info=failed())
    (line,) = JsonFormatter().format(made).splitlines()
    fields = json.loads(line)
    assert fields["error"] == "ValueError: cannot reach postgresql://ada:***@db/x"
    assert fields["stack"].startswith("Traceback")
    for text in (line, TextFormatter().format(made)):
        assert "hunter2" not in text
        assert "ada:***@db" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ada:p@ss/w:rd@db:5432/x", "postgresql://ada:***@db:5432/x"),
        ("redis://:secret@cache/0 is away", "redis://:***@cache/0 is away"),
        (
            "postgresql:///x?user=ada&PASSWORD=secret&sslmode=require",
            "postgresql:///x?user=ada&PASSWORD=***&sslmode=require",
        ),
        ("http://127.0.0.1:9464/metrics", "http://127.0.0.1:9464/metrics"),
        ("from evt_1 to a@b", "from evt_1 to a@b"),
    ],
)
def test_passwords_of_urls_are_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown
