"""What people ask of runs: start one, end one."""

from __future__ import annotations

from hashlib import blake2b

from stepwell_server.engine import admission, fence, ingest, patience, query, unwind
from stepwell_server.engine.node import Node
from stepwell_server.engine.register import refresh
from stepwell_server.model import ids
from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.errors import ExistsError, InvalidError, NotFoundError
from stepwell_server.model.event import DedupRow
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import LIVE, RunRow, RunStatus

_LIVE = frozenset(int(status) for status in LIVE)


async def invoke(
    node: Node, env_name: str, function_id: str, data: bytes, encoding: str, request_id: str, metadata: bytes
) -> str:
    """Starts a run of a function; answers its id once it is durable. The same request id is the same run.

    Raises NotFoundError, InvalidError, ExistsError (the request id was used for something else), UnavailableError.
    """
    node.check_accepting()
    env = node.environment(env_name)
    if not env.loaded:
        await refresh(node, env)
    function = env.triggers.known.get(function_id)
    if function is None:
        await refresh(node, env)
        function = env.triggers.known.get(function_id)
    if function is None:
        raise NotFoundError("FUNCTION_NOT_FOUND", f"no app has registered function {function_id[:256]!r}")
    ingest.check_text(request_id, "request_id", LIMITS.key_bytes, empty=True)
    if len(data) > LIMITS.result_bytes:
        raise InvalidError(
            "TOO_LARGE", f"the input has more than {LIMITS.result_bytes} bytes", fields=(("input", "too large"),)
        )
    if len(metadata) > LIMITS.metadata_bytes:
        raise InvalidError(
            "TOO_LARGE", f"metadata is larger than {LIMITS.metadata_bytes} bytes", fields=(("metadata", "too large"),)
        )
    ingest.check_text(encoding, "input.encoding", LIMITS.key_bytes, empty=True)
    ingest.check_input(function, data, encoding)
    now = node.clock.now_ms()
    run_id = ids.run_id_for_request(now, node.entropy(10))
    digesting = blake2b(digest_size=8)
    ingest.digest_in(digesting, function_id.encode(), data, encoding, metadata)
    digest = digesting.hexdigest()
    run = RunRow(
        env_name, run_id, function_id, function.app, int(RunStatus.QUEUED), 0, 0, None, None, None, None, False, 0,
        "", 0, 0, 0, now, None, None, data, encoding, None, "", None, metadata,
    )  # fmt: skip
    start = admission.begin(node, env, function, run, None)
    commit = Commit(env_name, runs=(start.run,), waits=start.waits, size=len(data))
    if request_id:
        commit.touches = (f"dedup:i:{request_id}",)
        commit.decider = DedupRow(env_name, "i:" + request_id, f"{digest}:{run_id}", now + LIMITS.dedup_ms)
    return await patience.within(node, _begun(node, start, commit, digest))


async def _begun(node: Node, start: admission.Start, commit: Commit, digest: str) -> str:
    """The id of the run, once it is durable."""
    starts = [start]
    result = await admission.apply(node, commit, starts)
    admission.started(node, starts, result.verdict is Verdict.APPLIED)
    if result.verdict is Verdict.LOST:
        theirs, _, existing = result.existing.partition(":")
        if theirs != digest:
            raise ExistsError("REQUEST_ID_REUSED", "this request id was used for another function or input")
        return existing
    if result.verdict is Verdict.FENCED:
        raise fence.taken_over()
    if result.verdict is not Verdict.APPLIED:
        raise InvalidError("STORE_REFUSED", f"the store refused: {result.existing}")
    return start.run.id


async def cancel(node: Node, env_name: str, run_id: str, reason: str) -> None:
    """Asks a run to end: at once where it never started or is paused, else it is unwound within the grace.

    Raises InvalidError, NotFoundError, UnavailableError. A run that has ended stays as it is.
    """
    ingest.check_text(reason, "reason", LIMITS.metadata_bytes, empty=True)
    query.check_run_id(run_id)
    await patience.within(node, unwind.cancel(node, env_name, run_id, reason))
