"""StepService: the worker's stream. Reads frames, hands their commands to the engine, ends with a typed status."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from stepwell.v1 import step_pb2, step_pb2_grpc

from stepwell_server.engine import begin, conclude, dispatch, register, sessions
from stepwell_server.engine.advance import Frame
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.residents import Session
from stepwell_server.model.errors import FencedError, InvalidError, ServerError, StateError
from stepwell_server.model.limits import LIMITS
from stepwell_server.transport import convert, status
from stepwell_server.transport.door import unreadable
from stepwell_server.transport.scope import Scope
from stepwell_server.transport.worker_link import WorkerLink

log = logging.getLogger("stepwell.transport")
_EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009 (the stubs do not know it)
_HELLO_S = 10.0
_HELLO_FRAMES = 1_000


async def _read(context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    """The worker's next frame. Raises InvalidError where its bytes are none."""
    try:
        return await context.read()
    except DecodeError as error:
        raise unreadable(error) from error


class StepService(step_pb2_grpc.StepServiceServicer):
    """One call of Connect is one worker's stream."""

    def __init__(self, node: Node, scope: Scope) -> None:
        self._node = node
        self._scope = scope

    async def Connect(self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """See the proto."""
        link = WorkerLink()
        try:
            await self._serve(context, link)
        except ServerError as error:
            await status.abort(context, error)
        except asyncio.CancelledError:
            if link.closed is None:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            await status.abort(context, FencedError(*link.closed))
        except Exception:
            log.exception("the stream of a worker failed")
            await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log has it")

    async def _serve(self, context: grpc.aio.ServicerContext[Any, Any], link: WorkerLink) -> None:
        """The stream from Hello to its end. The writer has stopped when this returns or raises."""
        hello = await self._hello(context)
        env = self._node.environment(self._scope.environment(hello.environment))
        session, refused = await self._open(env, hello, link)
        writer = asyncio.get_running_loop().create_task(link.write_all(context, self._scope.counters))
        goodbye = False
        try:
            link.welcome(self._welcome(session, refused))
            sessions.opened(self._node, session)
            goodbye = await self._read(context, session, link)
        finally:
            if session.link is link:
                sessions.stream_ended(self._node, session, goodbye)
            await link.stop(writer)

    async def _hello(self, context: grpc.aio.ServicerContext[Any, Any]) -> step_pb2.Hello:
        """The worker's Hello, put together if it spans frames."""
        whole: step_pb2.Hello | None = None
        for _ in range(_HELLO_FRAMES):
            try:
                frame = await asyncio.wait_for(_read(context), _HELLO_S)
            except TimeoutError as error:
                raise StateError("HELLO_EXPECTED", f"no Hello within {_HELLO_S:.0f} s") from error
            if frame is _EOF or frame.WhichOneof("frame") != "hello":
                raise InvalidError("HELLO_EXPECTED", "the first frame of a worker is Hello")
            part: step_pb2.Hello = frame.hello
            if whole is None:
                whole = part
                if part.ByteSize() > LIMITS.frame_bytes:
                    message = f"Hello has more than {LIMITS.frame_bytes} bytes: the app registers too much at once"
                    raise InvalidError("TOO_LARGE", message, fields=(("functions", "too large"),))
            else:
                whole.residents.extend(part.residents)
            if len(whole.residents) > LIMITS.residents:
                message = f"Hello names more than {LIMITS.residents} residents"
                raise InvalidError("TOO_MANY", message, fields=(("residents", "too many"),))
            if not part.more:
                return whole
        raise InvalidError("TOO_MANY", f"Hello spans more than {_HELLO_FRAMES} frames")

    async def _open(
        self, env: Environment, hello: step_pb2.Hello, link: WorkerLink
    ) -> tuple[Session, list[sessions.Held]]:
        functions = convert.function_specs(hello.app, hello.deployment, hello.functions)
        value = sessions.Hello(
            hello.app,
            hello.deployment,
            hello.instance,
            f"{hello.sdk} {hello.sdk_version}".strip(),
            hello.session_id,
            functions,
            hello.capacity,
            [sessions.Held(item.run_id, item.turn, item.parked) for item in hello.residents],
            frozenset(hello.capabilities),
            tuple(sorted(hello.labels.items())),
        )
        return await sessions.connect(self._node, env, value, link)

    def _welcome(self, session: Session, refused: list[sessions.Held]) -> step_pb2.Welcome:
        tuning = self._node.tuning
        return step_pb2.Welcome(
            session_id=session.id,
            epoch=session.row.epoch,
            lease_ms=tuning.lease_ms,
            heartbeat_ms=tuning.heartbeat_ms,
            limits=step_pb2.Limits(
                event_bytes=LIMITS.event_bytes,
                result_bytes=LIMITS.result_bytes,
                failure_bytes=LIMITS.failure_bytes,
                journal_bytes=LIMITS.journal_bytes,
                journal_steps=LIMITS.journal_steps,
                name_bytes=LIMITS.name_bytes,
                key_bytes=LIMITS.key_bytes,
                metadata_bytes=LIMITS.metadata_bytes,
                branches=LIMITS.branches,
                frame_bytes=LIMITS.frame_bytes,
            ),
            capabilities=sorted(sessions.CAPABILITIES),
            environment=session.row.env,
            now_ms=self._node.clock.now_ms(),
            refused=[step_pb2.Resident(run_id=held.run_id, turn=held.turn) for held in refused],
        )

    async def _read(self, context: grpc.aio.ServicerContext[Any, Any], session: Session, link: WorkerLink) -> bool:
        """Reads until the stream ends; True after Goodbye."""
        node = self._node
        counters = self._scope.counters
        while True:
            frame = await _read(context)
            if frame is _EOF:
                return False
            session.heard_ms = node.clock.monotonic_ms()
            counters.frames_in += 1
            kind = frame.WhichOneof("frame")
            if kind == "commands":
                if node.cluster is not None and frame.commands.invokes:
                    names = [one.function_id for one in frame.commands.invokes]
                    await register.look_up(node, node.environment(session.row.env), names)
                self._commands(session, frame.commands)
            elif kind == "heartbeat":
                beat: step_pb2.Heartbeat = frame.heartbeat
                if beat.epoch != session.row.epoch:
                    raise FencedError("STALE_EPOCH", f"epoch {beat.epoch} is not the session's")
                if not sessions.check_heartbeat(session, beat.residents, beat.resident_hash, beat.frames_read):
                    raise StateError("RESIDENTS_DIFFER", "worker and server hold different runs: connect again")
            elif kind == "capacity":
                if frame.capacity.capacity > LIMITS.capacity:
                    message = f"capacity is not 0 to {LIMITS.capacity}"
                    raise InvalidError("BAD_CAPACITY", message, fields=(("capacity", "range"),))
                session.capacity = frame.capacity.capacity
                session.draining = node.stopping or frame.capacity.capacity == 0
                dispatch.freed(node, session)
            elif kind == "goodbye":
                return True
            elif kind == "hello":
                raise StateError("OUT_OF_ORDER", "Hello came twice")
            # A frame of an unknown kind comes from a newer worker: it is not for us.

    def _commands(self, session: Session, commands: step_pb2.Commands) -> None:
        if commands.epoch != session.row.epoch:
            raise FencedError("STALE_EPOCH", f"epoch {commands.epoch} is not the session's {session.row.epoch}")
        frame = Frame(self._node, session)
        try:
            self._apply(frame, commands)
            frame.finish()
            self._node.lane.start()
        except ServerError:
            frame.give_up()
            raise
        except Exception:
            # Our fault or a hostile worker's: the runs that the frame names pay for it, not the others of the worker.
            known = {"environment": session.row.env, "session": session.id}
            log.exception("a frame of worker %s could not be applied", session.row.instance or session.id, extra=known)
            frame.give_up()

    def _apply(self, frame: Frame, commands: step_pb2.Commands) -> None:
        """Hands the commands over, in the order in which they count."""
        for m in commands.results:
            output = m.output
            frame.result(
                m.run_id,
                m.turn,
                m.key,
                m.number,
                output.data,
                output.encoding,
                m.attempt,
                m.started_ms,
                m.ended_ms,
                m.input_hash,
            )
        if commands.failures:
            for m in commands.failures:
                conclude.failure(
                    frame,
                    m.run_id,
                    m.turn,
                    m.key,
                    m.attempt,
                    convert.failure_value(m.failure),
                    convert.retry_policy(m.retry),
                    m.retry_after_ms if m.HasField("retry_after_ms") else None,
                    m.started_ms,
                    m.ended_ms,
                    m.input_hash,
                )
        for m in commands.delivered:
            frame.delivered(m.run_id, m.turn, [(item.key, item.number) for item in m.keys])
        self._waits(frame, commands)
        # What one decision of the code began, a later one in the same frame may have given up.
        for m in commands.abandons:
            frame.abandon(m.run_id, m.turn, m.key)
        self._ends(frame, commands)

    def _waits(self, frame: Frame, commands: step_pb2.Commands) -> None:
        for m in commands.sleeps:
            duration = m.duration_ms if m.WhichOneof("until") == "duration_ms" else None
            begin.sleep(frame, m.run_id, m.turn, m.key, duration, m.until_ms)
        for m in commands.waits:
            begin.wait_for_event(
                frame, m.run_id, m.turn, m.key, m.event, m.match_path, m.match_value, m.condition, m.timeout_ms
            )
        for m in commands.invokes:
            begin.invoke(
                frame,
                m.run_id,
                m.turn,
                m.key,
                m.function_id,
                m.input.data,
                m.input.encoding,
                m.timeout_ms,
                m.detached,
                m.input_hash,
                convert.metadata_json(m.metadata),
            )
        for m in commands.sends:
            begin.send(frame, m.run_id, m.turn, m.key, [convert.new_event(event) for event in m.events], m.input_hash)

    def _ends(self, frame: Frame, commands: step_pb2.Commands) -> None:
        for m in commands.mismatches:
            conclude.mismatch(frame, m.run_id, m.turn, m.key, m.recorded, m.attempted, m.location)
        for m in commands.completes:
            output = m.output
            conclude.complete(frame, m.run_id, m.turn, m.number, output.data, output.encoding)
        for m in commands.fails:
            conclude.fail(
                frame,
                m.run_id,
                m.turn,
                m.number,
                convert.failure_value(m.failure),
                m.attempt,
                m.retry_after_ms if m.HasField("retry_after_ms") else None,
            )
        for m in commands.cancelled:
            conclude.cancelled(frame, m.run_id, m.turn, m.number)
        for m in commands.parks:
            frame.park(m.run_id, m.turn, convert.tree(m.tree), m.received)
        for m in commands.releases:
            frame.release(m.run_id, m.turn)
