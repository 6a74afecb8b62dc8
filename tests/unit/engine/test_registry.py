"""The registry in memory: what was read later does not take back what is newer (H17, H22)."""

from __future__ import annotations

from stepwell_server.engine import register
from stepwell_server.engine.node import Environment
from stepwell_server.model.function import DeploymentRow, FunctionSpec, Registry, ShapeRow, Trigger

ENV = "dev"


def deployment(id_: str, *names: str) -> DeploymentRow:
    functions = [FunctionSpec(f"shop/{name}", "shop", name, (Trigger("order/placed"),)) for name in names]
    return DeploymentRow(ENV, "shop", id_, 1, register.pack(functions))


def shape(path: str) -> ShapeRow:
    return ShapeRow(ENV, "order/paid", path)


def test_a_shape_whose_wait_is_on_its_way_survives_a_read_that_does_not_know_it() -> None:
    env = Environment(ENV)
    register.apply(env, Registry(ENV, 1, (deployment("one", "f"),), (shape("data.id"),)))
    env.shapes["order/paid"] |= {"data.user"}
    register.apply(env, Registry(ENV, 2, (deployment("two", "f"),), (shape("data.id"),)))
    assert env.shapes == {"order/paid": frozenset({"data.id", "data.user"})}
    assert env.kept_shapes == {("order/paid", "data.id")}, "the next wait of that path writes the shape again"


def test_an_older_read_does_not_take_back_a_newer_registration() -> None:
    env = Environment(ENV)
    old, new = deployment("one", "f"), deployment("two", "f", "g")
    register.apply(env, Registry(ENV, 2, (old, new), ()))
    register.apply(env, Registry(ENV, 1, (old,), ()))
    assert (env.version, env.current) == (2, {"shop": "two"})
    assert set(env.triggers.known) == {"shop/f", "shop/g"}
