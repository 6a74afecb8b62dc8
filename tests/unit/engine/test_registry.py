"""What a node knows of the registry when its reads and the waits of its workers cross."""

from __future__ import annotations

from typing import Any

import orjson
from stepwell_server.engine import register
from stepwell_server.engine.node import Environment
from stepwell_server.model.function import DeploymentRow, Registry, ShapeRow

ENV = "prod"
FUNCTION: dict[str, Any] = {
    "name": "f", "triggers": [{"event": "go", "if": ""}], "retry": [1, 1, 1.0, 1, False], "input": "", "output": "",
    "strict": False,
}  # fmt: skip


def registry(version: int, *apps: str, shapes: tuple[ShapeRow, ...] = ()) -> Registry:
    spec = orjson.dumps([FUNCTION])
    rows = tuple(DeploymentRow(ENV, app, "one", n, spec) for n, app in enumerate(apps))
    return Registry(ENV, version, rows, shapes)


def known(env: Environment) -> set[str]:
    return set(env.triggers.known)


def test_h22_a_read_that_a_newer_one_has_overtaken_takes_no_function_away() -> None:
    env = Environment(ENV)
    register.apply(env, registry(2, "a", "b"))
    register.apply(env, registry(1, "a"))
    assert known(env) == {"a/f", "b/f"}
    assert env.version == 2


def test_h17_a_read_from_before_a_wait_does_not_make_its_shape_unknown() -> None:
    env = Environment(ENV)
    register.apply(env, registry(1))
    env.shapes["go"] = frozenset({"data.u"})  # as engine/begin.py does, while its commit is on its way
    register.apply(env, registry(1))
    assert env.shapes == {"go": frozenset({"data.u"})}
    assert env.kept == set()
    register.apply(env, registry(2, shapes=(ShapeRow(ENV, "go", "data.u"), ShapeRow(ENV, "go", ""))))
    assert env.shapes == {"go": frozenset({"data.u", ""})}
    assert env.kept == {("go", "data.u"), ("go", "")}
