"""How fast: each benchmark runs its reference in the same run, and what counts is the ratio."""
