"""What a slice hears from the source on the way, and what becomes of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from db.queries.manners import Poll
from etl.http.address import same_origin
from etl.http.freshness import clamp
from etl.schedule import Rest

if TYPE_CHECKING:
    from collections.abc import Callable

    from db.queries.runs import RunClaim
    from etl.http.target import Target

# A permanent redirect is believed once this many runs in a row have met it.
MOVED_AFTER = 5
MAX_WARNINGS = 20
ALIVE_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Hearing:
    """Collects what the extractor reports."""

    def __init__(self, keep_alive: Callable[[], None], on_warning: Callable[[str, str], None]) -> None:
        """`keep_alive` renews the lease when it has to be."""
        self._keep_alive = keep_alive
        self._on_warning = on_warning
        self._warnings = 0
        self._checked = time.monotonic()
        self._fresh: float | None = None
        self._moved_to: str | None = None
        self._rest: Rest | None = None

    def warn(self, code: str, message: str) -> None:
        """Log it, and put it on the run's record; a flood of them is cut off."""
        log.warning("source_warning", code=code, message=message)
        self._warnings += 1
        if self._warnings <= MAX_WARNINGS:
            self._on_warning(code, message)

    def alive(self) -> None:
        """Now and then, renew the lease."""
        now = time.monotonic()
        if now - self._checked > ALIVE_SECONDS:
            self._checked = now
            self._keep_alive()

    def answered(self, fresh: float, moved_to: str | None) -> None:
        """Of several answers the one that goes stale first counts."""
        self._fresh = fresh if self._fresh is None else min(self._fresh, fresh)
        self._moved_to = moved_to or self._moved_to

    def rests(self, hours: list[int], days: list[int], interval: float) -> None:
        """Keep the times of rest."""
        self._rest = Rest(hours, days, interval)

    def poll(self, claim: RunClaim, *, honour_cache: bool) -> Poll | None:
        """What there is to be noted at the end of the run; None when this slice has asked nobody."""
        if self._fresh is None:
            return None
        moved_to, count = self._moved(claim)
        rest = (self._rest or claim.manners.rest) if honour_cache else None
        fresh = max(self._fresh, rest.interval if rest else 0.0) if honour_cache else 0.0
        return Poll(clamp(fresh), claim.scheduled_for, rest if rest != Rest() else None, moved_to, count)

    def _moved(self, claim: RunClaim) -> tuple[str | None, int]:
        before = claim.manners
        if self._moved_to is None:
            # Asked at the new address, there is no redirect to be met.
            return (before.moved_to, before.moved_count) if before.moved_count >= MOVED_AFTER else (None, 0)
        count = before.moved_count + 1 if before.moved_to == self._moved_to else 1
        return self._moved_to, count


def settled_target(target: Target | None, claim: RunClaim) -> Target | None:
    """The request at the address the source has moved to for good; secrets stay with their origin."""
    moved_to = claim.manners.moved_to
    if target is None or moved_to is None or claim.manners.moved_count < MOVED_AFTER:
        return target
    if target.has_secrets and not same_origin(moved_to, target.url):
        return target
    return target.at(moved_to)
