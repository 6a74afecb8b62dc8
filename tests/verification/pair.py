"""Two servers on one Postgres database, one of which stands by, behind one address that leads to whoever serves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.servers import LOOK_S, Process, Server, free_port, until


class Pair(Server):
    """Looks like one server: that which serves. start() starts whoever has ended, as a supervisor does."""

    def __init__(self, database: str, directory: Path, **tuning: int) -> None:
        super().__init__(database, directory, profile="serve")
        self.both: list[Server] = []
        for name in ("first", "second"):
            folder = directory / name
            folder.mkdir()
            server = Server(database, folder, profile="serve").tuned(**tuning)
            server.command.append("--standby")
            self.both.append(server)
        self._proxy = Proxy(free_port(), self.both)
        self.address = f"127.0.0.1:{self._proxy.port}"

    def start(self) -> Self:
        """Starts those that have ended; returns at once, but at first waits until one serves."""
        for server in self.both:
            if not server.running:
                Process.start(server)
        self._proxy.start()
        until(lambda: self._proxy.serving is not None, "one of both serves")
        return self

    @property
    def running(self) -> bool:
        return all(server.running for server in self.both)

    @property
    def serving(self) -> Server:
        """Who took the database last."""
        assert self._proxy.serving is not None, "start it first"
        return self._proxy.serving

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        for server in self.both:
            server.kill()
        self._proxy.stop()


class Proxy:
    """Forwards bytes to the server that began to listen last; a connection stays with the one that it came to."""

    def __init__(self, port: int, servers: list[Server]) -> None:
        self.port = port
        self.serving: Server | None = None
        self._servers = servers
        self._listened = {server.log: 0 for server in servers}
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        if not self._threads:
            self._threads = [threading.Thread(target=work, daemon=True) for work in (self._watch, self._serve)]
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            for server in self._servers:
                times = server.text().count("listens on")
                if times > self._listened[server.log]:
                    self._listened[server.log] = times
                    self.serving = server

    def _serve(self) -> None:
        asyncio.run(self._forward())

    async def _forward(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        async with server:
            while not self._over.is_set():  # noqa: ASYNC110 (set by another thread)
                await asyncio.sleep(0.1)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if self.serving is not None:
                host, _, port = self.serving.address.partition(":")
                there_reader, there_writer = await asyncio.open_connection(host, int(port))
                ends = [_pump(reader, there_writer), _pump(there_reader, writer)]
                await asyncio.wait([asyncio.ensure_future(end) for end in ends], return_when=asyncio.FIRST_COMPLETED)
                there_writer.close()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
