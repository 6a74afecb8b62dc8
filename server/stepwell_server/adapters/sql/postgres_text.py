"""Builds the one statement that applies a batch of Commits on Postgres, from the arms that are present.

Its parameters are arrays, one a column. Where the batch has fences or deciders, each operation carries the ordinal
``c`` of its Commit, and the operations of Commits in ``bad`` are left out. All arms of a statement see one snapshot;
the lane sees to it that no two operations meet in a row (H33).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from stepwell_server.adapters.sql.arms import BY_FIELD, Arm, Kind
from stepwell_server.model.journal import OutcomeRow

_TYPES = {"int": "bigint", "str": "text", "bytes": "bytea", "bool": "boolean"}
_OUTCOME = ", ".join(OutcomeRow._fields)
_UNDECIDED = "NOT EXISTS (SELECT 1 FROM outcomes AS o WHERE o.env = v.env AND o.run_id = v.run_id AND o.key = v.key)"
_ORDINAL = "int[]"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a batch contains. owned: the node's own fence counts for all. deciders, fields: names of arms, in order."""

    owned: bool
    fenced: bool
    deciders: tuple[str, ...]
    fields: tuple[str, ...]

    @property
    def checked(self) -> bool:
        """Whether a Commit can be fenced."""
        return self.owned or self.fenced

    @property
    def guarded(self) -> bool:
        return self.checked or bool(self.deciders)


@cache
def batch_text(shape: Shape) -> str:
    """The statement for a shape.

    Parameters: of the owner: env, session_id, epoch, and the last ordinal; of the fences: k, env, session_id, epoch,
    then c, k; of each decider and field: c if guarded, its columns, and the base of ``arrived`` for outcomes. Rows: (c,
    whether a fence failed) of the Commits left out.
    """
    names = _Parameters()
    with_: list[str] = []
    unfit: list[str] = []
    fails: list[str] = []
    if shape.owned:
        with_.append(
            f"owner AS MATERIALIZED (SELECT 1 FROM sessions AS t WHERE t.env = {names.one('text')} "
            f"AND t.id = {names.one('text')} AND t.epoch = {names.one('bigint')} AND coalesce(t.closed_ms, -1) = -1 "
            "FOR SHARE OF t)"
        )
        unfit.append(f"SELECT generate_series(0, {names.one('int')}) AS c WHERE NOT EXISTS (SELECT 1 FROM owner)")
    if shape.fenced:
        fence = names.rows((_ORDINAL, "text[]", "text[]", "bigint[]"), "k, env, id, epoch")
        with_.append(
            f"held AS MATERIALIZED (SELECT v.k FROM {fence} JOIN sessions AS t ON t.env = v.env AND t.id = v.id "
            "WHERE t.epoch = v.epoch AND coalesce(t.closed_ms, -1) = -1 FOR SHARE OF t)"
        )
        user = names.rows((_ORDINAL, _ORDINAL), "c, k")
        unfit.append(f"SELECT v.c FROM {user} WHERE v.k <> ALL (ARRAY(SELECT k FROM held))")
    if unfit:
        with_.append(f"fenced AS ({' UNION ALL '.join(unfit)})")
        fails.append("SELECT c, true AS fenced FROM fenced")
    for field in shape.deciders:
        with_.extend(_decider(BY_FIELD[field], names, shape.checked))
        fails.append(f"SELECT c, false FROM lost_{field}")
    if fails:
        with_.append(f"bad(c, fenced) AS MATERIALIZED ({' UNION ALL '.join(fails)})")
    for field in shape.fields:
        with_.extend(_follower(BY_FIELD[field], names, "bad" if fails else ""))
    if fails:
        return f"WITH {', '.join(with_)} SELECT c, fenced FROM bad"
    *others, (_, last) = (part.split(" AS ", 1) for part in with_)
    text = last[1:-1]
    return f"WITH {', '.join(f'{name} AS {body}' for name, body in others)} {text}" if others else text


@cache
def arm_text(field: str) -> str:
    """The statement of one arm alone, unguarded. Parameters: its columns, and the base of ``arrived`` for outcomes."""
    return batch_text(Shape(owned=False, fenced=False, deciders=(), fields=(field,)))


class _Parameters:
    """Hands out numbers of parameters."""

    def __init__(self) -> None:
        self.next = 1

    def one(self, type_: str) -> str:
        self.next += 1
        return f"${self.next - 1}::{type_}"

    def rows(self, types: tuple[str, ...], names: str, *, ordinal: bool = False) -> str:
        """A FROM item ``v`` of so many arrays."""
        arrays = ", ".join(self.one(type_) for type_ in types)
        return f"unnest({arrays}) {'WITH ORDINALITY ' if ordinal else ''}AS v({names}{', o' if ordinal else ''})"

    def of(self, arm: Arm, *, guarded: bool) -> str:
        names = ", ".join(arm.columns)
        types = _array_types(arm.row)
        if guarded:
            types, names = (_ORDINAL, *types), f"c, {names}"
        return self.rows(types, names, ordinal=_counted(arm))


def _counted(arm: Arm) -> bool:
    """Whether an arm notes the order of insertion."""
    return arm.row is OutcomeRow


@cache
def _array_types(row: type[Any]) -> tuple[str, ...]:
    """From the annotations of a row, which are text."""
    annotations: dict[str, str] = row.__annotations__
    return tuple(f"{_TYPES[str(note).split(' ')[0]]}[]" for note in map(_plain, annotations.values()))


def _plain(note: Any) -> str:
    return note if isinstance(note, str) else getattr(note, "__forward_arg__", str(note))


def _decider(arm: Arm, names: _Parameters, fenced: bool) -> list[str]:
    """Parts that apply deciders and say which lost. A loser is looked at again alone, in a new snapshot."""
    field = arm.field
    start = names.next
    rows = names.of(arm, guarded=True)
    all_ = f"unnest(${start}::int[]) AS v(c)"
    ok = " AND v.c <> ALL (ARRAY(SELECT c FROM fenced))" if fenced else ""
    if arm.kind is Kind.UPDATE:
        guard = f" AND {arm.guard}" if arm.guard else ""
        return [
            f"won_{field} AS (UPDATE {arm.table} AS t SET {arm.change} FROM {rows} WHERE {arm.where}{guard}{ok} "
            "RETURNING v.c)",
            f"lost_{field} AS (SELECT v.c FROM {all_} WHERE v.c NOT IN (SELECT c FROM won_{field}))",
        ]
    if arm.kind is Kind.RESOLVE:
        returned = ", ".join(f"v.{column}" for column in arm.columns)
        return [
            f"won_{field} AS (DELETE FROM waits AS t USING {rows} WHERE {arm.where} AND {_UNDECIDED}{ok} "
            f"RETURNING v.c, {returned}, v.o)",
            f"put_{field} AS (INSERT INTO outcomes ({_OUTCOME}, arrived) SELECT {_OUTCOME}, {names.one('bigint')} + o "
            f"FROM won_{field} ON CONFLICT DO NOTHING)",
            f"lost_{field} AS (SELECT v.c FROM {all_} WHERE v.c NOT IN (SELECT c FROM won_{field}))",
        ]
    assert arm.kind is Kind.INSERT, arm
    columns = ", ".join(arm.columns)
    keyed = f"unnest(${start}::int[], ${start + 1}::text[], ${start + 2}::text[]) AS v(c, env, key)"
    return [
        f"won_{field} AS (INSERT INTO {arm.table} ({columns}) SELECT {columns} FROM {rows} WHERE true{ok} "
        f"ON CONFLICT {arm.conflict} RETURNING env, key)",
        f"lost_{field} AS (SELECT v.c FROM {keyed} WHERE (v.env, v.key) NOT IN (SELECT env, key FROM won_{field}))",
    ]


def _follower(arm: Arm, names: _Parameters, bad: str) -> list[str]:
    field = arm.field
    columns = ", ".join(arm.columns)
    rows = names.of(arm, guarded=bool(bad))
    ok = f"v.c <> ALL (ARRAY(SELECT c FROM {bad}))" if bad else ""
    guards = "".join(f" AND {term}" for term in (arm.guard, ok) if term)
    match arm.kind:
        case Kind.INSERT:
            # The order of insertion is the order of the arrays.
            into, values = columns, columns
            if _counted(arm):
                into, values = f"{columns}, arrived", f"{columns}, {names.one('bigint')} + v.o"
            where = f" WHERE {ok}" if ok else " WHERE true"
            return [
                f"{field} AS (INSERT INTO {arm.table} ({into}) SELECT {values} FROM {rows}{where} "
                f"ON CONFLICT {arm.conflict})"
            ]
        case Kind.UPDATE:
            return [f"{field} AS (UPDATE {arm.table} AS t SET {arm.change} FROM {rows} WHERE {arm.where}{guards})"]
        case Kind.DELETE:
            return [f"{field} AS (DELETE FROM {arm.table} AS t USING {rows} WHERE {arm.where}{guards})"]
        case Kind.RESOLVE:
            returned = ", ".join(f"v.{column}" for column in arm.columns)
            return [
                f"closed AS (DELETE FROM waits AS t USING {rows} WHERE {arm.where}{guards} RETURNING {returned}, v.o)",
                f"{field} AS (INSERT INTO outcomes ({_OUTCOME}, arrived) SELECT {_OUTCOME}, {names.one('bigint')} + o "
                "FROM closed ON CONFLICT DO NOTHING)",
            ]
        case Kind.REGISTER:
            assert not bad, "registrations are applied alone"
            return [
                f"new AS (INSERT INTO {arm.table} ({columns}) SELECT {columns} FROM {rows} ON CONFLICT DO NOTHING "
                "RETURNING env)",
                f"{field} AS (INSERT INTO environments AS t (env, registry_version) SELECT env, count(*) FROM new "
                "GROUP BY env ON CONFLICT (env) DO UPDATE SET registry_version = t.registry_version + "
                "excluded.registry_version)",
            ]
