"""The logger "stepwell", and a filter that names the run and the step in every record."""

from __future__ import annotations

import logging

from stepwell.context import run_id_var, step_var


class ContextFilter(logging.Filter):
    """Adds `run_id` and `step_key` to records; empty outside runs. Attach it to a handler to use both in its format."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record."""
        if not hasattr(record, "run_id"):
            step = step_var.get()
            record.run_id = run_id_var.get() if step is None else step.run_id
            record.step_key = "" if step is None else step.key
        return True


log = logging.getLogger("stepwell")
log.addFilter(ContextFilter())
