"""Whether a run that has read all of its source met as many records as it should: as declared, or as others before."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from etl.declare.expect import rows_of

# Sizes of runs that are remembered, and how many there must be to tell what is usual.
REMEMBERED = 10
TELLING = 5
# What is usual lies between these shares of the smallest and the largest of them.
LEAST_SHARE, MOST_SHARE = 0.5, 2.0


class Size(StrEnum):
    """What is odd about the size of a run."""

    EMPTY = "empty"
    ODD = "odd_size"


@dataclass(frozen=True)
class Band:
    """How many records are expected; without an end any number above, or below."""

    least: float | None = None
    most: float | None = None

    @classmethod
    def declared(cls, text: str) -> Band:
        """As a source declares it."""
        return cls(*rows_of(text))

    @classmethod
    def usual(cls, sizes: list[int]) -> Band | None:
        """What is usual after these sizes, None where they do not tell."""
        if len(sizes) < TELLING:
            return None
        return cls(min(sizes) * LEAST_SHARE, max(sizes) * MOST_SHARE)

    def __contains__(self, size: int) -> bool:
        """Whether so many are expected."""
        return (self.least is None or size >= self.least) and (self.most is None or size <= self.most)

    def __str__(self) -> str:
        """As it is declared."""
        ends = ("" if end is None else f"{end:g}" for end in (self.least, self.most))
        return "..".join(ends)


def judge(size: int, band: Band | None, sizes: list[int]) -> Size | None:
    """What is odd about a run of this size, None if nothing.

    Without a declared range an empty one is odd as soon as another was not.
    """
    if not size:
        expected = 0 not in band if band else any(sizes)
        return Size.EMPTY if expected else None
    return Size.ODD if band is not None and size not in band else None
