"""SELECT texts of both dialects. They are written for Postgres; ``lite`` turns one into SQLite's."""

from __future__ import annotations

import re

from stepwell_server.model.claim import ClaimRow, MemberRow
from stepwell_server.model.event import CursorRow, EventRow
from stepwell_server.model.function import DeploymentRow, ShapeRow, SwitchRow
from stepwell_server.model.journal import CANCEL_KEY, OutcomeRow, StepKind, WaitRow
from stepwell_server.model.limits import DAY_MS
from stepwell_server.model.run import ReadyRow, RunRow, RunStatus
from stepwell_server.model.session import NODE_LEASE, LeaseRow, SessionRow

_LIST = re.compile(r"= ANY\(\$(\d+)::text\[\]\)")
_COLLATION = ' COLLATE "POSIX"'
_PARAMETER = re.compile(r"\$(\d+)(::\w+)?")


_HINT = re.compile(r"/\*(INDEXED BY \w+)\*/")


def lite(sql: str) -> str:
    """For SQLite: numbered parameters, lists as JSON text, and the index that a comment names (see hinted)."""
    sql = _HINT.sub(r"\1", sql.replace(_COLLATION, ""))
    return _PARAMETER.sub(r"?\1", _LIST.sub(r"IN (SELECT value FROM json_each(?\1))", sql))


def hinted(table: str, index: str) -> str:
    """A table with the index to read it by. SQLite has no statistics and takes the primary key, which begins alike."""
    return f"{table} /*INDEXED BY {index}*/"


def columns(fields: tuple[str, ...], table: str = "") -> str:
    """A column list, each name with the table's alias before it."""
    return ", ".join(f"{table}.{field}" if table else field for field in fields)


EVENT = columns(EventRow._fields)
RUN = columns(RunRow._fields)
OUTCOME = columns(OutcomeRow._fields)
WAIT = columns(WaitRow._fields)
CURSOR = columns(CursorRow._fields)
READY = columns(tuple(field.replace("run_id", "id") for field in ReadyRow._fields))
SESSION = columns(SessionRow._fields)
DEPLOYMENT = columns(DeploymentRow._fields)
SHAPE = columns(ShapeRow._fields)
SWITCH = columns(SwitchRow._fields)

LOOK_BACK = f"SELECT {EVENT} FROM events WHERE env = $1 AND name = $2 AND id > $3 ORDER BY id LIMIT $4"
DUE = f"SELECT {WAIT} FROM waits WHERE due_ms <= $1 ORDER BY due_ms, env, run_id, key LIMIT $2"
DUE_AFTER = "SELECT min(due_ms) FROM waits WHERE due_ms > $1::bigint"
# The collation names the index: see _ordered_index in tables.py.
_RUN_ID = 'id COLLATE "POSIX"'
_IN_QUEUE = f'env COLLATE "POSIX" = $1 AND function_id = $2 AND status = {RunStatus.QUEUED:d}'
_ORDER = f"priority, queued_ms, {_RUN_ID}"
NEXT_LINE = f"SELECT line FROM runs WHERE {_IN_QUEUE} AND line >= $3::text ORDER BY line LIMIT 1"
_LINE_BEHIND = f"SELECT line FROM runs WHERE {_IN_QUEUE} AND line > l.line ORDER BY line LIMIT 1"
LINE = f"SELECT {READY} FROM runs WHERE {_IN_QUEUE} AND line = $3::text ORDER BY {_ORDER} LIMIT $4"
# One step of the index for each line, however many runs wait in it.
LINES = (
    f"WITH RECURSIVE l(line) AS (SELECT * FROM ({NEXT_LINE}) AS first UNION ALL "
    f"SELECT ({_LINE_BEHIND}) FROM l WHERE l.line IS NOT NULL) "
    f"SELECT q.* FROM (SELECT line FROM l WHERE line IS NOT NULL LIMIT $5) AS l CROSS JOIN LATERAL "
    f"({LINE.replace('$3::text', 'l.line')}) AS q ORDER BY line, {_ORDER}"
)
VERSION = "SELECT registry_version FROM environments WHERE env = $1"
DEPLOYMENTS = f"SELECT {DEPLOYMENT} FROM deployments WHERE env = $1 ORDER BY created_ms, app, id"
SHAPES = f"SELECT {SHAPE} FROM shapes WHERE env = $1 ORDER BY event, path"
SWITCHES = f"SELECT {SWITCH} FROM switches WHERE env = $1 ORDER BY at_ms, function_id"
SESSIONS = f"SELECT {SESSION} FROM sessions WHERE env = $1 AND closed_ms IS NULL ORDER BY id"
LEASE = f"SELECT {columns(LeaseRow._fields)} FROM leases WHERE name = $1"
LEASES = f"SELECT {columns(LeaseRow._fields)} FROM leases WHERE name LIKE $1 || '%' ORDER BY name"
HOMES = (
    "SELECT r.id, r.function_id, r.status, r.losses, "
    "CASE WHEN r.session_id IS NULL THEN NULL ELSE coalesce(s.node, '') END FROM runs AS r "
    "LEFT JOIN sessions AS s ON s.env = r.env AND s.id = r.session_id "
    "WHERE r.env = $1 AND r.id = ANY($2::text[]) AND r.ended_ms IS NULL ORDER BY r.id"
)

CURSORS = f"SELECT {CURSOR} FROM cursors ORDER BY env, id LIMIT $1"
LOOKBACKS = f"SELECT {WAIT} FROM waits WHERE after_event IS NOT NULL ORDER BY env, run_id LIMIT $1"
# Outcomes lead, by their partial index: the run of each is looked up and cannot become a join.
INBOX = (
    f"SELECT {OUTCOME} FROM outcomes AS o WHERE o.number IS NULL AND "
    f"(SELECT r.ended_ms IS NULL AND r.session_id IS NULL AND r.status = {RunStatus.PARKED:d} "
    "FROM runs AS r WHERE r.env = o.env AND r.id = o.run_id) LIMIT $1"
)
UNSEEN = (
    f"SELECT env, run_id, key FROM {hinted('outcomes', 'outcomes_inbox')} WHERE number IS NULL "
    "AND ended_ms <= $2::bigint AND (env, run_id, key) > ($3::text, $4::text, $5::text) "
    "ORDER BY env, run_id, key LIMIT $1"
)
_HELD = "r.ended_ms IS NULL AND r.session_id IS NOT NULL"
_NEXT_HOLDER = (
    f"FROM runs AS r WHERE {_HELD} AND (r.env, r.session_id) > (h.env, h.session_id) "
    "ORDER BY r.env, r.session_id LIMIT 1"
)
# One step of the index for each session, however many runs it holds.
HELD = (
    "WITH RECURSIVE h(env, session_id) AS (SELECT * FROM (SELECT r.env, r.session_id FROM runs AS r "
    f"WHERE {_HELD} ORDER BY r.env, r.session_id LIMIT 1) AS least UNION ALL "
    f"SELECT (SELECT r.env {_NEXT_HOLDER}), (SELECT r.session_id {_NEXT_HOLDER}) FROM h WHERE h.env IS NOT NULL), "
    "gone AS MATERIALIZED (SELECT h.env, h.session_id FROM h WHERE h.env IS NOT NULL AND NOT EXISTS (SELECT 1 "
    "FROM sessions AS s WHERE s.env = h.env AND s.id = h.session_id AND s.closed_ms IS NULL)) "
    f"SELECT {columns(RunRow._fields, 'r')} FROM gone AS g JOIN runs AS r ON r.env = g.env "
    f"AND r.session_id = g.session_id WHERE {_HELD} LIMIT $1"
)

CLAIMS = f"SELECT {columns(ClaimRow._fields)} FROM claims WHERE env = $1 AND key = ANY($2::text[])"
JOINED = (
    f"SELECT {columns(MemberRow._fields)} FROM members WHERE env = $1 AND event_id = ANY($2::text[]) "
    "ORDER BY event_id, function_id"
)
MEMBERS = (
    f"SELECT {columns(EventRow._fields, 'e')} FROM members AS m JOIN events AS e ON e.env = m.env "
    "AND e.id = m.event_id WHERE m.env = $1 AND m.run_id = $2 ORDER BY m.event_id"
)

EVENTS_BY_ID = f"SELECT {EVENT} FROM events WHERE env = $1 AND id = ANY($2::text[]) ORDER BY id"
RUN_BY_ID = f"SELECT {RUN} FROM runs WHERE env = $1 AND id = $2"
SETTING = "SELECT value FROM settings WHERE name = $1"
CANCEL_REQUESTED = (
    f"SELECT run_id FROM outcomes WHERE env = $1 AND run_id = ANY($2::text[]) AND key = '{CANCEL_KEY}' "
    f"AND kind = {StepKind.CANCEL:d}"
)
# One step of the index for each function, however many runs it has.
FUNCTIONS_WITH_RUNS = (
    'WITH RECURSIVE f(id) AS (SELECT min(function_id) FROM runs WHERE env COLLATE "POSIX" = $1 UNION ALL '
    'SELECT (SELECT min(r.function_id) FROM runs AS r WHERE r.env COLLATE "POSIX" = $1 '
    "AND r.function_id > f.id) FROM f "
    "WHERE f.id IS NOT NULL) SELECT id FROM f WHERE id IS NOT NULL"
)
SPECS = "SELECT spec FROM deployments WHERE env = $1"

PURGE_DEDUP = (
    "DELETE FROM dedup WHERE (env, key) IN (SELECT env, key FROM dedup WHERE expires_ms <= $1::bigint "
    "ORDER BY expires_ms LIMIT $2)"
)
PURGE_CLAIMS = (
    "DELETE FROM claims WHERE (env, key) IN (SELECT env, key FROM claims WHERE until_ms <= $1::bigint "
    "ORDER BY until_ms LIMIT $2)"
)
PURGE_LEASES = f"DELETE FROM leases WHERE holder = '' AND name LIKE '{NODE_LEASE}%'"
PURGE_SESSIONS = (
    f"DELETE FROM sessions WHERE (env, id) IN (SELECT env, id FROM sessions WHERE closed_ms <= $1::bigint - {DAY_MS} "
    "ORDER BY closed_ms LIMIT $2)"
)

# Retention. Pages go by the primary key; what is deleted is named by id.
OLDEST = (
    "SELECT coalesce((SELECT id FROM cursors WHERE env = $1 ORDER BY id LIMIT 1), ''), "
    "coalesce((SELECT id FROM runs WHERE env = $1 ORDER BY id LIMIT 1), '')"
)
RUN_PAGE = "SELECT id, status, ended_ms FROM runs WHERE env = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4"
EVENT_PAGE = (
    "SELECT id, EXISTS (SELECT 1 FROM members AS m WHERE m.env = $1 AND m.event_id = e.id) FROM events AS e "
    "WHERE env = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4"
)
FORGET_OUTCOMES = (
    "DELETE FROM outcomes WHERE (env, run_id, key) IN (SELECT env, run_id, key FROM outcomes "
    "WHERE env = $1 AND run_id = ANY($2::text[]) LIMIT $3)"
)
FORGET_MEMBERS = "DELETE FROM members WHERE env = $1 AND run_id = ANY($2::text[])"
FORGET_RUNS = "DELETE FROM runs WHERE env = $1 AND id = ANY($2::text[]) AND ended_ms IS NOT NULL"
FORGET_EVENTS = "DELETE FROM events WHERE env = $1 AND id = ANY($2::text[])"
