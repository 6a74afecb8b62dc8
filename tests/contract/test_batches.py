"""Batches: a verdict for each Commit, bad values refused alone, many Commits and large payloads (H32, H34)."""

from __future__ import annotations

from typing import Any

import pytest
from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.limits import MIB
from stepwell_server.model.session import SettingRow
from stepwell_server.ports.store import Probe

from tests.contract.rows import (
    BOOKED,
    ENV,
    by_event,
    commit,
    dedup,
    deployment,
    event,
    event_id,
    fence,
    held_run,
    move,
    outcome,
    parked_run,
    run,
    run_id,
    shape,
    sleep,
    take,
    wait,
)
from tests.contract.saying import dedups, keys, open_session, put, result, run_row, say, state, verdicts
from tests.support.stores import FullStore, OpenStore


async def test_each_commit_of_a_batch_has_its_own_verdict(store: FullStore) -> None:
    await open_session(store, 1)
    await put(store, runs=[run(1), held_run(2), parked_run(3), parked_run(4)], waits=[wait(n=3)], dedups=[dedup("r:1")])
    batch = [
        commit(fences=(fence(1),), outcomes=[outcome("a", 2)]),
        commit(fences=(fence(1, epoch=9),), outcomes=[outcome("b", 2)]),
        commit(decider=dedup("r:1", "evt_other"), runs=[run(11)]),
        commit(decider=dedup("r:2", "evt_2"), runs=[run(12)]),
        commit(decider=move(1), waits=[sleep(n=1)]),
        commit(decider=take(2, session=7), waits=[sleep(n=2)]),
        commit(decider=by_event(n=3), runs=[run(13)]),
        commit(decider=by_event(n=4), runs=[run(14)]),
        commit(events=[event(5)]),
        commit(settings=[SettingRow("x", "bad\0")], runs=[run(15)]),
    ]
    applied, fenced, lost, refused = Verdict.APPLIED, Verdict.FENCED, Verdict.LOST, Verdict.REFUSED
    assert await verdicts(store, *batch) == [
        applied, fenced, lost, applied, applied, lost, applied, lost, applied, refused
    ]  # fmt: skip
    assert set(await store.load(ENV, [run_id(n) for n in range(11, 16)])) == {run_id(12), run_id(13)}
    assert (await keys(store, 2), await keys(store, 3), await keys(store, 4)) == (["a"], ["booking"], [])
    assert [row.id for row in await store.events(ENV, [event_id(5)])] == [event_id(5)]


async def test_results_stand_in_the_order_of_the_commits(store: FullStore) -> None:
    await put(store, dedups=[dedup(f"r:{n}", f"evt_{n}") for n in range(0, 20, 2)])
    answers = await store.commit([commit(decider=dedup(f"r:{n}", f"new_{n}")) for n in range(20)])
    assert [(answer.verdict, answer.existing) for answer in answers] == [
        (Verdict.LOST, f"evt_{n}") if n % 2 == 0 else (Verdict.APPLIED, "") for n in range(20)
    ]


async def test_commits_of_several_environments_share_a_batch(store: FullStore) -> None:
    batch = [Commit(env, runs=[run(env=env)], deployments=[deployment(env=env)]) for env in ("a", "b", "c")]
    assert await verdicts(store, *batch) == [Verdict.APPLIED] * 3
    for env in ("a", "b", "c"):
        assert list(await store.load(env, [run_id(1)])) == [run_id(1)]
        assert [row.env for row in (await store.registry(env)).deployments] == [env]


async def test_commits_of_one_batch_may_name_the_same_shape(store: FullStore) -> None:
    batch = [commit(runs=[run(n)], waits=[wait(n=n)], shapes=[shape()]) for n in (1, 2, 3)]
    assert await verdicts(store, *batch) == [Verdict.APPLIED] * 3
    assert (await store.registry(ENV)).shapes == (shape(),)


async def test_commits_of_one_batch_may_write_different_keys_of_one_run(store: FullStore) -> None:
    await put(store, runs=[parked_run()], waits=[wait("a"), wait("b"), wait("c")])
    batch = [commit(decider=by_event(key)) for key in "abc"]
    assert await verdicts(store, *batch) == [Verdict.APPLIED] * 3
    assert sorted(await keys(store)) == ["a", "b", "c"]


async def test_a_thousand_commits_are_one_batch(store: FullStore) -> None:
    batch = [
        commit(decider=dedup(f"r:{n}", str(n)), events=[event(n)], runs=[run(n)], outcomes=[outcome(n=n)])
        for n in range(1, 1001)
    ]
    assert set(await verdicts(store, *batch)) == {Verdict.APPLIED}
    loaded = await store.load(ENV, [run_id(n) for n in range(1, 1001)])
    assert len(loaded) == 1000
    assert all(loaded[run_id(n)].outcomes == (outcome(n=n),) for n in (1, 500, 1000))
    moves = [commit(decider=move(n)) for n in range(1, 1001)]
    assert set(await verdicts(store, *moves)) == {Verdict.APPLIED}
    assert set(await verdicts(store, *[commit(decider=move(n, turn=7)) for n in range(1, 1001)])) == {Verdict.LOST}


async def test_payloads_of_a_megabyte_come_back_as_they_were(store: FullStore) -> None:
    payload = bytes(range(256)) * (MIB // 256)
    batch = [
        commit(events=[event(n, data=payload)], runs=[run(n)], outcomes=[outcome(n=n, output=payload)])
        for n in (1, 2, 3)
    ]
    assert await verdicts(store, *batch) == [Verdict.APPLIED] * 3
    loaded = await state(store, 2)
    assert loaded.event is not None
    assert loaded.event.data == payload
    assert loaded.outcomes[0].output == payload


HOSTILE = {
    "quotes": 'it\'s "quoted" `so` $$tag$$ ; -- \\',
    "unicode": "žluťoučký 🦄 \u202egnp.exe e\u0301 中文",
    "controls": "\x01\x1b[0m\t\r\n\x7f",
    "sql": "'); drop table runs; --",
    "placeholders": "$1 %s ? :name {0} %(x)s",
    "braces": '{"a",NULL,"b"}',
    "null": "NULL",
    "blanks": "  ",
    "high plane": "\U0010ffff\uffff",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_text_comes_back_as_it_was_in_keys_and_values(opened: OpenStore, text: str) -> None:
    store = opened.store
    its_run = run(app=text, metadata=text.encode(), failure=text.encode())
    its_wait = wait(text, target=text, match_key=text, condition=text)
    await put(
        store, runs=[its_run], events=[event(name=text, sender_id=text)], waits=[its_wait], outcomes=[outcome(text)]
    )
    await put(store, dedups=[dedup(text, text)], settings=[SettingRow(text, text)])
    loaded = await state(store)
    assert (loaded.run, loaded.waits, loaded.outcomes) == (its_run, (its_wait,), (outcome(text),))
    assert (await store.match(ENV, [Probe(text, (text,))])).waits == (its_wait,)
    assert await dedups(opened) == {text: text}
    assert await store.setting(text) == text
    assert [row.name for row in await store.list_events(ENV, text.removesuffix("*"), None, None, "", 9)] == [text]
    assert await say(store, decider=outcome(text)) == Verdict.APPLIED


async def test_text_of_a_megabyte_that_is_no_key_comes_back_as_it_was(store: FullStore) -> None:
    long = "é" * (MIB // 2)
    await put(store, runs=[run()], waits=[wait(condition=long)], settings=[SettingRow("long", long)])
    assert (await state(store)).waits[0].condition == long
    assert await store.setting("long") == long


async def test_keys_as_long_as_the_limits_allow_are_kept(opened: OpenStore) -> None:
    store = opened.store
    key, name = "k" * 128, "n" * 256
    await put(store, runs=[run(function_id=name)], events=[event(name=name)], waits=[wait(key, target=name)])
    await put(store, outcomes=[outcome(key)], dedups=[dedup(f"e:{name}", "evt_1")])
    assert await keys(store) == [key]
    assert await dedups(opened) == {f"e:{name}": "evt_1"}


UNSTORABLE: dict[str, dict[str, Any]] = {
    "a NUL in an event's name": {"events": [event(9, name="a\0b")]},
    "a NUL in a key": {"outcomes": [outcome("a\0b")]},
    "a NUL in a wait": {"waits": [wait("new", condition="\0")]},
    "a NUL in a decider": {"decider": dedup("r:\0")},
    "a NUL in a fence": {"fences": (fence()._replace(session_id="\0"),)},
    "a NUL in a session's name": {"shapes": [shape("\0")]},
    "half a surrogate pair": {"events": [event(9, sender_id="\ud800")]},
    "a number of more than 64 bits": {"runs": [run(9, created_ms=1 << 63)]},
}


@pytest.mark.parametrize("bad", UNSTORABLE.values(), ids=UNSTORABLE)
async def test_what_no_store_can_take_is_refused_alone(opened: OpenStore, bad: dict[str, Any]) -> None:
    store = opened.store
    await put(store, runs=[run(1), run(2)])
    answers = await store.commit(
        [commit(decider=move(1)), commit(**{"settings": [SettingRow("bad", "x")], **bad}), commit(decider=move(2))]
    )
    assert [answer.verdict for answer in answers] == [Verdict.APPLIED, Verdict.REFUSED, Verdict.APPLIED]
    assert answers[1].existing != ""
    assert [(await run_row(store, n)).turn for n in (1, 2)] == [1, 1]
    assert await store.setting("bad") is None


async def test_several_bad_commits_are_refused_and_every_other_is_applied(opened: OpenStore) -> None:
    store = opened.store
    bad = {3, 4, 17, 40}
    batch = [
        commit(decider=dedup(f"r:{n}", "v"), runs=[run(n, app="\0" if n in bad else "shop")]) for n in range(1, 51)
    ]
    answers = await verdicts(store, *batch)
    assert {n for n, verdict in enumerate(answers, 1) if verdict == Verdict.REFUSED} == bad
    assert {n for n, verdict in enumerate(answers, 1) if verdict == Verdict.APPLIED} == set(range(1, 51)) - bad
    assert len(await store.load(ENV, [run_id(n) for n in range(1, 51)])) == 46
    assert len(await dedups(opened)) == 46


async def test_a_batch_of_one_bad_commit_is_refused(store: FullStore) -> None:
    assert (await result(store, commit(events=[event(name="\0")]))).verdict == Verdict.REFUSED
    assert await say(store, events=[event()]) == Verdict.APPLIED


async def test_bytes_may_hold_anything(store: FullStore) -> None:
    await put(store, runs=[run(input=b"\0\xff", failure=b"\0")], outcomes=[outcome(output=b"\0", input_hash=b"\0\xfe")])
    loaded = await state(store)
    assert (loaded.run, loaded.outcomes) == (
        run(input=b"\0\xff", failure=b"\0"),
        (outcome(output=b"\0", input_hash=b"\0\xfe"),),
    )


async def test_every_read_sees_a_commit_that_was_answered(store: FullStore) -> None:
    for n in range(1, 31):
        await put(
            store, events=[event(n)], runs=[run(n)], waits=[wait(n=n, match_key=f"k{n}")], shapes=[shape(f"p{n}")]
        )
        assert (await run_row(store, n)) == run(n)
        found = await store.match(ENV, [Probe(BOOKED, (f"k{n}",))])
        assert len(found.waits) == 1
        assert found.registry_version == (await store.registry(ENV)).version
        assert len((await store.registry(ENV)).shapes) == n
        assert [row.id for row in await store.list_events(ENV, "", None, None, "", 1)] == [event_id(n)]
