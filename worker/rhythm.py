"""What is done now and then."""

from __future__ import annotations

import time


class Rhythm:
    """When something was done last."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def is_due(self, what: str, every: float) -> bool:
        """Whether it was not for so many seconds; then it counts as done now."""
        now = time.monotonic()
        if now - self._last.get(what, -every) < every:
            return False
        self._last[what] = now
        return True
