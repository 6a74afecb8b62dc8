"""The wheel in an empty environment, away from the checkout, does what the README shows first."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds nothing but the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    pip = [folder / "env" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    subprocess.run([*pip, f"{wheel}[server]"], check=True, cwd=folder)
    return folder / "env" / "bin"


@pytest.fixture
def environment(installed: Path) -> dict[str, str]:
    """Variables without a trace of the checkout; the server's address is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL", "STEPWELL"))}
    return {**kept, "STEPWELL_ADDRESS": address, "PATH": f"{installed}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def server(installed: Path, environment: dict[str, str], tmp_path: Path) -> Generator[Path]:
    """`stepwell dev hello.py` with the README's first sample; the value is its log."""
    (tmp_path / "hello.py").write_text(readme_sample())
    log = tmp_path / "log"
    command = [installed / "stepwell", "dev", "hello.py", "--listen", environment["STEPWELL_ADDRESS"]]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while "hello/hello" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    assert code == 0, log.read_text()


def readme_sample() -> str:
    """The first Python of the README."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found, "the README shows Python first"
    return found.group(1)


@pytest.mark.timeout(600)
def test_the_readmes_function_completes_from_the_wheel(
    installed: Path, environment: dict[str, str], server: Path, tmp_path: Path
) -> None:
    def stepwell(*arguments: str) -> str:
        command = [installed / "stepwell", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{server.read_text()}"
        return done.stdout

    event_id = stepwell("events", "send", "demo/hello", "-d", '{"name": "Ada"}').split()[0]
    run_id = ""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not run_id:
        assert time.monotonic() < deadline
        run_id = stepwell("runs", "list", "--event", event_id, "-o", "json").partition('"id":"')[2].partition('"')[0]
    assert stepwell("runs", "wait", run_id, "--timeout", "30s").strip() == '"Hello, Ada!"'
    shown = stepwell("runs", "get", run_id)
    assert "completed" in shown
    assert "greet" in shown
    assert str(ROOT) not in stepwell("version") + server.read_text()
