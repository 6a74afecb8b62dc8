"""A new wait looks back for an event that came before it (H17, H18): bounded, in a new snapshot, after its commit."""

from __future__ import annotations

import asyncio
import logging

from stepwell_server.engine import failures, loading, matching, serve, wake
from stepwell_server.engine.node import Node
from stepwell_server.model import ids
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.event import EventRow
from stepwell_server.model.journal import LookedBack, WaitRow

_CLOCKS_APART_MS = 5_000
log = logging.getLogger("stepwell.lookback")


def look_back(node: Node, wait: WaitRow) -> None:
    """A wait is durable. Where no event of its name came since its run began, there is nothing to read."""
    after = wait.after_event or ""
    if _nothing_came(node, wait, after):
        _mark(node, wait)
    else:
        node.spawn(_look(node, wait, after))


def _nothing_came(node: Node, wait: WaitRow, after: str) -> bool:
    last = node.environment(wait.env).last_event.get(wait.target)
    alone = node.alone_since_ms is not None and ids.time_of(after) > node.alone_since_ms
    return alone and (last is None or last <= after)


async def finish(node: Node, wait: WaitRow) -> None:
    """Looks back before the wait's time-out is put to the store; what it finds is submitted first, and so wins."""
    if wait.after_event is None:
        # It looked back when it opened: only what came since can have been missed, by the clocks of other nodes.
        await _search(node, wait, f"{ids.EVENT_PREFIX}{ids.time_part(wait.opened_ms - _CLOCKS_APART_MS)}{'0' * 20}")
    elif not _nothing_came(node, wait, wait.after_event):
        await _look(node, wait, wait.after_event)


def _mark(node: Node, wait: WaitRow, cut_after: str = "") -> None:
    cut = failures.look_back_cut(cut_after) if cut_after else None
    node.looked_back.append(LookedBack(wait.env, wait.run_id, wait.key, cut))
    serve.tidy_soon(node)


async def _look(node: Node, wait: WaitRow, after: str) -> None:
    node.busy += 1
    try:
        while node.environment(wait.env).unmarked.get(wait.target):  # noqa: ASYNC110 (rare, and over within a commit)
            await asyncio.sleep(0.001)
        found, cut_after = await _search(node, wait, after)
        if not found:
            _mark(node, wait, cut_after)
    finally:
        node.busy -= 1


async def _search(node: Node, wait: WaitRow, after: str) -> tuple[bool, str]:
    """Reads events page by page until one is for the wait, within bounds of count and time (H18d).

    Answers whether one was, and the event after which it was cut, if it was.
    """
    env = node.environment(wait.env)
    page_size = node.tuning.lookback_events
    until = node.clock.monotonic_ms() + node.tuning.lookback_ms
    for _ in range(node.tuning.lookback_pages):
        events = await _page(node, wait, after, page_size)
        fitting = [event for event in events if _fits(node, wait, event)]
        state = (await loading.read(node, wait.env, [wait.run_id])).get(wait.run_id) if fitting else None
        for event in fitting:
            if state is not None and serve.may_take(env, wait, state, event, matching.event_data(event)):
                output = matching.event_json(event)
                outcome = wake.outcome_of(wait, node.clock.now_ms(), output=output, event_id=event.id)
                wake.resolve(node, wait.function_id, outcome)
                return True, ""
        if len(events) < page_size:
            return False, ""
        after = events[-1].id
        if node.clock.monotonic_ms() > until:
            break
    known = {"environment": wait.env, "run_id": wait.run_id}
    log.warning("run %s: the look-back of %s was cut after event %s", wait.run_id, wait.key, after, extra=known)
    return False, after


async def _page(node: Node, wait: WaitRow, after: str, limit: int) -> list[EventRow]:
    while True:
        try:
            return await node.store.look_back(wait.env, wait.target, after, limit)
        except UnavailableError:
            await asyncio.sleep(0.5)


def _fits(node: Node, wait: WaitRow, event: EventRow) -> bool:
    if not wait.match_key:
        return True
    # The paths of all waits on the event: one cannot be read back out of its key, since it may hold any character.
    paths = node.environment(wait.env).shapes.get(wait.target, ())
    return wait.match_key in matching.match_keys(matching.event_value(event), paths)
