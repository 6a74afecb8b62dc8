"""Runs an app's file as `python APP.py` would, and leaves when the process that started it is gone.

stdin is a pipe that the parent never writes to: its end says that the parent has died, even by kill -9.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

DRAIN_S = 10.0


def _leave_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(DRAIN_S)
    os._exit(1)


def main() -> None:
    """Runs the file named by the first argument."""
    path = os.path.abspath(sys.argv[1])
    sys.argv[:] = [path, *sys.argv[2:]]
    sys.path[0] = os.path.dirname(path)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    main()
