"""Every example of docs/limits.md is an app that a server takes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import stepwell
from stepwell_server.engine import register
from stepwell_server.transport import convert

from tests.support.servers import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "limits.md").read_text(), re.MULTILINE | re.DOTALL)


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_is_an_app_that_a_server_takes(block: str) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec(block, names)
    app: stepwell.App = names["app"]
    functions = convert.function_specs(app.name, "d1", app.specs())
    register.check_functions(app.name, functions)
    assert all(function.flow is not None or function.labels for function in functions)
