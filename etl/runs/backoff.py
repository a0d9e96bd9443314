"""How long to wait before trying again."""

from __future__ import annotations

# Doubling stops here: seconds.
LONGEST_BACKOFF = 300.0


def wait_before(attempt: int, spread: float) -> float:
    """Seconds before the try that follows `attempt` failed ones: 1, 2, 4, 8, …, less up to a half by `spread` (0..1).

    The spread keeps many callers from coming back at the same moment.
    """
    whole = min(2.0 ** min(max(attempt - 1, 0), 30), LONGEST_BACKOFF)
    return whole * (1 - spread / 2)
