"""Traces over real processes: a run is one span in one trace, through an invoke, a kill -9 and another worker."""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from stepwell import NewEvent
from stepwell.values import RunStatus

from scripts.test_all import go_missing, node_missing
from tests.e2e.conftest import APPS
from tests.support.languages import go_program, typescript_program
from tests.support.servers import Process, Server, ended, environment, until

Spans = list[dict[str, Any]]


def read(path: Path) -> Spans:
    """All spans that were exported."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_trace_goes_through_an_invoke_and_survives_kill_9(database: str, tmp_path: Path) -> None:
    effects, spans_at, go = tmp_path / "effects", tmp_path / "spans", tmp_path / "go"
    effects.touch()
    files = {"EFFECTS": str(effects), "SPANS": str(spans_at), "GO": str(go)}
    with Server(database, tmp_path) as server:
        client = server.client()
        front = server.worker(APPS / "traced.py", "front", APP="front", **files)
        back = server.worker(APPS / "traced.py", "back", APP="back", **files)
        with front, back:
            front.connected(client)
            back.connected(client)
            with TracerProvider().get_tracer("test").start_as_current_span("request") as request:
                run_id = client.start("front/order").run_id
            until(lambda: "\tslow\t" in effects.read_text(), "the child executes its second body")
            back.kill()
            front.kill()
            for worker in (back, front):
                worker.start()
                worker.connected(client)
            until(lambda: effects.read_text().count("\tslow\t") == 2, "another process has begun it again")
            go.touch()
            assert ended(client, run_id).status is RunStatus.COMPLETED
            until(lambda: any(span["name"] == "front/audit" for span in read(spans_at)), "the last run has ended")
            until(lambda: any(span["name"] == "front/order" for span in read(spans_at)), "so has the first")
    spans = read(spans_at)
    ours = request.get_span_context()
    trace = f"{ours.trace_id:032x}"
    by_name = {span["name"]: span for span in spans}
    order, charge, audit = by_name["front/order"], by_name["back/charge"], by_name["front/audit"]
    roots, steps = ("front/order", "back/charge", "front/audit"), ("prepare", "finish", "check", "slow", "audit")
    assert Counter(span["name"] for span in spans if span["name"] != "inner") == dict.fromkeys(roots + steps, 1)
    assert {span["name"] for span in spans if span["trace"] != trace} == {"front/audit", "audit", "inner"}
    assert order["parent"] == f"{ours.span_id:016x}"
    assert charge["parent"] == order["span"]
    assert (audit["parent"], audit["links"]) == ("", [order["span"]])
    for name, parent in (("prepare", order), ("finish", order), ("check", charge), ("slow", charge), ("audit", audit)):
        assert by_name[name]["parent"] == parent["span"], name
        assert parent["start"] <= by_name[name]["start"] + 1_000_000, name
        assert by_name[name]["end"] <= parent["end"], name
    bodies = {by_name[name]["span"] for name in ("prepare", "check", "finish", "audit")}
    assert {span["parent"] for span in spans if span["name"] == "inner"} == bodies
    attributes = by_name["slow"]["attributes"]
    assert attributes == {
        "stepwell.run_id": charge["attributes"]["stepwell.run_id"],
        "stepwell.app": "back",
        "stepwell.function": "charge",
        "stepwell.step": "slow",
        "stepwell.attempt": 1,
    }
    assert order["attributes"]["stepwell.run_id"] == run_id


def test_a_trace_goes_from_python_over_go_to_typescript(tmp_path: Path) -> None:
    if why := [*filter(None, (go_missing(), node_missing()))]:
        assert os.environ.get("CI") != "true", why
        pytest.skip("; ".join(why))
    effects, spans_at = tmp_path / "effects", tmp_path / "spans"
    effects.touch()
    with ExitStack() as stack:
        server = stack.enter_context(Server(f"sqlite:///{tmp_path}/x.db", tmp_path))
        client = server.client()
        files = {"EFFECTS": str(effects), "SPANS": str(spans_at)}
        stack.enter_context(server.worker(APPS / "traced.py", "front", APP="front", **files))
        env = environment(STEPWELL_ADDRESS=server.address, SPANS=str(spans_at))
        programs = {"go": go_program("internal/traced"), "ts": typescript_program("test/e2e/apps/traced")}
        for name, command in programs.items():
            stack.enter_context(Process(command, tmp_path / f"{name}.log", cwd=tmp_path, env=env))
        served = {"front/relay", "middle/pass", "last/ship"}
        until(lambda: served <= {one.id for one in client.functions() if one.workers}, "all functions are served")
        with TracerProvider().get_tracer("test").start_as_current_span("request") as request:
            assert client.invoke("front/relay", timeout=30) == ["quick", "go", "typescript"]
        until(lambda: served <= {span["name"] for span in read(spans_at)}, "all runs are exported")
    by_name = {span["name"]: span for span in read(spans_at)}
    ours = request.get_span_context()
    assert {span["trace"] for name, span in by_name.items() if name != "inner"} == {f"{ours.trace_id:032x}"}
    front, middle, last = (by_name[name] for name in ("front/relay", "middle/pass", "last/ship"))
    assert [one["parent"] for one in (front, middle, last)] == [f"{ours.span_id:016x}", front["span"], middle["span"]]
    for step, run in (("prepare", front), ("reserve", middle), ("ship", last)):
        assert by_name[step]["parent"] == run["span"]
        app, _, function = run["name"].partition("/")
        assert by_name[step]["attributes"] == {
            "stepwell.run_id": run["attributes"]["stepwell.run_id"],
            "stepwell.app": app,
            "stepwell.function": function,
            "stepwell.step": step,
            "stepwell.attempt": 1,
        }
        assert run["attributes"]["stepwell.status"] == "completed"


def test_no_run_has_two_spans_however_its_worker_dies(tmp_path: Path) -> None:
    effects, spans_at = tmp_path / "effects", tmp_path / "spans"
    effects.touch()
    with Server(f"sqlite:///{tmp_path}/x.db", tmp_path) as server:
        client = server.client()
        worker = server.worker(APPS / "traced.py", "front", APP="front", EFFECTS=str(effects), SPANS=str(spans_at))
        with worker:
            worker.connected(client)
            runs: list[str] = []
            for kills in range(1, 4):
                before = len(read(spans_at))
                sent = client.send_many([NewEvent("traced/done", {}) for _ in range(60)])
                until(lambda before=before, more=7 * kills: len(read(spans_at)) > before + more, "some have executed")
                worker.kill()
                worker.start()
                worker.connected(client)
                runs += [run_id for one in sent for run_id in client.get_event(one.event_id).run_ids]
            assert {ended(client, run_id).status for run_id in runs} == {RunStatus.COMPLETED}
            spared = {client.start("front/audit").run_id for _ in range(20)}
            until(lambda: spared <= {run_of(span) for span in roots(read(spans_at))}, "nobody dies: each is exported")
    spans = read(spans_at)
    counts = Counter(run_of(span) for span in roots(spans))
    assert set(counts.values()) == {1}
    traces = {(run_of(span), span["trace"]) for span in spans if run_of(span)}
    assert len(traces) == len(runs) + len(spared)
    assert {run_of(span) for span in spans if span["name"] == "audit"} == {*runs, *spared}


def roots(spans: Spans) -> Spans:
    """The spans of runs."""
    return [span for span in spans if span["name"] == "front/audit"]


def run_of(span: dict[str, Any]) -> str:
    """The run that a span is of; empty for a user's own."""
    return span["attributes"].get("stepwell.run_id", "")
