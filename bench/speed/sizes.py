"""How much of everything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Rows of the file, of the largest file, entries of the feed, items and sources to read, runs, rounds, seconds.

    And the items of the matrix, of whose lines each so-manieth is asked.
    """

    rows: int
    large: int
    entries: int
    items: int
    sources: int
    tiny: int
    rounds: int
    seconds: float
    skewed: int = 2_000_000
    nth: int = 1


QUICK = Sizes(
    rows=50_000,
    large=250_000,
    entries=2_000,
    items=100_000,
    sources=1_000,
    tiny=100,
    rounds=1,
    seconds=4,
    skewed=20_000,
    nth=20,
)
PAIRS = Sizes(
    rows=200_000, large=250_000, entries=10_000, items=1_000_000, sources=1_000, tiny=300, rounds=1, seconds=5
)
FULL = Sizes(
    rows=500_000, large=5_000_000, entries=10_000, items=5_000_000, sources=10_000, tiny=1_000, rounds=3, seconds=15
)
