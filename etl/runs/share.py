"""One source never costs another: how long a slow one may hold a process, how many, and when it is set aside.

A source is slow while nobody has seen it answer, after it did not in time, and after worker processes died of it.
Slices of slow sources hold at most a share of the processes; all others are found free by the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

# The first answer ever must begin within this: seconds. Each miss gives the next attempt four times as long.
FIRST_ANSWER = 1.0
# The answer of a source that is not slow: seconds.
QUICK_ANSWER = 5.0
# A body that comes in more slowly than this, over a whole window, holds its process too long: bytes a second, seconds.
LEAST_RATE = 50_000
RATE_WINDOW = 10.0
# The window of a source that was never seen to answer: seconds.
FIRST_WINDOW = 3.0
# In the queue for the share each miss costs a run this long, up to so many: seconds.
MISS_COSTS = 300
MOST_MISSES = 12
# Where there is one process only, it is given back to the others after this: seconds.
ALONE_SECONDS = 5.0
# Deaths of worker processes after which a source is set aside, for how long at first and at most: seconds.
MAX_DEATHS = 3
FIRST_SET_ASIDE = 3600.0
LONGEST_SET_ASIDE = 86_400.0
# The code of what is said of it meanwhile.
SET_ASIDE = "set_aside"


def slow_processes(processes: int) -> int:
    """How many of the processes slow sources may hold: half, never the last one, but one where there is no other."""
    return max(1, processes // 2)


@dataclass(frozen=True)
class Pace:
    """How patient an attempt may be.

    `answered` says that the source was seen to answer, `misses` how often it has not done so in time since, `slow` that
    its slices count among those of slow sources, `alone` that there is one process for all.
    """

    answered: bool = True
    misses: int = 0
    slow: bool = False
    alone: bool = False

    def answer_within(self, timeout: float) -> float:
        """Seconds until an answer must begin, of an attempt that may take `timeout`."""
        patience = (QUICK_ANSWER if self.answered else FIRST_ANSWER) * 4.0 ** min(self.misses, 10)
        return min(patience, self.attempt_within(timeout))

    def attempt_within(self, timeout: float) -> float:
        """Seconds for a whole attempt."""
        return min(timeout, ALONE_SECONDS) if self.slow and self.alone else timeout

    @property
    def must_move(self) -> bool:
        """Whether a body that comes in too slowly ends the attempt; one that is known for it may use its timeout."""
        return not self.slow or (not self.answered and not self.misses)

    @property
    def rate_window(self) -> float:
        """Seconds over which a body's rate is judged."""
        return RATE_WINDOW if self.answered or self.misses else FIRST_WINDOW

    def slice_seconds(self, most: float) -> float:
        """How long a slice may last."""
        return min(most, ALONE_SECONDS) if self.slow and self.alone else most


def set_aside_message(name: str, until: datetime) -> str:
    """What is said of a source that is not to run, and what ends that."""
    end = f"until {until:%FT%TZ}, or `python -m worker resume {name}`"
    return f"worker processes died of the source {name!r}; it is set aside {end}"


def set_aside_for(deaths: int) -> float | None:
    """Seconds that a source is left alone after so many deaths in a row, None if it goes on."""
    if deaths < MAX_DEATHS:
        return None
    return float(min(FIRST_SET_ASIDE * 2.0 ** min(deaths - MAX_DEATHS, 10), LONGEST_SET_ASIDE))
