"""RunService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import grpc.aio
from stepwell.v1 import run_pb2, run_pb2_grpc

from stepwell_server.engine import control, listing, query, trouble, watch
from stepwell_server.engine.node import Node
from stepwell_server.model.errors import InvalidError, ServerError
from stepwell_server.model.journal import StepKind
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import RunStatus
from stepwell_server.ports.store import RunFilter, RunState
from stepwell_server.transport import convert, status
from stepwell_server.transport.scope import Scope

Context = grpc.aio.ServicerContext[Any, Any]
_WAIT_MS = 55_000
_JOURNAL_PAGE = 10_000
_TICK_S = 1.0
_PAUSE_MS = 250
"""A watcher of a live run looks at most this often."""
_PAUSE_LOOKS = 4
"""… and pauses at least this many times as long as its look took."""
_STATUSES = frozenset(int(status) for status in RunStatus)


def _check_statuses(statuses: Iterable[int]) -> None:
    for number, one in enumerate(statuses):
        if one not in _STATUSES:
            field = f"statuses[{number}]"
            raise InvalidError("BAD_STATUS", f"{field}: there is no status {one}", fields=((field, "unknown"),))


def _parts(entries: list[run_pb2.JournalEntry]) -> Iterator[list[run_pb2.JournalEntry]]:
    """Entries in parts that fit a message (H34); a larger one travels alone."""
    part: list[run_pb2.JournalEntry] = []
    size = 0
    for entry in entries:
        cost = entry.ByteSize()
        if part and size + cost > LIMITS.send_bytes // 2:
            yield part
            part, size = [], 0
        part.append(entry)
        size += cost
    if part:
        yield part


class _Sent:
    """The entries of a journal that a watcher has."""

    def __init__(self) -> None:
        self.number = 0
        """The last one of which it has the entry. Numbers only grow, and numbered entries never change again."""
        self._others: dict[tuple[str, bool], int] = {}

    def news(self, entries: list[query.Entry]) -> list[run_pb2.JournalEntry]:
        """The entries that are new or changed since the last call, of all those behind the last number."""
        found: list[run_pb2.JournalEntry] = []
        for entry in entries:
            outcome = entry.outcome
            if outcome is not None and outcome.number is not None:
                if outcome.number > self.number:
                    self.number = outcome.number
                    found.append(convert.entry_message(entry))
                continue
            message = convert.entry_message(entry)
            mark = (message.key, entry.wait is not None)
            digest = hash(message.SerializeToString(deterministic=True))
            if self._others.get(mark) != digest:
                self._others[mark] = digest
                found.append(message)
        return found


class RunService(run_pb2_grpc.RunServiceServicer):
    """See the proto."""

    def __init__(self, node: Node, scope: Scope) -> None:
        self._node = node
        self._scope = scope

    def _message(self, state: RunState) -> run_pb2.Run:
        shown = query.shown_status(self._node, state)
        request = query.unwinding(state)
        cancelled = request is not None and request.kind == StepKind.CANCEL
        deadline_ms = query.deadline_ms(state)
        return convert.run_message(state.run, shown, cancelled=cancelled, deadline_ms=deadline_ms)

    def _reasons(self, state: RunState) -> list[run_pb2.WaitingFor]:
        return [convert.reason_message(reason) for reason in query.reasons(self._node, state)]

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Context) -> run_pb2.GetRunResponse:
        """See the proto."""

        async def work() -> run_pb2.GetRunResponse:
            state = await query.run_state(self._node, self._scope.environment(request.environment), request.run_id)
            response = run_pb2.GetRunResponse(run=self._message(state), waiting_for=self._reasons(state))
            if request.with_event:
                convert.input_message(response.event, state)
            return response

        return await status.answered(context, work)

    async def ListRuns(self, request: run_pb2.ListRunsRequest, context: Context) -> run_pb2.ListRunsResponse:
        """See the proto."""

        async def work() -> run_pb2.ListRunsResponse:
            env = self._scope.environment(request.environment)
            _check_statuses(request.statuses)
            filter_ = RunFilter(
                function_id=request.function_id,
                app=request.app,
                statuses=tuple(request.statuses),
                event_id=request.event_id,
                parent_id=request.parent_run_id,
                from_ms=request.from_ms or None,
                until_ms=request.until_ms or None,
                before=request.page_token,
                limit=request.page_size or 50,
            )
            page, asked = await listing.list_runs(self._node, env, filter_, request.condition, request.error_type)
            runs = [convert.run_message(row, cancelled=row.id in asked) for row in page.rows]
            return run_pb2.ListRunsResponse(
                runs=runs, next_page_token=page.token, scanned=page.scanned, unjudged=page.unjudged
            )

        return await status.answered(context, work)

    async def ListFailures(
        self, request: run_pb2.ListFailuresRequest, context: Context
    ) -> run_pb2.ListFailuresResponse:
        """See the proto."""

        async def work() -> run_pb2.ListFailuresResponse:
            env = self._scope.environment(request.environment)
            _check_statuses(request.statuses)
            filter_ = trouble.FailureFilter(
                frozenset(request.function_ids),
                request.app,
                frozenset(map(RunStatus, request.statuses)) or trouble.DEFAULT_STATUSES,
                request.from_ms or None,
                request.until_ms or None,
                request.page_token,
                request.page_size or 200,
            )
            return convert.failures_message(await trouble.list_failures(self._node, env, filter_))

        return await status.answered(context, work)

    async def GetJournal(self, request: run_pb2.GetJournalRequest, context: Context) -> run_pb2.GetJournalResponse:
        """See the proto."""

        async def work() -> run_pb2.GetJournalResponse:
            state = await query.run_state(self._node, self._scope.environment(request.environment), request.run_id)
            size = request.page_size or 1_000
            if not 1 <= size <= _JOURNAL_PAGE:
                raise InvalidError(
                    "BAD_PAGE_SIZE", f"page_size is not 1 to {_JOURNAL_PAGE}", fields=(("page_size", "out of range"),)
                )
            if request.page_token and not (request.page_token.isdecimal() and len(request.page_token) < 10):
                raise InvalidError(
                    "BAD_PAGE_TOKEN", "page_token is not one of ours", fields=(("page_token", "unknown"),)
                )
            begin = int(request.page_token or 0)
            entries = query.journal(state)
            page = [convert.entry_message(entry) for entry in entries[begin : begin + size]]
            page = next(_parts(page), [])
            end = begin + len(page)
            return run_pb2.GetJournalResponse(entries=page, next_page_token=str(end) if end < len(entries) else "")

        return await status.answered(context, work)

    async def WaitRun(self, request: run_pb2.WaitRunRequest, context: Context) -> run_pb2.WaitRunResponse:
        """See the proto."""

        async def work() -> run_pb2.WaitRunResponse:
            env = self._scope.environment(request.environment)
            wait_ms = min(request.timeout_ms or _WAIT_MS, _WAIT_MS)
            run = await watch.wait_run(self._node, env, request.run_id, wait_ms)
            if run.ended_ms is None:
                state = await query.run_state(self._node, env, request.run_id)
                return run_pb2.WaitRunResponse(run=self._message(state))
            return run_pb2.WaitRunResponse(run=convert.run_message(run))

        return await status.answered(context, work)

    async def WatchRun(
        self, request: run_pb2.WatchRunRequest, context: Context
    ) -> AsyncIterator[run_pb2.WatchRunResponse]:
        """See the proto."""
        try:
            env = self._scope.environment(request.environment)
            sent = _Sent()
            last = b""
            now_ms = self._node.clock.monotonic_ms
            with watch.watching(self._node, request.run_id) as changes:
                while True:
                    began_ms = now_ms()
                    state = await query.changes(self._node, env, request.run_id, sent.number)
                    response = run_pb2.WatchRunResponse(run=self._message(state), waiting_for=self._reasons(state))
                    news = sent.news(query.journal(state))
                    whole = response.SerializeToString(deterministic=True)
                    if whole != last or news:
                        last = whole
                        for part in _parts(news) if news else iter([[]]):
                            del response.entries[:]
                            response.entries.extend(part)
                            yield response
                    if state.run.ended_ms is not None:
                        return
                    looked_ms = now_ms()
                    await changes.wait(_TICK_S)
                    next_ms = looked_ms + max(_PAUSE_MS, _PAUSE_LOOKS * (looked_ms - began_ms))
                    while changes.ended is None and (left_ms := next_ms - now_ms()) > 0:
                        await changes.wait(left_ms / 1000)
        except ServerError as error:
            await status.abort(context, error)

    async def CancelRun(self, request: run_pb2.CancelRunRequest, context: Context) -> run_pb2.CancelRunResponse:
        """See the proto."""

        async def work() -> run_pb2.CancelRunResponse:
            env = self._scope.environment(request.environment)
            await control.cancel(self._node, env, request.run_id, request.reason)
            return run_pb2.CancelRunResponse(run=self._message(await query.run_state(self._node, env, request.run_id)))

        return await status.answered(context, work)
