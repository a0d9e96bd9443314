"""What two versions came to that were measured in turns: the ratio within each pair, and how these are spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# By the name of a measure, its unit in it: the more the better.
Figures = dict[str, float]
Measure = Callable[[], Figures]


@dataclass(frozen=True)
class Comparison:
    """One measure: the old version's figure and the new one's of each pair, and the least ratio that will do."""

    name: str
    pairs: Sequence[tuple[float, float]]
    least: float

    @property
    def ratios(self) -> list[float]:
        """New to old, ascending."""
        return sorted(new / old for old, new in self.pairs)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Of the ratios; the second is their median."""
        if len(self.pairs) == 1:
            return (self.ratios[0],) * 3
        first, median, third = statistics.quantiles(self.ratios, method="inclusive")
        return first, median, third

    @property
    def met(self) -> bool:
        """Whether the new version is fast enough."""
        return self.quartiles[1] >= self.least

    def line(self) -> str:
        old, new = (statistics.median(each) for each in zip(*self.pairs, strict=True))
        first, median, third = self.quartiles
        spread = f"{self.ratios[0]:6.2f} {first:6.2f} {third:6.2f} {self.ratios[-1]:6.2f}"
        verdict = "" if self.met else "MISSED"
        return f"{self.name:34} {old:11,.1f} {new:11,.1f} {median:6.3f} {spread}  >= {self.least} {verdict}".rstrip()


HEAD = f"{'measure':34} {'old':>11} {'new':>11} {'ratio':>6} {'min':>6} {'25 %':>6} {'75 %':>6} {'max':>6}  aim"


def in_turns(old: Measure, new: Measure, count: int) -> list[tuple[Figures, Figures]]:
    """Measure old and new, new and old, and so on; pairs of old and new."""
    found = []
    for number in range(count):
        if number % 2:
            later, earlier = new(), old()
        else:
            earlier, later = old(), new()
        found.append((earlier, later))
    return found
