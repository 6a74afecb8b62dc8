"""The example in three languages, built and served as its reader would."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from examples.polyglot import build
from tests.support.servers import Process, Server, ended, environment, until


def test_an_order_goes_over_three_languages_and_an_error_comes_back(tmp_path: Path) -> None:
    if why := build.missing():
        assert os.environ.get("CI") != "true", why
        pytest.skip("; ".join(why))
    with ExitStack() as stack:
        server = stack.enter_context(Server(f"sqlite:///{tmp_path}/stepwell.db", tmp_path))
        client = server.client()
        env = environment(STEPWELL_ADDRESS=server.address)
        for name, command in build.build(tmp_path).items():
            stack.enter_context(Process(command, tmp_path / f"{name}.log", cwd=tmp_path, env=env))
        served = {"orders/place", "stock/reserve", "shipping/quote", "shipping/ship"}
        until(lambda: served <= {one.id for one in client.functions() if one.workers}, "all functions are served")
        outputs: list[str] = []
        for pieces in (2, 6, 11):
            event_id = client.send("order/placed", {"order": pieces, "item": "lamp", "pieces": pieces})
            (run_id,) = until(lambda id=event_id: client.get_event(id).run_ids, "the order is placed")
            outputs.append(ended(client, run_id).output)
    assert outputs == [
        "3200 cents, sent with a bicycle as bicycle-2-32",
        "9600 cents, sent with a lorry as lorry-6-32",
        "declined: there are no 11 of lamp",
    ]
