"""Packing decisions into frames."""

from __future__ import annotations

from stepwell.frames import FRAME_BYTES, FRAME_ITEMS, HELLO_RESIDENTS, Introduction, hello_frames, pack
from stepwell.v1 import common_pb2, step_pb2


def result(run_id: str, data: bytes = b"1") -> step_pb2.StepResult:
    return step_pb2.StepResult(run_id=run_id, turn=1, key="a", number=1, output=common_pb2.Payload(data=data))


def park(run_id: str) -> step_pb2.Park:
    return step_pb2.Park(run_id=run_id, turn=1)


def test_many_decisions_share_frames_of_at_most_128_commands() -> None:
    frames = list(pack([(f"run_{n}", (result(f"run_{n}"),)) for n in range(300)], 7))
    assert [len(frame.commands.results) for frame in frames] == [FRAME_ITEMS, FRAME_ITEMS, 44]
    assert {frame.commands.epoch for frame in frames} == {7}


def test_a_decision_is_never_split() -> None:
    big = ("run_1", tuple(result("run_1") for _ in range(200)))
    frames = list(pack([("run_0", (result("run_0"),)), big], 1))
    assert [len(frame.commands.results) for frame in frames] == [1, 200]


def test_a_large_result_travels_alone() -> None:
    decisions = [
        ("run_0", (result("run_0"),)),
        ("run_1", (result("run_1", b"x" * FRAME_BYTES),)),
        ("run_2", (result("run_2"),)),
    ]
    assert [frame.commands.results[0].run_id for frame in pack(decisions, 1)] == ["run_0", "run_1", "run_2"]


def test_what_follows_a_park_of_the_same_run_has_another_frame() -> None:
    decisions = [
        ("run_1", (park("run_1"),)),
        ("run_2", (park("run_2"),)),
        ("run_1", (result("run_1"),)),
    ]
    first, second = pack(decisions, 1)
    assert [one.run_id for one in first.commands.parks] == ["run_1", "run_2"]
    assert [one.run_id for one in second.commands.results] == ["run_1"]


def test_nothing_makes_no_frame() -> None:
    assert list(pack([], 1)) == []


def test_a_hello_with_many_residents_spans_frames_and_only_the_last_ends_it() -> None:
    worker = Introduction("", "app", "d1", "here", "0", ())
    residents = [step_pb2.Resident(run_id=f"run_{n}", turn=1) for n in range(2 * HELLO_RESIDENTS + 1)]
    frames = [frame.hello for frame in hello_frames(worker, "ses_1", 500, residents)]
    assert [len(frame.residents) for frame in frames] == [1000, 1000, 1]
    assert [frame.more for frame in frames] == [True, True, False]
    assert [frame.app for frame in frames] == ["app", "", ""]
    (alone,) = hello_frames(worker, "", 500, ())
    assert not alone.hello.more
