"""A worker process: serves an app's functions until it is told to stop, then drains."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Unpack

import stepwell
from stepwell import connection
from stepwell.deployment import deployment_id
from stepwell.errors import LimitError
from stepwell.frames import Introduction
from stepwell.host import Host
from stepwell.logs import log
from stepwell.session import Session
from stepwell.settings import WorkerOptions, WorkerSettings
from stepwell.v1 import step_pb2

if TYPE_CHECKING:
    from stepwell.function import App

REGISTRATION_BYTES = 4_000_000
"""What Hello may hold in all is a little more."""
LEAVE_S = 2.0
UNWIND_S = 1.0
SWITCH_INTERVAL_S = 0.002
GC_THRESHOLD = 50_000


class Worker:
    """One session with a server. `run` serves, `stop` drains, `halt` leaves at once; all on the worker's loop."""

    def __init__(self, app: App, settings: WorkerSettings) -> None:
        self._app = app
        self._settings = settings
        self._stop = asyncio.Event()
        self._halt = asyncio.Event()
        self._idle = asyncio.Event()
        specs = app.specs()
        size = sum(spec.ByteSize() for spec in specs)
        if size > REGISTRATION_BYTES:
            raise LimitError(f"app {app.name} registers {size} bytes, more than {REGISTRATION_BYTES}: split the app")
        self._introduction = Introduction(
            environment=settings.environment,
            app=app.name,
            deployment=settings.deployment or app.deployment or deployment_id(specs, _modules(app)),
            instance=settings.instance,
            sdk_version=stepwell.__version__,
            functions=specs,
            labels=settings.labels,
        )

    async def run(self) -> None:
        """Serves until `stop`, then drains. Raises ApiError if the server refuses the registration.

        A cancellation stops the bodies and leaves at once.
        """
        settings, io = self._settings, connection.io()
        host = Host(
            self._app,
            asyncio.get_running_loop(),
            threads=settings.threads,
            max_parked=settings.max_parked,
            idle=self._idle.set,
        )
        session = Session(io, settings.address, self._introduction, settings.capacity, host.listing, host.mailbox)
        log.info(
            "%s: %d functions, deployment %s", self._app.name, len(self._app.functions), self._introduction.deployment
        )
        serving = asyncio.ensure_future(io.run(session.run()))
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await self._drain(host, session, serving)
        finally:
            stop.cancel()
            host.evict_all()
            await self._leave(host, serving)
        if serving.done() and not serving.cancelled():
            serving.result()

    def stop(self) -> None:
        """Takes no new work, lets executing bodies finish for up to `drain_s`, gives everything back, and leaves."""
        self._stop.set()

    def halt(self) -> None:
        """Leaves at once: executing bodies are interrupted."""
        self._halt.set()
        self._stop.set()

    async def _drain(self, host: Host, session: Session, serving: asyncio.Future[None]) -> None:
        log.info("draining: %d runs here, %d bodies execute", len(host.residents), host.bodies.executing)
        session.capacity = 0
        host.send(step_pb2.ConnectRequest(capacity=step_pb2.Capacity(capacity=0)))
        host.drain()
        idle, halt = asyncio.ensure_future(self._idle.wait()), asyncio.ensure_future(self._halt.wait())
        try:
            await asyncio.wait(
                (idle, halt, serving), timeout=self._settings.drain_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            idle.cancel()
            halt.cancel()
        if not self._idle.is_set():
            log.warning(
                "leaving while %d bodies execute: they are interrupted and will run again", host.bodies.executing
            )

    async def _leave(self, host: Host, serving: asyncio.Future[None]) -> None:
        """After interrupted bodies have had a moment to end, so that none runs beside its repetition."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (0 if self._halt.is_set() else UNWIND_S)
        while host.bodies.executing and loop.time() < until:  # noqa: ASYNC110  # a rare and bounded wait
            await asyncio.sleep(0.01)
        host.bodies.close()
        if host.connected:
            host.send(step_pb2.ConnectRequest(goodbye=step_pb2.Goodbye(reason="the worker stops")))
            await asyncio.wait((serving,), timeout=LEAVE_S)
        if not serving.done():
            serving.cancel()
            await asyncio.wait((serving,))


async def serve(app: App, address: str | None = None, **options: Unpack[WorkerOptions]) -> None:
    """Serves an app's functions on the running loop until cancelled. Signals are the caller's."""
    await Worker(app, WorkerSettings.resolve(address, **options)).run()


def run(app: App, address: str | None = None, **options: Unpack[WorkerOptions]) -> None:
    """Serves an app's functions until SIGTERM or SIGINT, then drains; a second signal leaves at once. Blocks.

    Raises ApiError if the server refuses the registration: trying again would not help.
    """
    settings = WorkerSettings.resolve(address, **options)

    async def main() -> None:
        worker = Worker(app, settings)
        with _on_signals(lambda: worker.halt() if worker._stop.is_set() else worker.stop()):
            await worker.run()

    with _tuned(), asyncio.Runner(loop_factory=connection.new_event_loop) as runner:
        runner.run(main())


@contextlib.contextmanager
def _on_signals(react: Callable[[], Any]) -> Generator[None]:
    loop = asyncio.get_running_loop()
    caught: list[signal.Signals] = []
    for one in (signal.SIGTERM, signal.SIGINT):
        # Not in the main thread, or not on this platform: then signals keep their default meaning.
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(one, react)
            caught.append(one)
    try:
        yield
    finally:
        for one in caught:
            loop.remove_signal_handler(one)


@contextlib.contextmanager
def _tuned() -> Generator[None]:
    """Settings of the interpreter that suit a worker: a short turn for the I/O thread, and rare collections."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *threshold[1:])
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()
        sys.setswitchinterval(interval)


def _modules(app: App) -> list[str]:
    return [function.fn.__module__ for function in app.functions.values()]
