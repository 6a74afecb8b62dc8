"""The core where transcripts cannot reach: threads, types, contexts, unwinding, repeatable order."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Any

import pytest
import stepwell
from stepwell import App, Event, Interrupted, OutsideStepError, Step, StepError, SyncStep, UsageError
from stepwell.canonical import input_hash
from stepwell.context import Body
from stepwell.core import State
from stepwell.reentry import Reentry
from stepwell.v1 import step_pb2


def new_run(function: Any, **assign: Any) -> Reentry:
    message = step_pb2.Assign(run_id="run_1", turn=1, created_ms=1000, **assign)
    if not message.HasField("event"):
        message.event.name = "test/start"
        message.event.data.data = b'{"n":1}'
    return Reentry(function, message, step_pb2.Limits())


def drive(core: Reentry, bodies: Callable[[Body], Any] | None = None) -> Any:
    """Starts a run and executes its bodies at once until it ends; its last command, or its output if it completed."""
    core.start()
    last: Any = None
    while True:
        while core.commands:
            last = core.commands.pop(0)
            core.ack(getattr(last, "number", 0))
        if not core.bodies:
            break
        body = core.bodies.pop(0)
        try:
            value = bodies(body) if bodies else body.fn(*body.args, **body.kwargs)
            if asyncio.iscoroutine(value):
                value = asyncio.new_event_loop().run_until_complete(value)
        except Exception as error:
            core.finish(body.key, body.attempt, error=error)
        else:
            core.finish(body.key, body.attempt, value=value)
    return last


@dataclass
class Quote:
    price: int


def get_quote(sku: str) -> Quote:
    return Quote(len(sku))


async def get_stock(sku: str, *, extra: int) -> tuple[int, int]:
    return len(sku), extra


def test_results_come_back_typed() -> None:
    app = App("test")
    seen: list[Any] = []

    @app.function()
    async def code(step: Step) -> Quote:
        seen.append(await step.run(get_quote, "abc"))
        seen.extend(await asyncio.gather(step.run(get_stock, "ab", extra=5), step.run(dict, a=1, name="d")))
        seen.append(await step.run(lambda: {"price": 3}, name="typed", returns=Quote))
        return Quote(1)

    assert drive(new_run(code)).output.data == b'{"price":1}'
    assert seen == [Quote(3), (2, 5), {"a": 1}, Quote(3)]


def test_a_synchronous_function() -> None:
    app = App("test")
    threads: set[str] = set()

    @app.function()
    def code(step: SyncStep, event: Event[dict[str, int]]) -> list[Any]:
        threads.add(threading.current_thread().name)
        quote = step.run(get_quote, "abc")
        try:
            step.run(int, "x", name="fails", retries=0)
        except StepError as error:
            return [quote.price, error.type, event.data["n"]]
        return []

    core = new_run(code)
    last = drive(core)
    assert isinstance(last, step_pb2.Park)
    failed = step_pb2.Outcome(key="fails", kind=step_pb2.STEP_KIND_RUN, attempt=1)
    failed.failure.type = "ValueError"
    core.resolve(failed)
    assert core.state is State.ENDED
    assert core.commands[-1].output.data == b'[3,"ValueError",1]'
    assert threads == {"stepwell-function"}


@pytest.mark.parametrize("end", ["cancel", "evict"])
def test_a_synchronous_function_unwinds_and_its_thread_ends(end: str) -> None:
    app = App("test")
    seen: list[str] = []
    threads: list[threading.Thread] = []

    @app.function()
    def code(step: SyncStep) -> None:
        threads.append(threading.current_thread())
        try:
            step.sleep("1d")
        except Exception:  # the end is not to be swallowed
            seen.append("swallowed")
        finally:
            seen.append("unwound")
            step.run(get_quote, "clean")
            seen.append("cleaned")

    core = new_run(code)
    core.start()
    core.commands.clear()
    getattr(core, end)()
    if end == "cancel":
        core.ack(1)
        core.finish(core.bodies[0].key, 1, value=Quote(1))
        assert isinstance(core.commands[-1], step_pb2.Cancelled)
        assert seen == ["unwound", "cleaned"]
    else:
        assert (core.commands, core.bodies) == ([], [])
        assert seen == ["unwound"]
    threads[0].join(5)
    assert not threads[0].is_alive()


def test_code_that_catches_everything_cannot_hold_up_an_eviction() -> None:
    app = App("test")

    @app.function()
    async def code(step: Step) -> None:
        while True:
            try:
                await step.sleep("1d")
            except BaseException:
                continue

    core = new_run(code)
    core.start()
    core.evict()
    assert core.state is State.FENCED
    assert core.commands == []


def test_code_that_never_waits_is_stopped() -> None:
    app = App("test")

    @app.function()
    async def code(step: Step) -> None:
        while True:  # noqa: ASYNC110 - the mistake under test
            await asyncio.sleep(0)

    core = new_run(code)
    core.start()
    assert core.commands[-1].failure.type == "LimitError"


def test_steps_belong_to_the_functions_own_code() -> None:
    app = App("test")

    @app.function()
    async def code(step: Step) -> Any:
        async def nested() -> None:
            await step.sleep(1)

        return await step.run(nested)

    core = new_run(code)
    core.start()
    with pytest.raises(OutsideStepError, match=r"step\.sleep"):
        asyncio.run(core.bodies[0].fn())


@pytest.mark.parametrize("blocking", [False, True])
def test_events_that_are_none_are_no_step(blocking: bool) -> None:
    app = App("test")

    @app.function()
    async def code(step: Step) -> list[str]:
        return await step.send_events([])

    @app.function()
    def plain(step: SyncStep) -> list[str]:
        return step.send_events([])

    end = drive(new_run(plain if blocking else code))
    assert (end.number, end.output.data) == (1, b"[]")


def test_wrong_calls_are_named() -> None:
    app = App("test")
    said: list[str] = []

    @app.function()
    async def code(step: Step) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: step.sleep("4x"),
            lambda: step.run(lambda: 1),
            lambda: step.run(5),  # type: ignore[arg-type]
            lambda: step.run(get_quote, "a", retries=-1),
            lambda: step.run(get_quote, "a", timeout="x"),
            lambda: step.wait_for_event("a/*"),
            lambda: step.wait_for_event("stepwell/a"),
            lambda: step.wait_for_event("a", timeout="400d"),
            lambda: step.send_event("a", [1]),
            lambda: step.sleep_until(1e18),
            lambda: step.sleep_until("2030-01-01"),  # pyright: ignore[reportArgumentType]
            lambda: step.sleep_until(float("nan")),
            lambda: step.sleep_until(time.time() + 367 * 86_400),
            lambda: step.run(get_quote, "a", name="$timer"),
            lambda: step.sleep(1, name="$run"),
        ]
        for call in calls:
            with pytest.raises(UsageError) as caught:
                call()
            said.append(str(caught.value))

    drive(new_run(code))
    words = [
        "4x",
        "name=",
        "5",
        "get_quote, retries",
        "get_quote, timeout",
        "wildcard",
        "reach no wait",
        "366",
        "object",
        "step sleep_until, instant: 1e+18",
        "'2030-01-01'",
        "nan",
        "more than 366 days ahead",
        "'$timer'",
        "begins with '$'",
    ]
    assert len(said) == len(words)
    assert all(word in text for word, text in zip(words, said, strict=True))


def test_an_awaited_event_is_whole() -> None:
    app = App("test")
    seen: list[Any] = []

    @app.function()
    async def code(step: Step) -> None:
        seen.append(await step.wait_for_event("a"))
        seen.append(await step.wait_for_event("b"))

    core = new_run(code)
    drive(core)
    told = {"id": "evt_1", "name": "a", "data": {"n": 1}, "time_ms": 1000, "metadata": {"k": "v"}, "sender_id": "mine"}
    for key, fields in (("a", told), ("b", {"id": "evt_2", "name": "b", "data": {}, "time_ms": 1000})):
        outcome = step_pb2.Outcome(key=key, kind=step_pb2.STEP_KIND_EVENT, attempt=1)
        outcome.output.data = json.dumps(fields).encode()
        core.resolve(outcome)
    assert [(one.data, one.metadata, one.sender_id) for one in seen] == [({"n": 1}, {"k": "v"}, "mine"), ({}, {}, "")]


def test_a_time_out_of_nothing_is_not_the_longest() -> None:
    app = App("test")

    @app.function()
    async def code(step: Step) -> None:
        await asyncio.gather(
            step.wait_for_event("a", timeout=0), step.wait_for_event("b"), step.invoke("test/c", timeout=0),
            step.run(get_quote, "d", name="d", timeout=0), step.run(get_quote, "e", name="e"),
        )  # fmt: skip

    core = new_run(code)
    core.start()
    sent = {command.key: command.timeout_ms for command in core.commands if hasattr(command, "timeout_ms")}
    assert sent == {"a": 1, "b": 366 * 86_400_000, "test/c": 1}
    assert {body.key: body.timeout_ms for body in core.bodies} == {"d": 1, "e": 0}


def test_time_ids_and_random_numbers_are_the_same_in_replay() -> None:
    app = App("test")
    seen: list[Any] = []

    @app.function()
    async def code(step: Step) -> None:
        seen.append((step.now(), step.uuid(), step.random().random(), step.run_id))

    drive(new_run(code))
    drive(new_run(code))
    assert seen[0] == seen[1]
    assert seen[0][1].version == 4


def test_strict_mode_hashes_positional_arguments_then_those_with_names() -> None:
    app = App("test")

    @app.function(strict=True)
    async def code(step: Step) -> None:
        await step.run(get_stock, "abc", extra=3)

    core = new_run(code)
    core.start()
    core.finish("get_stock", 1, value=(3, 3))
    assert core.commands[0].input_hash == input_hash(["abc", {"extra": 3}], "what get_stock is given")


def test_a_run_has_a_context_of_its_own() -> None:
    app = App("test")
    var: ContextVar[str] = ContextVar("var", default="none")
    var.set("outside")
    seen: list[str] = []

    @app.function()
    async def code(step: Step) -> None:
        seen.append(var.get())
        var.set("inside")
        await step.run(get_quote, "a")
        seen.append(var.get())

    drive(new_run(code))
    assert (seen, var.get()) == (["none", "inside"], "outside")


async def test_the_core_runs_inside_another_loop() -> None:
    app = App("test")

    @app.function()
    async def code(step: Step) -> int:
        async with asyncio.timeout(5):
            return (await step.run(get_quote, "abc")).price

    core = new_run(code)
    core.start()
    core.finish("get_quote", 1, value=Quote(4))
    assert core.commands[-1].output.data == b"4"
    assert asyncio.current_task() is not None
    await asyncio.sleep(0)


def test_asyncio_works_in_functions() -> None:
    app = App("test")

    @app.function()
    async def code(step: Step) -> list[Any]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        lock, event = asyncio.Lock(), asyncio.Event()

        async def produce(n: int) -> None:
            async with lock:
                await queue.put((await step.run(get_quote, "x" * n)).price)
            event.set()

        async with asyncio.TaskGroup() as group:
            for n in (3, 1, 2):
                group.create_task(produce(n))
            await event.wait()
        order = [queue.get_nowait() for _ in range(3)]
        done = [await f for f in asyncio.as_completed([step.run(get_quote, "ab"), step.run(get_quote, "a")])]
        return [order, sorted(q.price for q in done)]

    assert drive(new_run(code)).output.data == b"[[3,1,2],[1,2]]"


def test_an_unawaited_failure_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = App("test")

    @app.function()
    async def code(step: Step) -> str:
        _ = step.run(get_quote, "a", name="forgotten")
        await step.run(get_quote, "b")
        return "end"

    core = new_run(code)
    core.start()
    failed = step_pb2.Outcome(key="forgotten", kind=step_pb2.STEP_KIND_RUN)
    failed.failure.type = "ValueError"
    with caplog.at_level(logging.WARNING, "stepwell"):
        core.resolve(failed)
        core.finish("get_quote", 1, value=Quote(1))
    assert core.state is State.ENDED


def test_bodies_know_themselves() -> None:
    app = App("test")

    @app.function()
    async def code(step: Step) -> str:
        def body() -> list[Any]:
            step = stepwell.current_step()
            step.check()
            step.cancelled = True
            with pytest.raises(Interrupted):
                step.check()
            return [step.run_id, step.key, step.attempt, step.token]

        return str(await step.run(body))

    def execute(body: Body) -> Any:
        body.enter()
        return body.fn()

    output = drive(new_run(code), execute).output.data.decode()
    assert "'run_1', 'body', 1" in output
    with pytest.raises(UsageError):
        Context().run(stepwell.current_step)


ORDER = """
import asyncio, sys
from tests.unit.sdk.test_reentry import new_run, drive, get_quote
from stepwell import App
app = App("test")
@app.function()
async def code(step):
    seen = []
    async def branch(n):
        try:
            await step.run(get_quote, "x", name=f"b{n}")
        except asyncio.CancelledError:
            seen.append(n)
            raise
    try:
        async with asyncio.TaskGroup() as group:
            for n in range(200):
                group.create_task(branch(n))
            await asyncio.sleep(0)
            raise ValueError
    except* ValueError:
        pass
    done, _ = await asyncio.wait({step.run(get_quote, "y", name=f"w{n}") for n in range(50)})
    return [seen, [task.result()["price"] for task in done]]
counter = iter(range(1000))
print(drive(new_run(code), lambda body: {"price": next(counter)}).output.data)
"""


def test_order_does_not_depend_on_addresses_or_hash_seeds() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", ORDER.replace('step.run(get_quote, "y"', 'step.run(get_quote, "y", returns=dict')],
            check=True, capture_output=True, env={"PYTHONPATH": ":".join([*sys.path, "."]), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(outputs) == 1


def test_h2_code_gets_what_its_result_is_once_it_was_written_down() -> None:
    """Live as after a crash: what JSON cannot tell apart comes back as the same."""
    app, seen = App("test"), list[Any]()

    def made() -> Any:
        return {"pair": (1, 2), 3: "three"}

    @app.function
    async def function(step: Step) -> None:
        seen.append(await step.run(made))

    drive(new_run(app.functions["function"]))
    assert seen == [{"pair": [1, 2], "3": "three"}]
    assert type(seen[0]["pair"]) is list


@pytest.mark.parametrize("call", ["run", "sleep", "send_event", "invoke"])
def test_h3_a_step_call_in_code_that_unwinds_after_an_eviction_raises_and_sends_nothing(call: str) -> None:
    app, raised = App("test"), list[str]()
    arguments: dict[str, tuple[Any, ...]] = {
        "run": (print,), "sleep": (1,), "send_event": ("a/b", {}), "invoke": ("other/f", None),
    }  # fmt: skip

    @app.function
    async def function(step: Step) -> None:
        try:
            await step.sleep(3600, name="long")
        finally:
            try:
                await getattr(step, call)(*arguments[call])
            except BaseException as error:
                raised.append(type(error).__name__)
                raise

    core = new_run(app.functions["function"])
    core.start()
    core.commands.clear()
    core.evict()
    assert raised == ["Fenced"]
    assert core.commands == []
    assert core.bodies == []


def test_tasks_and_groups_take_what_a_step_call_answers() -> None:
    app = App("test")

    @app.function()
    async def code(step: Step) -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step.run(len, "x" * n, name=f"n{n}")) for n in (1, 2)]
        alone = asyncio.create_task(step.run(len, "xxx", name="n3"))
        return [*(task.result() for task in tasks), await alone]

    last = drive(new_run(code))
    assert json.loads(last.output.data) == [1, 2, 3]


def test_an_interrupt_in_the_code_fails_the_run_and_not_the_worker() -> None:
    app = App("test")

    @app.function(retries=0)
    async def code(step: Step) -> None:
        await step.run(len, "x", name="first")
        raise KeyboardInterrupt

    assert drive(new_run(code)).failure.type == "KeyboardInterrupt"
