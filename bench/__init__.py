"""Benchmarks: the engine beside a toy that never changes."""
