"""EventService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from stepwell.v1 import event_pb2, event_pb2_grpc

from stepwell_server.engine import ingest, listing, query
from stepwell_server.engine.node import Node
from stepwell_server.model.errors import ExhaustedError, ServerError
from stepwell_server.model.event import EventRow
from stepwell_server.transport import convert, status
from stepwell_server.transport.scope import Scope

_OUTCOMES: dict[str, event_pb2.EventStatus.Outcome] = {
    "accepted": event_pb2.EventStatus.OUTCOME_ACCEPTED,
    "duplicate": event_pb2.EventStatus.OUTCOME_DUPLICATE,
    "refused": event_pb2.EventStatus.OUTCOME_REFUSED,
}
_WATCH_QUEUE = 10_000
Context = grpc.aio.ServicerContext[Any, Any]


class EventService(event_pb2_grpc.EventServiceServicer):
    """See the proto."""

    def __init__(self, node: Node, scope: Scope) -> None:
        self._node = node
        self._scope = scope

    async def SendEvents(self, request: event_pb2.SendEventsRequest, context: Context) -> event_pb2.SendEventsResponse:
        """See the proto."""

        async def work() -> event_pb2.SendEventsResponse:
            env = self._scope.environment(request.environment)
            events = [convert.new_event(event) for event in request.events]
            statuses = await ingest.send_events(self._node, env, request.request_id, events)
            if self._node.tally is not None:
                self._node.tally.answered(item.outcome for item in statuses)
            response = event_pb2.SendEventsResponse()
            add = response.statuses.add
            for item in statuses:
                add(
                    event_id=item.event_id,
                    outcome=_OUTCOMES[item.outcome],
                    reason=item.reason,
                    message=item.message,
                )
            return response

        return await status.answered(context, work)

    async def GetEvent(self, request: event_pb2.GetEventRequest, context: Context) -> event_pb2.GetEventResponse:
        """See the proto."""

        async def work() -> event_pb2.GetEventResponse:
            env = self._scope.environment(request.environment)
            row, run_ids = await query.event_with_runs(self._node, env, request.event_id)
            return event_pb2.GetEventResponse(event=convert.event_message(row), run_ids=run_ids)

        return await status.answered(context, work)

    async def ListEvents(self, request: event_pb2.ListEventsRequest, context: Context) -> event_pb2.ListEventsResponse:
        """See the proto."""

        async def work() -> event_pb2.ListEventsResponse:
            env = self._scope.environment(request.environment)
            filter_ = listing.EventFilter(
                request.name,
                request.from_ms or None,
                request.until_ms or None,
                request.condition,
                request.page_token,
                request.page_size or 50,
                request.oldest_first,
            )
            page = await listing.list_events(self._node, env, filter_)
            return event_pb2.ListEventsResponse(
                events=[convert.event_message(row) for row in page.rows],
                next_page_token=page.token,
                scanned=page.scanned,
                unjudged=page.unjudged,
            )

        return await status.answered(context, work)

    async def WatchEvents(
        self, request: event_pb2.WatchEventsRequest, context: Context
    ) -> AsyncIterator[event_pb2.WatchEventsResponse]:
        """See the proto."""
        try:
            env = self._scope.environment(request.environment)
            listing.check_event_pattern(request.name)
        except ServerError as error:
            await status.abort(context, error)
        queue: asyncio.Queue[EventRow] = asyncio.Queue(_WATCH_QUEUE)
        lost = asyncio.Event()
        wild = request.name.endswith("*")
        name = request.name.removesuffix("*")

        def watcher(row: EventRow) -> None:
            fits = row.name.startswith(name) if wild or not name else row.name == name
            if row.env == env and fits:
                if queue.full():
                    lost.set()
                else:
                    queue.put_nowait(row)

        self._node.event_watchers.add(watcher)
        try:
            await context.send_initial_metadata(())
            while True:
                rows = [await queue.get()]
                if lost.is_set():
                    message = f"more than {_WATCH_QUEUE} events wait for this reader; list them, and watch again"
                    await status.abort(context, ExhaustedError("TOO_SLOW", message))
                while not queue.empty() and len(rows) < 100:
                    rows.append(queue.get_nowait())
                yield event_pb2.WatchEventsResponse(events=[convert.event_message(row) for row in rows])
        finally:
            self._node.event_watchers.discard(watcher)
