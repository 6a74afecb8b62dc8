"""A session is no longer this node's: its stream broke, it is over, or somebody else has raised its epoch (H8).

Nor is anything else, once another node serves the database (H31).
"""

from __future__ import annotations

from stepwell_server.engine.node import Node
from stepwell_server.engine.residents import Session
from stepwell_server.model.errors import UnavailableError


def taken_over() -> UnavailableError:
    """What a caller hears of a node that may write nothing any more."""
    message = "another server serves the database now: send again, it will answer"
    return UnavailableError("STORE_UNAVAILABLE", message, retry_ms=1_000)


def drop(node: Node, session: Session) -> None:
    """Forgets a session and its residents in memory; the store keeps them."""
    if session.expiry is not None:
        session.expiry.cancel()
        session.expiry = None
    if node.sessions.get(session.id) is session:
        del node.sessions[session.id]
    env = node.environment(session.row.env)
    for function_id in session.functions:
        serving = env.serving.get(function_id)
        if serving and session in serving:
            serving.remove(session)
    for resident in list(session.residents.values()):
        resident.ended = True
        if node.cluster is not None:
            # What was told here may have come too late to be seen by whoever holds the run now.
            for key in resident.unseen or ():
                node.cluster.strayed(resident.env, resident.run_id, key)
        if node.residents.get(resident.run_id) is resident:
            del node.residents[resident.run_id]
    session.residents.clear()
    session.wakes.clear()


def fenced(node: Node, session: Session) -> None:
    """Somebody else raised the session's epoch: this node holds nothing of it any more."""
    if node.sessions.get(session.id) is session:
        drop(node, session)
    link, session.link = session.link, None
    if link is not None:
        link.close("STALE_EPOCH", "the session is held elsewhere")
