"""Runs the tasks of a zoo: planning, workers, the log of a run, its status."""
