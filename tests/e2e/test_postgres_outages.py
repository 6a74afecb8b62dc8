"""Postgres goes away, throws connections out, chooses victims, and stands behind a pooler, while work runs."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from stepwell.client import Client
from stepwell.v1 import event_pb2, event_pb2_grpc, run_pb2, run_pb2_grpc
from stepwell.values import RunStatus

from tests.e2e.conftest import APPS
from tests.e2e.mixed_load import Load, all_ended, no_event_is_lost, no_step_ran_again, repeats
from tests.e2e.raw_worker import Told, told
from tests.support.databases import postgres_or_skip
from tests.support.pgbouncer import PgBouncer, PgBouncerNotFoundError
from tests.support.postgres import PostgresServer
from tests.support.servers import Server, ended, running, until

ROUNDS = 3
_PATIENCE_S = 25.0
_numbers = count(1)


@pytest.fixture(scope="module")
def postgres() -> Generator[PostgresServer]:
    with postgres_or_skip() as server:
        yield server


@pytest.fixture
def name(postgres: PostgresServer) -> str:
    """Of an empty database."""
    return postgres.create_database(f"outage_{next(_numbers)}").rpartition("/")[2]


@contextmanager
def loaded(database: str, folder: Path, seed: int) -> Generator[tuple[Client, Load, Server]]:
    """A server with workers under a mixed load; at the end nothing is lost, doubled or stuck, nor ran twice."""
    effects = folder / "effects"
    effects.touch()
    with Server(database, folder, profile="serve") as server:
        client = server.client()
        with (
            server.worker(APPS / "mixed.py", "a", EFFECTS=str(effects)) as one,
            server.worker(APPS / "mixed.py", "b", EFFECTS=str(effects)) as other,
        ):
            for worker in (one, other):
                worker.connected(client)
            with Load(client, seed) as load:
                yield client, load, server
            runs = all_ended(client, load)
        no_event_is_lost(client, load, runs)
        no_step_ran_again(client, runs, effects)
        assert repeats(effects) == 0, "no worker was lost, so no body ran twice"
        assert "Traceback" not in server.text(), server.text()


def progress(load: Load, by: int = 15) -> None:
    """Waits until so many more events were acknowledged."""
    before = len(load.acknowledged)
    until(lambda: len(load.acknowledged) >= before + by, "the load goes on", _PATIENCE_S)


@pytest.mark.parametrize("immediate", [False, True], ids=["fast", "immediate"])
def test_a_restart_of_postgres_loses_and_doubles_nothing(
    postgres: PostgresServer, name: str, tmp_path: Path, immediate: bool
) -> None:
    with loaded(postgres.url(name), tmp_path, seed=1) as (_, load, server):
        for _ in range(ROUNDS):
            progress(load)
            postgres.stop(immediate=immediate)
            postgres.start()
        progress(load)
        assert server.running


def test_connections_that_are_thrown_out_again_and_again_lose_nothing(
    postgres: PostgresServer, name: str, tmp_path: Path
) -> None:
    with loaded(postgres.url(name), tmp_path, seed=2) as (_, load, _):
        for _ in range(10 * ROUNDS):
            progress(load, by=3)
            postgres.drop_connections()


def test_while_postgres_is_away_calls_say_so_and_when_to_try_again(
    postgres: PostgresServer, name: str, tmp_path: Path
) -> None:
    server = Server(postgres.url(name), tmp_path, profile="serve")
    effects = tmp_path / "effects"
    with running(server, APPS / "features.py", EFFECTS=str(effects)) as (client, _):
        handle = client.start("features/echo", 1)
        ended(client, handle.run_id)
        postgres.stop()
        try:
            with calls(server) as (events, runs):
                request = event_pb2.SendEventsRequest(events=[{"name": "some/event", "id": "once"}])
                answer = refusal(events.SendEvents, request)
                assert (answer.code, answer.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE"), answer
                assert "Postgres cannot be reached" in answer.message
                assert answer.retry_ms
                answer = refusal(runs.GetRun, run_pb2.GetRunRequest(run_id=handle.run_id))
                assert (answer.code, answer.reason) == ("UNAVAILABLE", "CONNECTION_LOST"), answer
                assert answer.retry_ms
        finally:
            postgres.start()
        assert ended(client, client.start("features/echo", 2).run_id).output == 2
        assert ended(client, handle.run_id).output == 1
        assert server.running


@contextmanager
def calls(server: Server) -> Generator[tuple[event_pb2_grpc.EventServiceStub, run_pb2_grpc.RunServiceStub]]:
    """The bare calls, which try nothing again."""
    with grpc.insecure_channel(server.address) as channel:
        yield event_pb2_grpc.EventServiceStub(channel), run_pb2_grpc.RunServiceStub(channel)


def refusal(call: Any, request: Any) -> Told:
    with pytest.raises(grpc.RpcError) as refused:
        call(request, timeout=_PATIENCE_S)
    return told(refused.value)


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03", "57P01", "26000", "0A000"])
def test_what_postgres_refuses_for_once_is_tried_again(
    postgres: PostgresServer, name: str, tmp_path: Path, sqlstate: str
) -> None:
    """A trigger refuses the first three tries with an error; a sequence counts them over their rollbacks."""
    with Server(postgres.url(name), tmp_path, profile="serve") as server:
        client = server.client()
        message = "cached plan must not change result type" if sqlstate == "0A000" else "refused"
        postgres.execute(
            "create sequence tries; create function refuse() returns trigger language plpgsql as $$ begin "
            f"if nextval('tries') <= 3 then raise exception using errcode = '{sqlstate}', message = '{message}'; "
            "end if; return new; end $$; "
            "create trigger refuse before insert on events for each row execute function refuse()",
            name,
        )
        event_id = client.send("some/event", {"n": 1})
        assert [one.event.id for one in client.list_events("some/event")] == [event_id]
        assert "Traceback" not in server.text()


async def test_a_deadlock_is_tried_again(postgres: PostgresServer, name: str, tmp_path: Path) -> None:
    """The other one waits longer before it looks for deadlocks, so that Postgres chooses our commit as its victim."""
    url = postgres.url(name)
    with Server(url, tmp_path, profile="serve") as server:
        client = server.client()
        with server.worker(APPS / "features.py", "one", EFFECTS=str(tmp_path / "effects")) as worker:
            worker.connected(client)
            worker.stop()
        run_id = client.start("features/echo", 1).run_id
        locker, observer = await asyncpg.connect(url), await asyncpg.connect(url)
        await locker.execute("set deadlock_timeout = '1min'")
        transaction = locker.transaction()
        await transaction.start()
        await locker.execute("select 1 from runs where id = $1 for update", run_id)
        with ThreadPoolExecutor(1) as pool:
            cancelling = pool.submit(client.cancel_run, run_id)
            blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
            while not await observer.fetchval(blocked):
                assert not cancelling.done()
            # Now the commit holds the row of the node's session, and waits for ours.
            await locker.execute("select 1 from sessions for update")
            await transaction.rollback()
            cancelling.result(_PATIENCE_S)
        assert client.get_run(run_id).status is RunStatus.CANCELLED
        await observer.execute("select pg_stat_clear_snapshot()")
        deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
        while not await observer.fetchval(deadlocks):
            await observer.execute("select pg_stat_clear_snapshot()")
        await locker.close()
        await observer.close()


async def test_calls_wait_for_a_connection_and_are_told_when_none_comes_free(
    postgres: PostgresServer, name: str, tmp_path: Path
) -> None:
    url = postgres.url(name)
    with Server(url, tmp_path, profile="serve") as server:
        client = server.client()
        client.send("some/event")
        locker, observer = await asyncpg.connect(url), await asyncpg.connect(url)
        transaction = locker.transaction()
        await transaction.start()
        await locker.execute("lock table events in access exclusive mode")
        with ThreadPoolExecutor(16) as pool, calls(server) as (events, _):
            request = event_pb2.ListEventsRequest()
            refused = [pool.submit(refusal, events.ListEvents, request) for _ in range(16)]
            answers = {(answer.code, answer.reason) for answer in (call.result() for call in refused)}
            assert answers == {("UNAVAILABLE", "TOO_LONG"), ("UNAVAILABLE", "TOO_BUSY")}
            waiting = [pool.submit(events.ListEvents, request, timeout=_PATIENCE_S) for _ in range(8)]
            full = "select count(*) >= 4 from pg_stat_activity where wait_event_type = 'Lock'"
            while not await observer.fetchval(full):
                assert not any(call.done() for call in waiting)
            await transaction.rollback()
            assert all(len(call.result().events) == 1 for call in waiting)
        await locker.close()
        await observer.close()


def test_a_database_that_is_serializable_by_default_is_used_as_any_other(
    postgres: PostgresServer, name: str, tmp_path: Path
) -> None:
    postgres.execute(f"alter database {name} set default_transaction_isolation = 'serializable'")
    with loaded(postgres.url(name), tmp_path, seed=3) as (_, load, _):
        progress(load, by=80)


@pytest.mark.parametrize("ignoring", [False, True], ids=["refuses-settings", "ignores-settings"])
async def test_behind_pgbouncer_in_transaction_mode_all_works_and_plans_use_their_indexes(
    postgres: PostgresServer, name: str, tmp_path: Path, ignoring: bool
) -> None:
    options = {"ignore_startup_parameters": IGNORED} if ignoring else {}
    try:
        pool = PgBouncer(postgres.url(), **options)
    except PgBouncerNotFoundError as error:
        pytest.skip(str(error))
    observer = await asyncpg.connect(postgres.url(name))
    with pool:
        before: dict[str, int] = {}
        with loaded(pool.url(name), tmp_path, seed=4) as (_, load, server):
            assert "a pooler stands before" in server.text()
            before = dict(await observer.fetch(SCANS))
            progress(load, by=LOOKED_AT)
        after = dict(await observer.fetch(SCANS))
    await observer.close()
    # Now and then a sweep looks through what is nearly empty; the work itself, at least one look a run, never does.
    scans = [after[table] - before[table] for table in ("events", "runs", "outcomes", "waits")]
    assert max(scans) < LOOKED_AT / 4


LOOKED_AT = 120
"""Runs that are played meanwhile."""
SCANS = "select relname, seq_scan from pg_stat_user_tables"
IGNORED = (
    "extra_float_digits, jit, enable_seqscan, enable_indexscan, enable_indexonlyscan, enable_hashjoin, "
    "enable_mergejoin, plan_cache_mode, lock_timeout, statement_timeout, idle_in_transaction_session_timeout, "
    "tcp_user_timeout, synchronous_commit, default_transaction_isolation"
)
