"""Values: rows, the state chart of a run, commits, limits, errors. Imports nothing of ours."""
