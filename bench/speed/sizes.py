"""How much of everything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Rows of the file, of the largest file, entries of the feed, items and sources to read, runs, rounds, seconds."""

    rows: int
    large: int
    entries: int
    items: int
    sources: int
    tiny: int
    rounds: int
    seconds: float


QUICK = Sizes(rows=50_000, large=250_000, entries=2_000, items=100_000, sources=1_000, tiny=100, rounds=1, seconds=4)
PAIRS = Sizes(
    rows=200_000, large=250_000, entries=10_000, items=1_000_000, sources=1_000, tiny=300, rounds=1, seconds=5
)
FULL = Sizes(
    rows=500_000, large=5_000_000, entries=10_000, items=5_000_000, sources=10_000, tiny=1_000, rounds=3, seconds=15
)
