"""A database that takes no writes: what this process has seen of it, and whether that is to be told from memory."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

# A restart is over sooner: seconds.
TOLD_AFTER = 60.0


@dataclass(frozen=True)
class State:
    """Since when nothing could be written, by the clock of this process, and why."""

    since: float
    message: str


class Outage:
    """Shared by who runs into it and who tells of it. It is told of once, and once more when it is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: State | None = None
        self._is_told = False

    def note(self, message: str) -> None:
        """Something could not be written."""
        with self._lock:
            since = self._state.since if self._state else time.monotonic()
            self._state = State(since, message)

    def end(self) -> None:
        """Something was written."""
        with self._lock:
            self._state = None

    def to_tell(self) -> str | None:
        """What is to be told of by now, None if nothing is. Who asks tells it."""
        with self._lock:
            if self._state is None or time.monotonic() - self._state.since < TOLD_AFTER:
                return None
            self._is_told = True
            return self._state.message

    def adopt(self) -> None:
        """Another process has told of one, which may be over."""
        with self._lock:
            self._is_told = True

    @property
    def is_over(self) -> bool:
        """Whether what was told of has ended, and nobody has told that."""
        with self._lock:
            return self._is_told and self._state is None

    def forget(self) -> None:
        """Its end is told."""
        with self._lock:
            self._is_told = False
