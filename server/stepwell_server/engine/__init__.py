"""Use cases: decisions as values, one file each."""
