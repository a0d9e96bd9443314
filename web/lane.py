"""A lane for questions that may be slow: it holds few of the threads and connections, so that the others go on."""

from __future__ import annotations

from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from etl.errors import TooSlowError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta


class Lane:
    """So many may work at a time, and so many wait for them; who waits longer than `patience` is turned away."""

    def __init__(self, at_work: int, waiting: int, patience: timedelta) -> None:
        self._inside = BoundedSemaphore(at_work + waiting)
        self._at_work = BoundedSemaphore(at_work)
        self._seconds = patience.total_seconds()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Wait for a turn, and have it.

        Raises:
            TooSlowError: too many wait already, or none of those at work ended in time.
        """
        with _held(self._inside, 0), _held(self._at_work, self._seconds):
            yield


@contextmanager
def _held(places: BoundedSemaphore, seconds: float) -> Iterator[None]:
    if not places.acquire(timeout=seconds):
        raise TooSlowError("as many slow questions as may be are at work; ask again later")
    try:
        yield
    finally:
        places.release()
