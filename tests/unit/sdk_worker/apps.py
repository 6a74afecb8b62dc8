"""Apps of these tests, and a worker that serves one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stepwell import App, Step
from stepwell.settings import WorkerSettings
from stepwell.worker import Worker

from tests.unit.sdk_worker.fake_server import FakeServer


@asynccontextmanager
async def working(server: FakeServer, app: App, **options: Any) -> AsyncIterator[Worker]:
    """A worker that serves the app while the block runs."""
    settings = WorkerSettings.resolve(f"127.0.0.1:{server.port}", **{"deployment": "d1", "drain_s": 0.5, **options})
    worker = Worker(app, settings)
    running = asyncio.ensure_future(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait((running,), timeout=10)
        assert running.done()


async def double(number: int) -> int:
    return 2 * number


def three_steps() -> App:
    app = App("test")

    @app.function
    async def three(step: Step) -> int:
        one = await step.run(double, 1)
        two = await step.run(double, one)
        return await step.run(double, two)

    return app


def app_of(function: Any) -> App:
    app = App("test")
    app.function(function)
    return app
