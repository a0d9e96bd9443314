"""Decisions about runs: when one is due, how a slice ends, what has changed, what a run leaves behind."""
