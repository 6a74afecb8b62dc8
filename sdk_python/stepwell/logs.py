"""The logger "stepwell", and a filter that names the run and the step in every record."""

from __future__ import annotations

import logging

from stepwell.context import key_var, run_id_var


class ContextFilter(logging.Filter):
    """Adds `run_id` and `step_key` to records; empty outside runs. Attach it to a handler to use both in its format."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record."""
        if not hasattr(record, "run_id"):
            record.run_id = run_id_var.get()
            record.step_key = key_var.get()
        return True


log = logging.getLogger("stepwell")
log.addFilter(ContextFilter())
