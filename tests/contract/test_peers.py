"""What carries notes between nodes, by each adapter: they arrive, in lists or alone, and trouble never blocks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from stepwell_server.adapters.memory.peers import MemoryPeers, Switchboard
from stepwell_server.adapters.redis.link import check
from stepwell_server.adapters.redis.peers import RedisPeers, unpack
from stepwell_server.model.errors import InvalidError, ServerError, StateError, UnavailableError
from stepwell_server.model.notes import Adopted, Came, Changed, Note, Ready, Room
from stepwell_server.ports.peers import EVERYBODY, Peers

from tests.support.redis import RedisServer, wheel_server

SOON_S = 10.0


@dataclass
class Node:
    """Who listens, and what it heard."""

    peers: Peers
    heard: list[tuple[str, Note]] = field(default_factory=list[tuple[str, Note]])

    async def until(self, fits: Callable[[list[tuple[str, Note]]], bool]) -> None:
        async with asyncio.timeout(SOON_S):
            while not fits(self.heard):  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def joined(self, cluster: str, name: str) -> Node:
        await self.peers.start(cluster, name, lambda other, note: self.heard.append((other, note)))
        return self


@pytest_asyncio.fixture(params=["memory", "redis"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes of one cluster."""
    with contextlib.ExitStack() as stack:
        if request.param == "memory":
            board = Switchboard()
            nodes = [Node(MemoryPeers(board)) for _ in range(2)]
        else:
            server = stack.enter_context(RedisServer(tmp_path))
            nodes = [Node(RedisPeers(server.url)) for _ in range(2)]
        one, two = [await node.joined("cluster", name) for node, name in zip(nodes, ("one", "two"), strict=True)]
        yield one, two
        for node in nodes:
            await node.peers.stop()
            await node.peers.stop()


async def test_a_note_reaches_the_node_it_is_told_to_and_nobody_else(pair: tuple[Node, Node]) -> None:
    one, two = pair
    one.peers.tell("two", Came("prod", "run_1", "charge"))
    one.peers.tell("one", Changed("run_2"))
    await two.until(bool)
    await one.until(bool)
    assert two.heard == [("one", Came("prod", "run_1", "charge"))]
    assert one.heard == [("one", Changed("run_2"))]


async def test_a_note_to_everybody_reaches_all_and_oneself(pair: tuple[Node, Node]) -> None:
    one, two = pair
    two.peers.tell(EVERYBODY, Adopted("ses_1", 7))
    for node in pair:
        await node.until(bool)
        assert node.heard == [("two", Adopted("ses_1", 7))]
    assert one.peers.trouble == two.peers.trouble == ""


async def test_many_notes_of_one_turn_all_arrive(pair: tuple[Node, Node]) -> None:
    one, two = pair
    told = [Ready("prod", f"app/f{n}", n % 2 == 0) for n in range(3_000)]
    for note in told:
        one.peers.tell("two", note)
    await two.until(lambda heard: len(heard) == len(told))
    assert [note for _, note in two.heard] == told


async def test_a_note_to_a_node_that_there_is_not_is_lost(pair: tuple[Node, Node]) -> None:
    one, two = pair
    one.peers.tell("three", Changed("run_1"))
    one.peers.tell("two", Changed("run_2"))
    await two.until(bool)
    assert two.heard == [("one", Changed("run_2"))]


# -- Redis alone -------------------------------------------------------------------------------------------------------


async def test_two_clusters_on_one_redis_do_not_hear_each_other(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        one = await Node(RedisPeers(server.url)).joined("here", "a")
        two = await Node(RedisPeers(server.url)).joined("there", "b")
        one.peers.tell(EVERYBODY, Changed("run_1"))
        await one.until(bool)
        two.peers.tell(EVERYBODY, Changed("run_2"))
        await two.until(bool)
        assert (one.heard, two.heard) == ([("a", Changed("run_1"))], [("b", Changed("run_2"))])
        await one.peers.stop()
        await two.peers.stop()


@pytest.mark.parametrize("harm", ["kill", "freeze", "drop"])
async def test_h30_trouble_is_told_blocks_nothing_and_passes(tmp_path: Path, harm: str) -> None:
    with RedisServer(tmp_path) as server:
        node = await Node(RedisPeers(server.url)).joined("cluster", "a")
        heal = {"kill": server.start, "freeze": lambda: server.signal(signal.SIGCONT), "drop": lambda: None}[harm]
        begin = {"kill": server.kill, "freeze": lambda: server.signal(signal.SIGSTOP), "drop": server.drop_connections}
        begin[harm]()
        for n in range(50_000):
            node.peers.tell(EVERYBODY, Changed(f"run_{n}"))
        if harm != "drop":
            async with asyncio.timeout(SOON_S):
                while not node.peers.trouble:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        heal()
        async with asyncio.timeout(SOON_S):
            while ("a", Changed("after")) not in node.heard:
                node.peers.tell(EVERYBODY, Changed("after"))
                await asyncio.sleep(0.05)
        assert node.peers.trouble == ""
        await node.peers.stop()


def test_what_another_version_says_is_left_out() -> None:
    packed = b'["b",[["Changed","run_1"],["Sings","la"],["Changed"],[],["Ready","e","f",true]]]'
    assert unpack(packed) == [("b", Changed("run_1")), ("b", Ready("e", "f", True))]
    assert [unpack(bad) for bad in (b"", b"{}", b"3", b'["a"]', b"\xff")] == [[], [], [], [], []]


def test_room_survives_the_wire() -> None:
    (one,) = unpack(b'["b",[["Room",[["prod","app",3]],true]]]')
    assert isinstance(one[1], Room)
    assert [tuple(place) for place in one[1].places] == [("prod", "app", 3)]


@pytest.mark.parametrize(
    ("url", "options", "error", "words"),
    [
        ("http://127.0.0.1:{port}", {}, InvalidError, "expected redis://"),
        ("redis://127.0.0.1:no", {}, InvalidError, "--redis"),
        ("redis://127.0.0.1:1", {}, UnavailableError, "cannot be reached"),
        ("redis://:wrong@127.0.0.1:{port}", {"requirepass": "right"}, StateError, "refuses the user or password"),
        ("redis://127.0.0.1:{port}", {"requirepass": "right"}, StateError, "refuses the user or password"),
        ("redis://127.0.0.1:{port}", {"maxmemory_policy": "allkeys-lru"}, StateError, "set it to noeviction"),
    ],
)
async def test_a_redis_that_will_not_do_is_refused_with_the_reason(
    tmp_path: Path, url: str, options: dict[str, str], error: type[ServerError], words: str
) -> None:
    with RedisServer(tmp_path, **options) as server:
        with pytest.raises(error, match=words) as raised:
            await check(url.format(port=server.port))
        assert "wrong" not in str(raised.value), "no password is shown"


async def test_a_redis_that_does_not_tell_its_policy_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path, user="default on nopass ~* &* +@all -config") as server:
        await check(server.url)
    assert "see that it is noeviction" in caplog.text


async def test_the_oldest_redis_will_do(tmp_path: Path) -> None:
    with RedisServer(tmp_path, program=wheel_server()) as server:
        await check(server.url)
        node = await Node(RedisPeers(server.url)).joined("cluster", "a")
        node.peers.tell(EVERYBODY, Changed("run_1"))
        await node.until(bool)
        await node.peers.stop()
