"""The apps beside a dev server: one process each, started again when it crashes and when its files change."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 10.0
STEADY_S = 10.0
DRAIN_S = 15.0

Say = Callable[[str], None]


def backoff_s(crashes: int) -> float:
    """The pause before the next start after this many crashes in a row."""
    return min(BACKOFF_FIRST_S * 2 ** min(max(crashes - 1, 0), 30), BACKOFF_MOST_S)


class AppProcess:
    """Keeps one app running until it is stopped."""

    def __init__(self, path: Path, env: Mapping[str, str], say: Say) -> None:
        self.path = path
        inherited = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
        self._env = {**inherited, **env}
        self._say = say
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    def restart(self) -> None:
        """Drain the process and start it anew: its files have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled; the process is drained then."""
        crashes = 0
        mended = False
        try:
            while True:
                self._changed.clear()
                if mended:
                    self._say(f"{self.path}: starting, a file changed")
                began = asyncio.get_running_loop().time()
                process = await self._started()
                changed = asyncio.ensure_future(self._changed.wait())
                ended = asyncio.ensure_future(process.wait())
                try:
                    await asyncio.wait({changed, ended}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                if self._changed.is_set():
                    await self._drain(process)
                    crashes = 0
                    mended = False
                    self._say(f"{self.path}: restarting, a file changed")
                    continue
                steady = asyncio.get_running_loop().time() - began >= STEADY_S
                crashes = 1 if steady else crashes + 1
                mended = await self._pause(process.returncode or 0, crashes)
        finally:
            if self._process is not None:
                await self._drain(self._process)

    async def _started(self) -> asyncio.subprocess.Process:
        """Cancelled meanwhile, it still knows the process that it has begun, to drain it."""
        starting = asyncio.ensure_future(self._start())
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._process = await starting
            raise
        self._process = process
        return process

    async def _start(self) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "stepwell_server.cli.child", str(self.path))
        # A session of its own: Ctrl-C reaches this process only, which then drains the app in order.
        return await asyncio.create_subprocess_exec(
            *command, env=self._env, stdin=asyncio.subprocess.PIPE, start_new_session=True
        )

    async def _pause(self, code: int, crashes: int) -> bool:
        """Whether it was cut short, because a file changed."""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        pause_s = backoff_s(crashes)
        self._say(f"{self.path} {how}; starting it again in {pause_s:g} s, or when a file changes")
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self._changed.wait(), pause_s)
        return False

    async def _drain(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), DRAIN_S)
        except TimeoutError:
            self._say(f"{self.path} did not leave within {DRAIN_S:g} s and is killed; its runs go on after the restart")
            process.kill()
            await process.wait()


async def watch(apps: list[AppProcess]) -> None:
    """Restarts apps as Python files in their folders change, until cancelled."""
    from watchfiles import PythonFilter, awatch

    folders = {app: app.path.absolute().parent for app in apps}
    async for changes in awatch(*set(folders.values()), watch_filter=PythonFilter()):
        for app, folder in folders.items():
            if any(Path(name).is_relative_to(folder) for _, name in changes):
                app.restart()
