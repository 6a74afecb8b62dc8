"""Apps beside a dev server: they start again after a crash or a change, are drained, and never outlive the server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from stepwell_server.cli.apps import AppProcess, watch

APP = """
import os, signal, sys, time
def trace(line):
    with open("trace", "a") as file:
        file.write(line + "\\n")
def leave(*_):
    trace("drained")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
trace(f"began {os.getpid()} {__name__} {os.path.basename(sys.argv[0])}")
if os.path.exists("crash"):
    os.remove("crash")
    sys.exit(3)
while True:
    time.sleep(0.01)
"""


class World:
    """An app's file in a folder of its own, its trace, and what was said to the person at the terminal."""

    def __init__(self, folder: Path) -> None:
        self.app = folder / "app.py"
        self.app.write_text(f"import os\nos.chdir({str(folder)!r})\n" + APP)
        self.trace = folder / "trace"
        self.said: list[str] = []

    def lines(self) -> list[str]:
        return self.trace.read_text().splitlines() if self.trace.exists() else []

    async def until(self, lines: int) -> list[str]:
        """The trace once it has that many lines."""
        async with asyncio.timeout(20):
            while len(self.lines()) < lines:  # noqa: ASYNC110 (another process writes them)
                await asyncio.sleep(0.01)
        return self.lines()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@asynccontextmanager
async def running(world: World) -> AsyncGenerator[AppProcess]:
    process = AppProcess(world.app, {}, world.said.append)
    task = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_app_runs_as_a_script_and_is_drained_at_the_end(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with running(world):
        (began,) = await world.until(1)
    assert began.endswith(" __main__ app.py")
    assert world.lines()[1:] == ["drained"]
    assert not psutil.pid_exists(int(began.split()[1]))


async def test_after_a_crash_it_is_started_again_and_the_crash_is_said(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "crash").touch()
    async with running(world):
        first, second = await world.until(2)
    assert first.split()[1] != second.split()[1]
    assert "ended with code 3; starting it again in 0.5 s" in world.said[0]


async def test_a_change_that_mends_a_crashed_app_is_said(tmp_path: Path) -> None:
    world = World(tmp_path)
    sound = world.app.read_text()
    world.app.write_text("def broken(:\n")
    async with running(world) as process:
        async with asyncio.timeout(20):
            while not world.said:  # noqa: ASYNC110 (another process ends)
                await asyncio.sleep(0.01)
        world.app.write_text(sound)
        process.restart()
        await world.until(1)
    assert "ended with code 1" in world.said[0]
    assert world.said[1].endswith("app.py: starting, a file changed")


async def test_a_change_drains_it_and_starts_it_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with running(world) as process:
        watching = asyncio.create_task(watch([process]))
        await world.until(1)
        await asyncio.sleep(0.5)  # The watcher tells nobody when it is ready.
        (tmp_path / "other.py").write_text("changed = True\n")
        lines = await world.until(3)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert lines[1] == "drained"
    assert lines[2].startswith("began ")


async def test_an_app_leaves_when_the_server_is_killed(tmp_path: Path) -> None:
    world = World(tmp_path)
    keeper = f"""
import asyncio, pathlib
from stepwell_server.cli.apps import AppProcess
asyncio.run(AppProcess(pathlib.Path({str(world.app)!r}), {{}}, print).run())
"""
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", keeper, stdout=asyncio.subprocess.DEVNULL)
    (began,) = await world.until(1)
    server.kill()
    await server.wait()
    assert (await world.until(2))[1] == "drained"
    pid = int(began.split()[1])
    async with asyncio.timeout(20):
        while alive(pid):  # noqa: ASYNC110 (not a child of this process)
            await asyncio.sleep(0.02)
