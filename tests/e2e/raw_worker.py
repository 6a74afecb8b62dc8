"""A worker written by hand on the generated stubs: it sends any frame, right or wrong, and keeps what comes back."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stepwell.v1 import function_pb2, step_pb2, step_pb2_grpc

WAIT_S = 15.0


class Told(NamedTuple):
    """How a call ended: code, ErrorInfo.reason, text, the fields named, and RetryInfo's delay."""

    code: str
    reason: str
    message: str
    fields: tuple[str, ...]
    retry_ms: int = 0


def told(error: Any) -> Told:
    """What an RpcError says."""
    reason, fields, retry_ms = "", list[str](), 0
    status = rpc_status.from_call(error)
    for packed in status.details if status is not None else ():
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(bad):
            fields += [one.field for one in bad.field_violations]
        elif packed.Unpack(retry):
            retry_ms = retry.retry_delay.ToMilliseconds()
    return Told(error.code().name, reason, error.details() or "", tuple(fields), retry_ms)


class RawWorker:
    """One stream. `hello` opens the session; the rest is the test's."""

    def __init__(self, address: str, app: str = "raw", **hello: Any) -> None:
        self.app = app
        self._given: dict[str, Any] = {
            "app": app,
            "deployment": "d1",
            "instance": f"{app}-by-hand",
            "sdk": "hand",
            "capacity": 10,
            "functions": [function_pb2.FunctionSpec(name="f")],
            **hello,
        }
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)])
        self._out: queue.Queue[step_pb2.ConnectRequest | None] = queue.Queue()
        self._in: queue.Queue[step_pb2.ConnectResponse | Told] = queue.Queue()
        self._call: Any = step_pb2_grpc.StepServiceStub(self._channel).Connect(iter(self._out.get, None))
        self.frames_read = 0
        self.welcome = step_pb2.Welcome()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cuts the stream off, without a Goodbye."""
        self._call.cancel()
        self._out.put(None)
        self._channel.close()

    def _read(self) -> None:
        try:
            for frame in self._call:
                self._in.put(frame)
            self._in.put(Told("OK", "", "", ()))
        except grpc.RpcError as error:
            self._in.put(told(error))
        except ValueError:  # the channel was closed
            self._in.put(Told("CANCELLED", "", "", ()))

    def send(self, **frame: Any) -> None:
        """Sends one frame."""
        self._out.put(step_pb2.ConnectRequest(**frame))

    def hello(self, **given: Any) -> step_pb2.Welcome:
        """Sends Hello and returns the Welcome."""
        self.send(hello=step_pb2.Hello(**{**self._given, **given}))
        frame = self._next()
        assert isinstance(frame, step_pb2.ConnectResponse), frame
        self.welcome = frame.welcome
        return self.welcome

    def refused_hello(self, **given: Any) -> Told:
        """Sends a Hello that is refused."""
        self.send(hello=step_pb2.Hello(**{**self._given, **given}))
        return self.ended()

    def commands(self, *, epoch: int | None = None, **lists: Any) -> None:
        """Sends one frame of commands in the session's epoch, or another."""
        self.send(commands=step_pb2.Commands(epoch=self.welcome.epoch if epoch is None else epoch, **lists))

    def work(self, wanted: str, fits: Callable[[Any], bool] = lambda _: True) -> Any:
        """The first item of a kind ("assigns", "acks", "refused" …) that fits, of the frames that come."""
        while True:
            frame = self._next()
            assert isinstance(frame, step_pb2.ConnectResponse), f"the stream ended: {frame}"
            for item in getattr(frame.work, wanted):
                if fits(item):
                    return item

    def frame(self) -> step_pb2.ConnectResponse:
        """The next frame that holds something."""
        while True:
            frame = self._next()
            assert isinstance(frame, step_pb2.ConnectResponse), f"the stream ended: {frame}"
            if frame.work.ByteSize():
                return frame

    def ended(self) -> Told:
        """How the stream ended; what came before is passed over."""
        while True:
            frame = self._next()
            if isinstance(frame, Told):
                return frame

    def _next(self) -> step_pb2.ConnectResponse | Told:
        frame = self._in.get(timeout=WAIT_S)
        self.frames_read += isinstance(frame, step_pb2.ConnectResponse)
        return frame
