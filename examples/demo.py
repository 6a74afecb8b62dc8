"""The examples to their ends in seconds, with kill -9 of the server and of the worker in the middle, and the proof.

make demo
"""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from demo_stage import DemoError, Screen, Stage
from polyglot import build
from stepwell.values import RunStatus

HERE = Path(__file__).resolve().parent
CSV = HERE / "contacts" / "contacts.csv"
KILL_AT = 0.4
STEP_TIMEOUT_S = 30.0


def main() -> int:
    """Runs the demo; 0 if everything is as it must be."""
    screen, began = Screen(), time.monotonic()
    try:
        with Stage() as stage:
            polyglot = Polyglot(stage)
            stage.start_server()
            stage.start_worker("contacts", sys.executable, HERE / "contacts" / "app.py")
            stage.start_worker("signup", sys.executable, HERE / "signup" / "app.py")
            stage.connect()
            wait_for(stage, "both apps to register", lambda: registered(stage) >= 3)
            screen.said(f"server and two workers are up at {stage.address}")
            import_contacts(stage, screen)
            refuse_wrong_file(stage, screen)
            drip(stage, screen)
            polyglot.order(screen)
            screen.title("done")
            screen.said(f"everything is as it must be, after {time.monotonic() - began:.1f} s. Look further:")
            screen.plain(stage.where_to_look())
        return 0
    except DemoError as e:
        screen.wrong(str(e))
        return 1
    except KeyboardInterrupt:
        return 130


def import_contacts(stage: Stage, screen: Screen) -> None:
    """The import with both processes killed in the middle; afterwards every valid contact is there exactly once."""
    wanted = valid_emails(CSV.read_bytes())
    screen.title(f"1  import {len(wanted):,} valid contacts out of {CSV.name}, and pull the plug in the middle")
    event_id = stage.client.send("api/contact_list.uploaded", {"path": str(CSV)})
    (run_id,) = runs_of(stage, event_id, 1)
    with screen.progress("contacts created", len(wanted)) as show:
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while (count := len(stored(stage, event_id))) < KILL_AT * len(wanted):
            show(count)
            pause(stage, "the import to get going", deadline)
        screen.said(f"kill -9 of server (pid {stage.kill('server')}) and worker (pid {stage.kill('contacts')})")
        at_kill = len(stored(stage, event_id))
        show(at_kill)
        screen.said(f"nothing runs any more; {at_kill:,} contacts are in the example's database")
        stage.start_server()
        stage.start_worker("contacts", sys.executable, HERE / "contacts" / "app.py")
        stage.connect()
        screen.said("both are started again; the run goes on where its journal ends")
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while not stage.client.get_run(run_id).status.ended:
            show(len(stored(stage, event_id)))
            pause(stage, "the import to complete", deadline)
        show(len(stored(stage, event_id)))
    ended(stage, run_id)
    found = stored(stage, event_id)
    screen.plain(stage.cli("runs", "get", run_id))
    check(
        screen,
        f"{len(found):,} rows in the database are {len(set(found)):,} different people",
        len(found) == len(set(found)),
    )
    check(
        screen,
        f"they are exactly the {len(wanted):,} of an independent count of the CSV",
        sorted(found) == sorted(wanted),
    )
    retried = [
        entry for entry in stage.client.journal(run_id) if entry.key.startswith("enrich 1001-") and entry.attempt == 3
    ]
    check(screen, "the chunk whose address service was down twice went through at its third attempt", bool(retried))
    notes = query(stage, "SELECT message FROM notifications WHERE upload = ?", event_id)
    check(screen, f"one notification: {'; '.join(notes)}", len(notes) == 1)
    check(screen, f"the kill was in the middle: {at_kill:,} of {len(wanted):,}", 0 < at_kill < len(wanted))


def refuse_wrong_file(stage: Stage, screen: Screen) -> None:
    """A file that holds no contacts: its sender is told, and nothing else happens."""
    wrong = stage.folder / "holidays.csv"
    wrong.write_text("day,where\n2026-08-01,Lisbon\n")
    event_id = stage.client.send("api/contact_list.uploaded", {"path": str(wrong)})
    (run_id,) = runs_of(stage, event_id, 1)
    ended(stage, run_id)
    notes = query(stage, "SELECT message FROM notifications WHERE upload = ?", event_id)
    check(screen, f"a wrong file: {'; '.join(notes)}", len(notes) == 1 and not stored(stage, event_id))


def drip(stage: Stage, screen: Screen) -> None:
    """One event starts two functions; the drip waits four days, for one user in vain."""
    screen.title("2  two users sign up; one books, the other lets four days go by")
    runs: dict[str, dict[str, str]] = {}
    for number, name in ((1, "ada"), (2, "bob")):
        event_id = stage.client.send("user/signed.up", {"user_id": number, "email": f"{name}@example.com"})
        runs[name] = {stage.client.get_run(run_id).function_id: run_id for run_id in runs_of(stage, event_id, 2)}
    for name in runs:
        ended(stage, runs[name]["signup/join_mailing_list"])
    check(screen, "each sign-up started the mailing list and the drip", all(len(found) == 2 for found in runs.values()))
    ada, bob = (runs[name]["signup/drip"] for name in ("ada", "bob"))
    for run_id in (ada, bob):
        wait_for(stage, "the drip to wait", lambda run_id=run_id: awaited_event(stage, run_id) == "booking/created")
    stage.client.send("booking/created", {"user_id": 1, "room": "Seaview"})
    ended(stage, ada)
    check(screen, f"ada: {output(stage, ada)}", output(stage, ada) == "booked Seaview")
    check(screen, "bob's drip still waits", awaited_event(stage, bob) == "booking/created")
    screen.said(f"stepwell clock advance 4d: {stage.cli('clock', 'advance', '4d').strip()}")
    ended(stage, bob)
    check(screen, f"bob: {output(stage, bob)}", output(stage, bob) == "reminded")
    screen.plain(stage.cli("runs", "get", bob))


class Polyglot:
    """The example in three languages. Those that must be built are built meanwhile."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._missing = build.missing()
        self._pool = ThreadPoolExecutor(1)
        self._built = None if self._missing else self._pool.submit(build.build, stage.folder)

    def order(self, screen: Screen) -> None:
        """Two orders from Python over Go to TypeScript and back; Go declines the second."""
        stage = self._stage
        screen.title("3  an order in Python reserves in Go, which asks TypeScript, which ships")
        if self._built is None:
            for why in self._missing:
                screen.said(why)
            if os.environ.get("CI") == "true":
                raise DemoError("on CI nothing is left out")
            return
        before = registered(stage)
        for name, command in self._built.result().items():
            stage.start_worker(name, *command)
        wait_for(stage, "the three languages to register", lambda: registered(stage) == before + 4)
        runs: list[str] = []
        for number, pieces in ((1, 2), (2, 11)):
            placed = {"order": number, "item": "lamp", "pieces": pieces}
            runs += runs_of(stage, stage.client.send("order/placed", placed), 1)
        for run_id in runs:
            ended(stage, run_id)
        screen.plain(stage.cli("runs", "get", runs[0]))
        said = [output(stage, run_id) for run_id in runs]
        check(screen, f"two lamps: {said[0]}", said[0] == "3200 cents, sent with a bicycle as bicycle-1-32")
        declined = "declined: there are no 11 of lamp"
        check(screen, f"eleven: an error of Go, caught in Python: {said[1]}", said[1] == declined)


def valid_emails(content: bytes) -> set[str]:
    """The people in the file, counted without the example's code: all bytes as Latin-1, first of each address."""
    rows = csv.reader(io.StringIO(content.decode("latin-1"), newline=""))
    next(rows)
    pairs = [(row[0].strip(), row[1].strip().lower()) for row in rows if len(row) > 1]
    return {email for name, email in pairs if name and re.fullmatch(r"[^@\s]+@[^@\s]+\.[a-z]+", email)}


def stored(stage: Stage, upload: str) -> list[str]:
    """E-mail addresses that the upload has put into the example's database."""
    return query(stage, "SELECT email FROM contacts WHERE upload = ?", upload)


def query(stage: Stage, sql: str, *values: str) -> list[str]:
    """The first column of what the example's database answers."""
    if not stage.contacts_db.exists():
        return []
    with closing(sqlite3.connect(stage.contacts_db, timeout=10)) as db:
        try:
            return [row[0] for row in db.execute(sql, values)]
        except sqlite3.OperationalError:  # Its tables are not made yet.
            return []


def runs_of(stage: Stage, event_id: str, count: int) -> Sequence[str]:
    """The runs that an event started, once all are there."""
    found: list[str] = []

    def there() -> bool:
        found[:] = [run.id for run in stage.client.list_runs(event_id=event_id)]
        return len(found) == count

    wait_for(stage, f"{count} runs of {event_id}", there)
    return found


def ended(stage: Stage, run_id: str) -> None:
    """Waits for the end of a run, which must be a good one."""
    wait_for(stage, f"the end of {run_id}", lambda: stage.client.get_run(run_id).status.ended)
    run = stage.client.get_run(run_id)
    if run.status is not RunStatus.COMPLETED:
        raise DemoError(f"{run.function_id} {run_id} is {run.status.value}: {run.failure}")


def output(stage: Stage, run_id: str) -> str:
    """What a run returned."""
    return stage.client.get_run(run_id).output


def awaited_event(stage: Stage, run_id: str) -> str:
    """The event that a run waits for; empty if it waits for none."""
    return next((item.event for item in stage.client.get_run(run_id).waiting_for if item.event), "")


def registered(stage: Stage) -> int:
    """Functions that a connected worker serves."""
    return sum(function.workers > 0 for function in stage.client.functions())


def wait_for(stage: Stage, what: str, there: Callable[[], bool]) -> None:
    """Polls until it is so."""
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while not there():
        pause(stage, what, deadline)


def pause(stage: Stage, what: str, deadline: float) -> None:
    """A moment; raises DemoError if a process is gone or the time is over."""
    stage.check_processes()
    if time.monotonic() > deadline:
        raise DemoError(f"waited {STEP_TIMEOUT_S:g} s in vain for {what}\n{stage.log_tails()}")
    time.sleep(0.03)


def check(screen: Screen, claim: str, true: bool) -> None:
    """A claim with its verdict; a false one ends the demo."""
    if not true:
        raise DemoError(f"not so: {claim}")
    screen.proved(claim)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that what was started is stopped then, too.
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as e:
        print(f"{e}\n{e.stdout}{e.stderr}", file=sys.stderr)
        sys.exit(1)
