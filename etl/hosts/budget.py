"""How often a host may be asked: decisions about one host's budget, shared by all sources on it.

Two things limit it: a pause that the host itself asked for, and the rate that its sources declare.
"""

from __future__ import annotations

import msgspec

# A declared rate is remembered this long after it was last used: seconds.
RATE_KEPT = 3600.0


class Budget(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known about a host. Times are epoch seconds of whoever keeps the budget.

    `interval` is the time between two requests by the strictest declared rate; `next_at` when the next may go out.
    """

    paused_until: float = 0.0
    reason: str = ""
    interval: float = 0.0
    interval_until: float = 0.0
    next_at: float = 0.0


def spend(budget: Budget, now: float, interval: float) -> tuple[Budget, float]:
    """Take one request out of the budget, or learn how many seconds it has to wait.

    Args:
        budget: the host's.
        now: epoch seconds.
        interval: the seconds between requests that the caller's source declares, 0 for none.
    """
    strictest = max(interval, budget.interval if now < budget.interval_until else 0.0)
    ready = max(budget.paused_until, budget.next_at if strictest else 0.0)
    if now < ready:
        return budget, ready - now
    if not strictest:
        return budget, 0.0
    kept = now + RATE_KEPT if interval >= strictest else budget.interval_until
    spent = msgspec.structs.replace(budget, interval=strictest, interval_until=kept, next_at=now + strictest)
    return spent, 0.0


def pause(budget: Budget, now: float, seconds: float, reason: str) -> Budget:
    """The host asked for a pause; a longer one that is on already stays."""
    until = now + seconds
    if until <= budget.paused_until:
        return budget
    return msgspec.structs.replace(budget, paused_until=until, reason=reason)
