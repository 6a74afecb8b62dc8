"""A server in this process from start to stop: its banner, its apps, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from stepwell_server.cli.apps import AppProcess, Say, watch
from stepwell_server.cli.failures import Exit, Failure, UsageFailure, opening
from stepwell_server.cli.options import DEFAULT_ADDRESS
from stepwell_server.logs import Form, Level, configure, redacted
from stepwell_server.main import Server
from stepwell_server.settings import Settings, from_environment

log = logging.getLogger("stepwell.server")
FIRST_FUNCTION_S = 20.0
TAKEN_OVER = "another server has taken over the database"
TAKEN_FOR_DEAD = "this node was silent for longer than its lease: the other nodes have taken its work over"


def host(
    profile: str,
    database: str,
    listen: str,
    apps: tuple[Path, ...],
    *,
    reload: bool,
    environment: str = "",
    standby: bool = False,
    redis: str = "",
    metrics: str = "",
    form: Form | None = None,
    level: Level | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM. Raises Failure if the address or the database is taken, or was lost.

    form: of the log; else lines for a person under dev and on a terminal, and JSON elsewhere.
    """
    _parse(listen)
    if metrics.isdecimal():
        metrics = f"127.0.0.1:{metrics}"
    if metrics:
        _parse(metrics, "--metrics")
    settings = from_environment(
        profile=profile,
        database=database,
        listen=listen,
        environment=environment or profile_environment(profile),
        wait_for_lease=standby,
        metrics=metrics,
        redis=redis or None,
    )
    dev = profile == "dev"
    form = form or (Form.TEXT if dev or sys.stderr.isatty() else Form.JSON)
    configure(form, level or (Level.WARNING if dev else Level.INFO))
    try:
        _serve(settings, apps, reload=reload, structured=form is Form.JSON)
    except Failure as failure:
        if form is Form.TEXT:
            raise
        log.critical("%s", failure)
        raise SystemExit(int(failure.exit)) from None


def _serve(settings: Settings, apps: tuple[Path, ...], *, reload: bool, structured: bool) -> None:
    """Until it is told to stop. structured: nothing but lines of the log goes to stderr."""
    try:
        with opening(settings.database):
            lost = uvloop.run(_host(settings, apps, log.info if structured else say, reload=reload))
    except KeyboardInterrupt:
        return
    if lost:
        raise Failure(TAKEN_FOR_DEAD if settings.redis else TAKEN_OVER, Exit.UNAVAILABLE)


def profile_environment(profile: str) -> str:
    """The environment that an empty name means."""
    return "dev" if profile == "dev" else "default"


async def _host(settings: Settings, apps: tuple[Path, ...], tell: Say, *, reload: bool) -> bool:
    """True if the lease on the database was lost. The apps are drained before the server stops."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = await _start(settings, stop)
    if server is None:
        return False
    helpers: list[asyncio.Task[Any]] = []
    try:
        if tell is say:
            say(banner(settings.profile, settings.database, server.address, server.metrics_address))
        else:
            known = {"database": settings.database, "metrics": server.metrics_address}
            log.info("Stepwell %s listens on %s", settings.profile, server.address, extra=known)
        if not is_loopback(server.address):
            log.warning("whoever reaches %s may use it, there is no sign-in yet: keep it private", server.address)
        address = reachable(server.address)
        processes = [AppProcess(app, {"STEPWELL_ADDRESS": address}, tell) for app in apps]
        helpers += [loop.create_task(process.run()) for process in processes]
        if processes:
            helpers.append(loop.create_task(_show_functions(address, tell)))
        if processes and reload:
            helpers.append(loop.create_task(watch(processes)))
        ends = [loop.create_task(stop.wait()), loop.create_task(server.lost.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return server.lost.is_set()
    finally:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        await server.stop()


async def _start(settings: Settings, stop: asyncio.Event) -> Server | None:
    """A server that serves; None if it was to stop before it did (a standby may wait for long)."""
    server = Server(settings)
    starting, stopping = asyncio.ensure_future(server.start()), asyncio.ensure_future(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return None
    await starting
    return server


def _parse(listen: str, option: str = "--listen") -> tuple[str, int]:
    host_name, _, port = listen.rpartition(":")
    bare = (host_name.startswith("[") and host_name.endswith("]")) or ":" not in host_name
    if not host_name or not bare or not port.isdecimal() or int(port) > 65_535:
        raise UsageFailure(f"{option} {listen!r}: expected HOST:PORT, for example 127.0.0.1:7777 or [::1]:7777")
    return host_name, int(port)


def reachable(listen: str) -> str:
    """The address that a process on this machine connects to."""
    host_name, port = _parse(listen)
    return f"127.0.0.1:{port}" if host_name in ("0.0.0.0", "[::]") else listen


def is_loopback(listen: str) -> bool:
    """Whether only processes of this machine reach it."""
    host_name = _parse(listen)[0].strip("[]")
    return host_name == "localhost" or host_name == "::1" or host_name.startswith("127.")


def banner(profile: str, database: str, listen: str, metrics: str = "") -> str:
    """What a newcomer needs to know once the server listens."""
    address = reachable(listen)
    flag = "" if address == DEFAULT_ADDRESS else f" --address {address}"
    kept = "in memory, gone at the end" if database.startswith("memory") else redacted(database)
    lines = [f"Stepwell {profile} listens on {listen}", f"  database   {kept}"]
    if metrics:
        lines.append(f"  metrics    http://{reachable(metrics)}/metrics")
    if profile == "dev":
        lines += [
            f"  worker     STEPWELL_ADDRESS={address} python app.py",
            f"  an event   stepwell events send user/signed.up -d '{{\"user_id\": 7}}'{flag}",
            f"  the runs   stepwell runs list{flag}",
            "  no sign-in: whoever reaches this address may use it",
        ]
    return "\n".join(lines)


def say(line: str) -> None:
    """A line for the person at the terminal."""
    print(line, file=sys.stderr, flush=True)


async def _show_functions(address: str, tell: Say) -> None:
    """Names the functions once the first app has registered them."""
    from stepwell.v1 import function_pb2, function_pb2_grpc

    loop = asyncio.get_running_loop()
    end = loop.time() + FIRST_FUNCTION_S
    async with grpc.aio.insecure_channel(address) as channel:
        stub = function_pb2_grpc.FunctionServiceStub(channel)
        while loop.time() < end:
            with contextlib.suppress(grpc.aio.AioRpcError):
                found = (await stub.ListFunctions(function_pb2.ListFunctionsRequest(), timeout=5)).functions
                if any(function.workers for function in found):
                    for function in found:
                        on = ", ".join(trigger.event for trigger in function.spec.triggers) or "invoke only"
                        tell(f"  function   {function.id}  ← {on}")
                    return
            await asyncio.sleep(0.2)
    tell(f"no app has registered a function within {FIRST_FUNCTION_S:g} s; does it end with app.run()?")
