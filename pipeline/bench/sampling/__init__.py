"""Counters of a run, read in short windows, and what disturbed the run meanwhile."""
