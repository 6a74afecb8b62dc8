"""A run pulled from a server, and stepped through with today's code: nothing is executed, and what differs is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.conftest import APPS
from tests.support.servers import Server, ended, environment, running

CODE = """
from pathlib import Path
from stepwell import App, Event, Retry, Step

app = App("history")


def touch(*_):
    Path(__file__).with_suffix(".executed").touch()


@app.function(on="tour/begun")
async def tour(step: Step, event: Event[dict]) -> list:
    first = await step.run(touch, event.data["n"], name="first")
    await step.sleep("1ms", name="nap")
    found = await step.wait_for_event("tour/never", timeout="1ms")
    sent = await step.send_event("tour/sent", {"n": first})
    try:
        await step.run(touch, name="broken")
    except Exception as error:
        last = str(error)
    return [first, found, last]


if __name__ == "__main__":
    raise SystemExit("it was run as a program")
"""
END, NAP, WAIT = "    return [first", 'step.sleep("1ms", name="nap")', '"tour/never"'
CHANGED: list[tuple[str, str, int, list[str]]] = [
    ("", "", 0, ['next: complete with [3,null,"broken: ValueError: amount 3"]', "recorded: completed"]),
    (END, f'    await step.run(touch, name="more")\n{END}', 0, ["next: run more (attempt 1)"]),
    (END, f'    await step.sleep("4d", name="rest")\n{END}', 0, ["next: sleep (rest)"]),
    (END, f'    await step.invoke("shop/x", 1)\n{END}', 0, ["next: invoke shop/x"]),
    (END, f'    raise KeyError("k")\n{END}', 0, ["next: fail with KeyError: 'k'"]),
    (
        NAP,
        'step.run(touch, name="nap")',
        1,
        ["step nap differs at app.py:15", "  the journal holds  sleep", "  the code asks for  run"],
    ),
    (
        WAIT,
        '"tour/other", name="tour/never"',
        1,
        [
            "step tour/never differs at app.py:16",
            "  the journal holds  wait for event tour/never",
            "  the code asks for  wait for event tour/other",
        ],
    ),
    (
        "    found =",
        '    return ["early"]\n    found =',
        0,
        ["step broken is in the journal, and the code did not ask for it", 'next: complete with ["early"]'],
    ),
]


class Tour(NamedTuple):
    """A run that has ended, and a command to look at it."""

    server: Server
    run_id: str

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stepwell", "runs", *map(str, arguments)]
        env = environment(STEPWELL_ADDRESS=self.server.address)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Generator[Tour]:
    folder = tmp_path_factory.mktemp("tour")
    server = Server(f"sqlite:///{folder}/stepwell.db", folder)
    with running(server, APPS / "history.py") as (client, _):
        event_id = client.send("tour/begun", {"n": 3, "email": "ada@example.com"})
        (run_id,) = client.get_event(event_id).run_ids
        ended(client, run_id)
        yield Tour(server, run_id)


@pytest.mark.parametrize(("old", "new", "code", "says"), CHANGED)
def test_a_run_is_stepped_through_with_todays_code(
    tour: Tour, tmp_path: Path, old: str, new: str, code: int, says: list[str]
) -> None:
    recording, app = tmp_path / "run.ndjson", tmp_path / "app.py"
    recording.write_text(tour.command("pull", tour.run_id).stdout)
    assert old in CODE
    app.write_text(CODE.replace(old, new, 1) if old else CODE)
    done = tour.command("step", recording, app)
    assert done.returncode == code, (done.stdout, done.stderr)
    lines = done.stdout.splitlines()
    assert lines[0] == "   1  first  run  3"
    assert [line for line in says if line not in lines] == []
    assert "Traceback" not in done.stderr
    assert not app.with_suffix(".executed").exists()


def test_a_run_without_a_change_shows_every_step(tour: Tour, tmp_path: Path) -> None:
    recording, app = tmp_path / "run.ndjson", tmp_path / "app.py"
    recording.write_text(tour.command("pull", tour.run_id).stdout)
    app.write_text(CODE)
    lines = tour.command("step", recording, app).stdout.splitlines()
    keys = [line[6:].split("  ")[0] for line in lines[:5]]
    assert keys == ["first", "nap", "tour/never", "send_event", "broken"]
    assert lines[4].endswith("run  failed: ValueError: amount 3")


def test_a_pulled_run_is_masked(tour: Tour) -> None:
    done = tour.command("pull", tour.run_id, "--redact", "data.email", "--redact", "output=drop", "--redact", "data.x")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [next(iter(line)) for line in lines] == ["run", "event", *["entry"] * 5]
    assert lines[1]["event"]["data"] == {"n": 3, "email": "***"}
    assert [line["entry"].get("output") for line in lines[2:]] == [None] * 5
    assert "output" not in lines[0]["run"]
    assert done.stderr == "--redact data.x: nothing stood there\n"


def test_an_invoked_run_is_pulled_with_its_input(tour: Tour, tmp_path: Path) -> None:
    client = tour.server.client()
    run_id = client.start("history/refuse", "key-7").run_id
    ended(client, run_id)
    recording = tmp_path / "run.ndjson"
    recording.write_text(tour.command("pull", run_id).stdout)
    done = tour.command("step", recording, APPS / "history.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["next: fail with KeyError: 'key-7'", "recorded: failed"]


BAD = [
    ("", CODE, 2, "it has no run"),
    ("{", CODE, 2, "line 1 is no line of a run"),
    ('{"nonsense":1}', CODE, 2, "line 1 is 'nonsense'"),
    ('{"run":{}}\n{"event":{}}', CODE, 2, "its run or event is no such thing"),
    ('{"entry":{"number":1,"key":7}}', CODE, 2, "line 1 is no line of a run"),
    (None, "app = 1", 3, "has no function history/tour; it has none"),
    (None, "1 / 0", 1, "cannot be imported: ZeroDivisionError"),
    (None, "def (", 1, "cannot be imported: SyntaxError"),
]


@pytest.mark.parametrize(("text", "code", "exit_code", "says"), BAD)
def test_what_cannot_be_stepped_through_says_why(
    tour: Tour, tmp_path: Path, text: str | None, code: str, exit_code: int, says: str
) -> None:
    recording, app = tmp_path / "run.ndjson", tmp_path / "app.py"
    recording.write_text(tour.command("pull", tour.run_id).stdout if text is None else text)
    app.write_text(code)
    done = tour.command("step", recording, app)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_there_is_not_cannot_be_pulled(tour: Tour, tmp_path: Path) -> None:
    done = tour.command("pull", "run_x")
    assert (done.returncode, done.stdout) == (3, "")
    assert tour.command("step", tmp_path / "none", tmp_path / "app.py").returncode == 2
