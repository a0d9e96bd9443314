"""Trials: a source read a little, without a run, and what would become of its records."""
