"""The log of effects: one line for each body that begins; appended at once, so that a kill loses none."""

from __future__ import annotations

import os
import socket
import uuid

from stepwell import current_step


def effect() -> str:
    """Notes run, key, attempt and a token of this execution; returns the token."""
    step, token = current_step(), uuid.uuid4().hex
    line = f"{step.run_id}\t{step.key}\t{step.attempt}\t{token}\n"
    handle = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)
    return token


def instance() -> str:
    """The name that the test waits for."""
    return f"{os.environ.get('WORKER_INSTANCE', socket.gethostname())}:{os.getpid()}"
