"""How long an attempt may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

# A download may take longer than an ordinary request, and than a slice, as long as it moves.
DOWNLOAD_SECONDS = 600.0


@dataclass(frozen=True)
class TimeLimit:
    """How long an attempt may take: each silence, and the whole; in seconds.

    With `must_move` it ends when too little comes in; as long as it moves it may outlast its slice.
    """

    silence: float
    whole: float
    must_move: bool = False

    @classmethod
    def total(cls, seconds: float) -> Self:
        """For all of it."""
        return cls(seconds, seconds)

    @classmethod
    def per_silence(cls, seconds: float) -> Self:
        """For each silence of a download."""
        return cls(seconds, DOWNLOAD_SECONDS, must_move=True)
