"""Arrays of parameters in Postgres' binary form, a column at a time.

asyncpg asks two abstract base classes of each element whether it is an array in itself: half of what a run cost the
server. Our columns are flat, often one value throughout, and this writes them so. asyncpg's public methods cannot set
the codec of an array; where the private one is not as we know it, asyncpg's own encoding stays.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from stepwell_server.adapters.sql.postgres_link import Connection

log = logging.getLogger("stepwell.postgres")

_Values = Sequence[Any]
_length = struct.Struct("!i").pack
_NULL = _length(-1)
_TRUE, _FALSE = _length(1) + b"\1", _length(1) + b"\0"


def install(db: Connection) -> None:
    """Has a connection write arrays with the functions here. It reads none any more."""
    try:
        add: Any = db._protocol.get_settings().add_python_codec  # pyright: ignore
        for oid, (name, encode) in ARRAYS.items():
            add(oid, name, "pg_catalog", (), "scalar", encode, _unread, "binary")
    except (AttributeError, TypeError) as error:
        log.debug("arrays are written by asyncpg: %s", error)


def _unread(data: bytes) -> NoReturn:
    raise NotImplementedError("a connection that writes reads no arrays")


def _header(oid: int, count: int) -> bytes:
    """One dimension from 1 on, perhaps with NULLs; an empty array has no dimension."""
    return struct.pack("!iiIii", 1, 1, oid, count, 1) if count else struct.pack("!iiI", 0, 0, oid)


def _column(values: _Values, one: Callable[[Any], bytes]) -> bytes:
    first = values[0] if values else None
    if len(values) > 1 and values[-1] == first and values.count(first) == len(values):
        return one(first) * len(values)
    return b"".join([one(value) for value in values])


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    data = value.encode()
    return _length(len(data)) + data


def _blob(value: bytes | None) -> bytes:
    return _NULL if value is None else _length(len(value)) + value


def _bool(value: bool | None) -> bytes:
    return _NULL if value is None else _TRUE if value else _FALSE


def _bigint(value: int | None) -> bytes:
    return _NULL if value is None else struct.pack("!iq", 8, value)


@lru_cache(256)
def _numbers(code: str, count: int) -> struct.Struct:
    return struct.Struct("!" + f"i{code}" * count)


def texts(values: _Values) -> bytes:
    """text[]"""
    return _header(25, len(values)) + _column(values, _text)


def blobs(values: _Values) -> bytes:
    """bytea[]"""
    return _header(17, len(values)) + _column(values, _blob)


def bools(values: _Values) -> bytes:
    """boolean[]"""
    return _header(16, len(values)) + _column(values, _bool)


def bigints(values: _Values) -> bytes:
    """bigint[]"""
    count = len(values)
    if None in values:
        return _header(20, count) + _column(values, _bigint)
    return _header(20, count) + _packed("q", 8, values)


def ints(values: _Values) -> bytes:
    """int[], of ordinals: never NULL."""
    return _header(23, len(values)) + _packed("i", 4, values)


def _packed(code: str, size: int, values: _Values) -> bytes:
    count = len(values)
    flat = [size] * (2 * count)
    flat[1::2] = values
    return _numbers(code, count).pack(*flat)


ARRAYS: dict[int, tuple[str, Callable[[_Values], bytes]]] = {
    1000: ("_bool", bools),
    1001: ("_bytea", blobs),
    1007: ("_int4", ints),
    1009: ("_text", texts),
    1016: ("_int8", bigints),
}
"""By the type's oid, which is the same in every Postgres."""
