"""What a source's server asks of whoever polls it, and what is to be remembered of that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etl.http.address import same_origin
from etl.http.freshness import clamp
from etl.runs.schedule import QuietHours

if TYPE_CHECKING:
    from datetime import datetime

    from etl.http.target import PreparedRequest

# Why a source is not asked for now, as it is kept: its last answer is still fresh.
FRESH = "fresh"
# A permanent redirect is believed once this many runs in a row have met it.
MOVED_AFTER = 5


@dataclass(frozen=True)
class ServerHints:
    """What the source's server asked for earlier: where it has moved to, how often it said so, and all else.

    `noted` says that anything at all is on record, a time to wait until included.
    """

    moved_to: str | None = None
    moved_count: int = 0
    quiet: QuietHours | None = None
    noted: bool = False

    @property
    def new_address(self) -> str | None:
        """Where the source has moved to for good."""
        return self.moved_to if self.moved_count >= MOVED_AFTER else None


@dataclass(frozen=True)
class Heard:
    """What the answers of one slice said: for how many seconds they stay fresh, where they came from, quiet hours."""

    fresh: float
    moved_to: str | None
    quiet: QuietHours | None = None

    def and_then(self, fresh: float, moved_to: str | None) -> Heard:
        """With another answer. Of several the one that goes stale first counts."""
        return replace(self, fresh=min(self.fresh, fresh), moved_to=moved_to or self.moved_to)


@dataclass(frozen=True)
class PollResult:
    """What the answers of one run said.

    `fresh` is for how many seconds they stay fresh, counted from `asked_at` (the run's slot, or None for now), so that
    a server that says "half an hour" is asked every half hour. `moved_to` is where permanent redirects led;
    `moved_count` how many runs in a row they did.
    """

    fresh: float
    asked_at: datetime | None
    quiet: QuietHours | None
    moved_to: str | None
    moved_count: int


def poll_result(
    heard: Heard, before: ServerHints, asked_at: datetime | None, *, honour_cache: bool
) -> PollResult | None:
    """What there is to be noted at the end of a run, None when the server has no wishes, and had none."""
    moved_to, count = _moved(heard.moved_to, before)
    quiet = (heard.quiet or before.quiet) if honour_cache else None
    fresh = clamp(max(heard.fresh, quiet.interval if quiet else 0.0) if honour_cache else 0.0)
    quiet = None if quiet == QuietHours() else quiet
    if not (before.noted or fresh or quiet or moved_to):
        return None
    return PollResult(fresh, asked_at, quiet, moved_to, count)


def _moved(moved_to: str | None, before: ServerHints) -> tuple[str | None, int]:
    if moved_to is None:
        # Asked at the new address, there is no redirect to be met.
        return (before.moved_to, before.moved_count) if before.new_address else (None, 0)
    return moved_to, before.moved_count + 1 if before.moved_to == moved_to else 1


def settled_target(target: PreparedRequest | None, hints: ServerHints) -> PreparedRequest | None:
    """The request at the address the source has moved to for good; secrets stay with their origin."""
    address = hints.new_address
    if target is None or address is None:
        return target
    if target.has_secrets and not same_origin(address, target.url):
        return target
    return target.at(address)
