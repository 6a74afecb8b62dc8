"""AdminService."""

from __future__ import annotations

from typing import Any

import grpc.aio
from stepwell.v1 import admin_pb2, admin_pb2_grpc

from stepwell_server.engine import clockwork, listing, retention, usage
from stepwell_server.engine.node import Node
from stepwell_server.engine.patience import within
from stepwell_server.engine.timers import Timers
from stepwell_server.model.errors import InvalidError, StateError
from stepwell_server.model.limits import DAY_MS
from stepwell_server.transport import convert, status
from stepwell_server.transport.scope import Scope

_LIMITS = 100

Context = grpc.aio.ServicerContext[Any, Any]


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """See the proto. clock: only where it may be moved."""

    def __init__(self, node: Node, scope: Scope, timers: Timers, clock: clockwork.MovableClock | None) -> None:
        self._node = node
        self._scope = scope
        self._timers = timers
        self._clock = clock

    async def ListWorkers(
        self, request: admin_pb2.ListWorkersRequest, context: Context
    ) -> admin_pb2.ListWorkersResponse:
        """See the proto."""

        async def work() -> admin_pb2.ListWorkersResponse:
            env = self._scope.environment(request.environment)
            now = self._node.clock.monotonic_ms()
            found = [session for session in self._node.sessions.values() if session.row.env == env]
            found.sort(key=lambda session: (session.row.app, session.row.instance, session.id))
            return admin_pb2.ListWorkersResponse(
                workers=[convert.worker_message(session, now - session.heard_ms) for session in found]
            )

        return await status.answered(context, work)

    async def ListLimits(self, request: admin_pb2.ListLimitsRequest, context: Context) -> admin_pb2.ListLimitsResponse:
        """See the proto."""

        async def work() -> admin_pb2.ListLimitsResponse:
            env = self._node.environment(self._scope.environment(request.environment))
            size = request.page_size or _LIMITS
            listing.check_limits_page(size, request.page_token, request.function_id, request.app)
            found, after = usage.page(self._node, env, request.function_id, request.app, request.page_token, size)
            return admin_pb2.ListLimitsResponse(
                limits=[convert.limit_message(one, self._node.clock.now_ms()) for one in found], next_page_token=after
            )

        return await status.answered(context, work)

    async def AdvanceClock(
        self, request: admin_pb2.AdvanceClockRequest, context: Context
    ) -> admin_pb2.AdvanceClockResponse:
        """See the proto."""

        async def work() -> admin_pb2.AdvanceClockResponse:
            if self._clock is None:
                raise StateError("NOT_DEV", "only the clock of a dev server can be moved")
            if request.advance_ms > 366 * DAY_MS:
                fields = (("advance_ms", "longer than 366 days"),)
                raise InvalidError("TOO_LONG", "the clock moves at most 366 days at once", fields=fields)
            deadline = min(request.deadline_ms or 30_000, 600_000)
            done = await clockwork.advance(self._node, self._clock, self._timers, request.advance_ms, deadline)
            return admin_pb2.AdvanceClockResponse(
                now_ms=done.now_ms, offset_ms=done.offset_ms, complete=done.complete, fired=done.fired
            )

        return await status.answered(context, work)

    async def GetRetention(
        self, request: admin_pb2.GetRetentionRequest, context: Context
    ) -> admin_pb2.GetRetentionResponse:
        """See the proto."""

        async def work() -> admin_pb2.GetRetentionResponse:
            env = self._scope.environment(request.environment)
            return admin_pb2.GetRetentionResponse(rules=_rules(await retention.rules(self._node, env)))

        return await status.answered(context, work)

    async def SetRetention(
        self, request: admin_pb2.SetRetentionRequest, context: Context
    ) -> admin_pb2.SetRetentionResponse:
        """See the proto."""

        async def work() -> admin_pb2.SetRetentionResponse:
            env = self._scope.environment(request.environment)
            self._node.check_accepting()
            changes: dict[str, int] = {}
            for n, rule in enumerate(request.rules):
                kind = _KINDS.get(rule.kept)
                if kind is None or kind in changes:
                    said = "not known" if kind is None else "named twice"
                    fields = ((f"rules[{n}].kept", said),)
                    raise InvalidError("BAD_RETENTION", "what is kept cannot be told", fields=fields)
                changes[kind] = rule.keep_ms
            kept = await within(self._node, retention.keep(self._node, env, changes))
            return admin_pb2.SetRetentionResponse(rules=_rules(kept))

        return await status.answered(context, work)

    async def GetServerInfo(
        self, request: admin_pb2.GetServerInfoRequest, context: Context
    ) -> admin_pb2.GetServerInfoResponse:
        """See the proto."""
        scope = self._scope
        return admin_pb2.GetServerInfoResponse(
            version=scope.version,
            profile=scope.profile,
            default_environment=scope.default_environment,
            database=scope.database,
            now_ms=self._node.clock.now_ms(),
            ready=not self._node.not_ready,
            not_ready=self._node.not_ready,
        )


_KINDS: dict[int, str] = {
    number: name.removeprefix("KEPT_").lower() for name, number in admin_pb2.Kept.items() if number
}


def _rules(kept: dict[str, int]) -> list[admin_pb2.RetentionRule]:
    return [admin_pb2.RetentionRule(kept=number, keep_ms=kept[kind]) for number, kind in _KINDS.items()]  # pyright: ignore
