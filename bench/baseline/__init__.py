"""The baseline: the hot path of the design without an engine."""
