"""The errors of the server: a few codes, mapped once at the edge.

ServerError
├── InvalidError        the request can never be right        INVALID_ARGUMENT
├── NotFoundError       the thing named does not exist        NOT_FOUND
├── ExistsError         an id was used for something else     ALREADY_EXISTS
├── StateError          right in another state                FAILED_PRECONDITION
├── FencedError         somebody else holds it now            ABORTED
├── ExhaustedError      a limit is reached; later it may work RESOURCE_EXHAUSTED
└── UnavailableError    the store cannot be reached now       UNAVAILABLE
    └── CorruptError    the store is damaged or foreign       DATA_LOSS
"""

from __future__ import annotations


class ServerError(Exception):
    """An operating error with a reason a program can read.

    reason: UPPER_SNAKE. message: a sentence for a person. fields: (field path, what is wrong) pairs.
    retry_ms: try again after this long.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        fields: tuple[tuple[str, str], ...] = (),
        retry_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.fields = fields
        self.retry_ms = retry_ms


class InvalidError(ServerError):
    """The request can never be right."""


class NotFoundError(ServerError):
    """The thing named does not exist."""


class ExistsError(ServerError):
    """An id was used for something else before."""


class StateError(ServerError):
    """The request would be right in another state."""


class FencedError(ServerError):
    """Somebody else holds it now."""


class ExhaustedError(ServerError):
    """A limit is reached; later it may work."""


class UnavailableError(ServerError):
    """The store cannot be reached now, or refuses for a reason that may pass (full disk, restart)."""


class CorruptError(UnavailableError):
    """The store is damaged, or was not made by Stepwell, or by a newer one."""
