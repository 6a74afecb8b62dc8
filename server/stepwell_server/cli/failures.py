"""What a command can end with: exit codes, and one clear line instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc


class Exit(IntEnum):
    """Exit codes; the list in `stepwell --help` is made from these docstrings' order, see app.EPILOG."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    TIMEOUT = 5
    REFUSED = 6
    INTERRUPTED = 130


class Failure(Exception):
    """Ends the command with a line on stderr and an exit code."""

    exit = Exit.FAILED

    def __init__(self, message: str, exit: Exit | None = None) -> None:
        super().__init__(message)
        if exit is not None:
            self.exit = exit


class UsageFailure(Failure):
    """What was typed cannot be right."""

    exit = Exit.USAGE


def from_rpc(error: grpc.RpcError, address: str) -> Failure:
    """The line and the exit code for an error of the server; names its reason and its fields."""
    import grpc
    from stepwell.api_errors import from_rpc_error

    call: Any = error
    told = from_rpc_error(call)
    code = told.code
    if code is grpc.StatusCode.UNAVAILABLE and not told.reason:
        return Failure(
            f"no server answers at {address}; start one with `stepwell dev`, or name it with --address",
            Exit.UNAVAILABLE,
        )
    line = f"{told.message} [{told.reason or code.name}]"
    line += "".join(f"\n  {one.field}: {one.description}" for one in told.violations)
    exits = {
        grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
        grpc.StatusCode.OUT_OF_RANGE: Exit.USAGE,
        grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
        grpc.StatusCode.UNAVAILABLE: Exit.UNAVAILABLE,
        grpc.StatusCode.CANCELLED: Exit.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED: Exit.TIMEOUT,
        grpc.StatusCode.FAILED_PRECONDITION: Exit.REFUSED,
        grpc.StatusCode.ALREADY_EXISTS: Exit.REFUSED,
        grpc.StatusCode.ABORTED: Exit.REFUSED,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Exit.REFUSED,
        grpc.StatusCode.PERMISSION_DENIED: Exit.REFUSED,
        grpc.StatusCode.UNAUTHENTICATED: Exit.REFUSED,
        grpc.StatusCode.UNIMPLEMENTED: Exit.REFUSED,
    }
    return Failure(line, exits.get(code, Exit.FAILED))


@contextmanager
def opening(database: str) -> Generator[None]:
    """Turns what the opening of a database raises into a Failure, without a password. database: its URL."""
    from sqlalchemy.exc import SQLAlchemyError

    from stepwell_server.logs import redacted
    from stepwell_server.model.errors import InvalidError, ServerError

    try:
        yield
    except InvalidError as e:
        raise UsageFailure(f"{e.message} [{e.reason}]") from None
    except ServerError as e:
        raise Failure(f"{e.message} [{e.reason}]", Exit.UNAVAILABLE) from None
    except (OSError, SQLAlchemyError) as e:
        said = (str(e) or type(e).__name__).splitlines()[0]
        raise Failure(f"cannot open {redacted(database)}: {redacted(said)}", Exit.UNAVAILABLE) from None


@contextmanager
def one_line() -> Generator[None]:
    """Turns everything a command can raise into one line on stderr and an exit code."""
    try:
        yield
    except Failure as e:
        print(f"stepwell: {e}", file=sys.stderr)
        raise SystemExit(int(e.exit)) from None
    except KeyboardInterrupt:
        raise SystemExit(int(Exit.INTERRUPTED)) from None
    except BrokenPipeError:  # The reader, `head` for example, has had enough; do not complain at interpreter exit.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(int(Exit.OK)) from None
