"""A worker as a process of its own: signals, exit codes, the deployment's id."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import grpc
import pytest

from tests.unit.sdk_worker.fake_server import FakeServer, fake_server

SOURCE = """
import time
from stepwell import App, Step

app = App("test")

def body() -> str:
    print("began", flush=True)
    time.sleep({seconds})
    return "done"

@app.function
async def works(step: Step) -> str:
    return await step.run(body)

if __name__ == "__main__":
    app.run(drain_s={drain_s})
"""


async def process(server: FakeServer, folder: Path, *, seconds: float = 0.2, drain_s: float = 10.0) -> Process:
    path = folder / "app.py"
    path.write_text(SOURCE.format(seconds=seconds, drain_s=drain_s))
    environment = {"STEPWELL_ADDRESS": f"127.0.0.1:{server.port}", "STEPWELL_ENVIRONMENT": "staging"}
    return await asyncio.create_subprocess_exec(sys.executable, str(path), env=environment, stdout=PIPE, stderr=PIPE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_the_process_and_it_exits_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    async with fake_server() as server:
        running = await process(server, tmp_path)
        link = await server.link()
        assert link.hello[0].environment == "staging"
        assert len(link.hello[0].deployment) == 16
        link.assign("run_1", "works")
        assert running.stdout is not None
        await running.stdout.readline()
        running.send_signal(number)
        assert (await server.frame("capacity")).capacity.capacity == 0
        assert (await server.command("results")).output.data == b'"done"'
        await server.frame("goodbye")
        assert await running.wait() == 0


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with fake_server() as server:
        running = await process(server, tmp_path, seconds=60)
        (await server.link()).assign("run_1", "works")
        assert running.stdout is not None
        await running.stdout.readline()
        running.terminate()
        await server.frame("capacity")
        running.terminate()
        await server.frame("goodbye")
        async with asyncio.timeout(5):
            assert await running.wait() == 0


async def test_a_refused_registration_exits_with_an_error_that_says_why(tmp_path: Path) -> None:
    async with fake_server() as server:
        server.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "BAD_CONDITION")
        running = await process(server, tmp_path)
        _, errors = await running.communicate()
        assert running.returncode == 1
        assert b"BAD_CONDITION: refused by the test" in errors


async def test_the_same_sources_are_the_same_deployment_and_changed_ones_another(tmp_path: Path) -> None:
    deployments: list[str] = []
    async with fake_server() as server:
        for seconds in (1, 1, 2):
            running = await process(server, tmp_path, seconds=seconds)
            deployments.append((await server.link()).hello[0].deployment)
            running.terminate()
            await running.wait()
    assert deployments[0] == deployments[1] != deployments[2]
