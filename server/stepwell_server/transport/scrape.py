"""GET /metrics over HTTP, and nothing else: each connection is answered once and closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from stepwell_server.model.errors import StateError

log = logging.getLogger("stepwell.metrics")
_HEAD_BYTES = 8_192
_HEAD_S = 5.0
_ANSWER_S = 10.0
_CONNECTIONS = 16
_PLAIN = "text/plain; charset=utf-8"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}


class Scrape:
    """A small HTTP server. render: the text of the metrics, of the content type given."""

    def __init__(self, render: Callable[[], Awaitable[bytes]], content_type: str) -> None:
        self._render = render
        self._content_type = content_type
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self, host: str, port: int) -> str:
        """Listens; returns the address. Raises StateError if it is in use."""
        bare = host.strip("[]")
        try:
            self._server = await asyncio.start_server(self._serve, bare, port, limit=_HEAD_BYTES)
        except OSError as error:
            raise StateError("PORT_IN_USE", f"cannot serve metrics on {host}:{port}: {error.strerror}") from error
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Listens no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _CONNECTIONS:
                async with asyncio.timeout(_HEAD_S):
                    head = await _head(reader)
                async with asyncio.timeout(_ANSWER_S):
                    writer.write(await self._answer(head))
                    await writer.drain()
        except (TimeoutError, ConnectionError):
            pass  # whoever asked is gone, or does not ask
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, head: bytes | None) -> bytes:
        method, path, *rest = head.split(b"\r\n", 1)[0].split(b" ") if head is not None else (b"", b"")
        if len(rest) != 1 or not rest[0].startswith(b"HTTP/1.") or not path.startswith(b"/"):
            return _response(400, _PLAIN, b"this is not a request of HTTP/1\n")
        if path.partition(b"?")[0] != b"/metrics":
            return _response(404, _PLAIN, b"there is only /metrics\n")
        if method not in (b"GET", b"HEAD"):
            return _response(405, _PLAIN, b"metrics can only be read\n", "Allow: GET, HEAD\r\n")
        try:
            body = await self._render()
        except Exception:
            log.exception("the metrics could not be written")
            return _response(500, _PLAIN, b"the metrics could not be written: see the log\n")
        return _response(200, self._content_type, body, with_body=method == b"GET")


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    """The request's head; None where it is cut or too long."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None


def _response(status: int, content_type: str, body: bytes, more: str = "", *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode() + (body if with_body else b"")
