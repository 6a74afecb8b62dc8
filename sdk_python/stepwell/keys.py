"""Keys of a run's steps: a name's first call is the name itself, later ones are `name:2`, `name:3` (H5)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stepwell.errors import LimitError, UsageError

if TYPE_CHECKING:
    from stepwell.v1.step_pb2 import Limits

KEY_BYTES_DEFAULT = 128
TIMER = "$timer"
"""The name of the loop's own timers."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f#\ud800-\udfff]|^\$|^$")


class Keys:
    """The keys given so far, in one run of the code."""

    __slots__ = ("_counts", "_given", "_key_bytes", "_steps_max")

    def __init__(self, limits: Limits) -> None:
        self._counts: dict[str, int] = {}
        self._given: set[str] = set()
        self._key_bytes = limits.key_bytes or KEY_BYTES_DEFAULT
        self._steps_max = limits.journal_steps

    def __contains__(self, key: str) -> bool:
        return key in self._given

    def give(self, name: str, own: bool = False) -> str:
        """The key of the next call of this name. Raises UsageError or LimitError. own: the name is not a user's."""
        count = self._counts.get(name, 0) + 1
        if count > 1:
            key = f"{name}:{count}"
        else:
            key = name
            if not own and not name.isidentifier():  # most names are, and hold nothing forbidden
                check_name(name)
        while key in self._given:  # a step was named "charge:2" by hand
            count += 1
            key = f"{name}:{count}"
        if len(key) * 4 > self._key_bytes and len(key.encode()) > self._key_bytes:
            raise LimitError(f"step name {name[:40]!r}… makes a key longer than {self._key_bytes} bytes (key_bytes)")
        if self._steps_max and len(self._given) >= self._steps_max:
            raise LimitError(f"step {key} is one more than the {self._steps_max} steps of a run (journal_steps)")
        self._counts[name] = count
        self._given.add(key)
        return key


def check_name(name: str) -> None:
    """Raises UsageError unless the name may stand for a step of a user."""
    if _FORBIDDEN.search(name):
        raise UsageError(f"step name {name!r} is empty, begins with '$', or holds '#' or a control character")
