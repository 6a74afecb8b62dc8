"""Ids: text, ordered by time; ids of runs are derived so that a repeated start finds the first one (H21)."""

from __future__ import annotations

from hashlib import blake2b

EVENT_PREFIX = "evt_"
RUN_PREFIX = "run_"


def time_part(now_ms: int) -> str:
    """Twelve hex digits of Unix milliseconds."""
    return f"{now_ms:012x}"


def event_id(now_ms: int, tail: int) -> str:
    """An event's id. tail: 80 bits; greater ones come later within a millisecond (H18)."""
    return f"evt_{now_ms:012x}{tail:020x}"


def session_id(now_ms: int, entropy: bytes) -> str:
    """A session's id. entropy: 10 random bytes."""
    return f"ses_{now_ms:012x}{entropy.hex()}"


def run_id_for_event(env: str, event: str, function_id: str) -> str:
    """The run of a function that an event starts; it carries the event's time."""
    digest = blake2b(f"{env}\0{event}\0{function_id}".encode(), digest_size=10).hexdigest()
    return f"run_{event[4:16]}{digest}"


def run_id_for_child(env: str, parent_run: str, key: str) -> str:
    """The run that a step invokes; it carries its parent's time."""
    digest = blake2b(f"{env}\0{parent_run}\0{key}".encode(), digest_size=10).hexdigest()
    return f"run_{parent_run[4:16]}{digest}"


def run_id_for_request(now_ms: int, entropy: bytes) -> str:
    """The run of an Invoke. entropy: 10 random bytes; a repeated request id is recognised by the dedup table."""
    return f"run_{now_ms:012x}{entropy.hex()}"


def time_of(id_: str) -> int:
    """Unix milliseconds in an id."""
    return int(id_[4:16], 16)
