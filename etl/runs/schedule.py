"""When sources are due: pure arithmetic on slots.

Interval slots lie on the grid counted from the UTC epoch, so every process computes the same ones. Cron slots are
wall-clock times of the schedule's zone: an hour that repeats in autumn runs once, a time that does not exist in spring
runs at the next valid minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec
from cronsim import CronSim

from etl.declare.duration import duration
from etl.declare.model import zone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.declare.source import Schedule

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# How many missed cron slots are counted one by one; beyond that the count is a floor.
MAX_COUNTED = 10_000
# Slots that are searched for one outside of the quiet hours.
MAX_LOOKED_AT = 2_000


class QuietHours(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a source asks not to be polled: hours (0 to 23, UTC), days (0 is Monday), and more often than the interval.

    The interval is in seconds.
    """

    hours: list[int] = []
    days: list[int] = []
    interval: float = 0.0

    def covers(self, now: datetime) -> bool:
        """True at a quiet hour."""
        moment = now.astimezone(UTC)
        return moment.hour in self.hours or moment.weekday() in self.days


def may_be_quiet(schedule: Schedule, quiet: QuietHours, now: datetime) -> bool:
    """True when a slot can be left out, because one within a week lies outside of the quiet hours."""
    if not quiet.covers(now):
        return False
    slot = now
    for _ in range(MAX_LOOKED_AT):
        slot = next_slot(schedule, slot)
        if slot > now + timedelta(days=7):
            return False
        if not quiet.covers(slot):
            return True
    return False


@dataclass(frozen=True)
class Due:
    """The newest slot that is due, how many older ones were missed, and when the next one comes."""

    slot: datetime
    missed: int
    following: datetime


class NotNow(StrEnum):
    """Why a slot that is due is left out."""

    SET_ASIDE = "set_aside"
    ASKED_TO_WAIT = "asked_to_wait"
    QUIET_HOUR = "quiet_hour"


@dataclass(frozen=True)
class Wishes:
    """Until when a source is not to be asked, whether because it is set aside, and its quiet hours."""

    not_before: datetime | None = None
    is_set_aside: bool = False
    quiet: QuietHours | None = None


@dataclass(frozen=True)
class SlotDecision:
    """A due slot: when its run goes out, None for now, or why it is left out; and when the next slot comes."""

    slot: datetime
    missed: int
    following: datetime
    dispatch_at: datetime | None
    left_out: NotNow | None


def decide(schedule: Schedule, name: str, first: datetime, now: datetime, wishes: Wishes) -> SlotDecision:
    """What to do about the slots of a source from `first`, which is due, until `now`."""
    found = due(schedule, first, now)
    dispatch_at = found.slot + delay(schedule, name, found.slot)
    return SlotDecision(
        slot=found.slot,
        missed=found.missed,
        following=found.following,
        dispatch_at=dispatch_at if dispatch_at > now else None,
        left_out=_left_out(schedule, found.slot, now, wishes),
    )


def _left_out(schedule: Schedule, slot: datetime, now: datetime, wishes: Wishes) -> NotNow | None:
    if wishes.not_before is not None and wishes.not_before > max(slot, now):
        return NotNow.SET_ASIDE if wishes.is_set_aside else NotNow.ASKED_TO_WAIT
    return NotNow.QUIET_HOUR if wishes.quiet and may_be_quiet(schedule, wishes.quiet, now) else None


def next_slot(schedule: Schedule, after: datetime) -> datetime:
    """The first slot strictly after a moment."""
    if schedule.every is not None:
        every = duration(schedule.every)
        return EPOCH + ((after - EPOCH) // every + 1) * every
    return next(_cron_slots(schedule, after))


def due(schedule: Schedule, first: datetime, now: datetime) -> Due:
    """What to do about slots from `first`, which is due, until `now`."""
    if schedule.every is not None:
        every = duration(schedule.every)
        slot = EPOCH + (now - EPOCH) // every * every
        return Due(max(slot, first), max(0, -((first - slot) // every)), next_slot(schedule, now))
    slot, missed = first, 0
    for following in _cron_slots(schedule, first):
        if following > now:
            return Due(slot, missed, following)
        if missed >= MAX_COUNTED:
            break
        slot, missed = following, missed + 1
    return Due(slot, missed, next_slot(schedule, now))


def delay(schedule: Schedule, name: str, slot: datetime) -> timedelta:
    """How long the dispatch of a slot waits: spread evenly over the jitter, the same for whoever computes it."""
    seed = blake2b(f"{name} {slot.isoformat()}".encode(), digest_size=8).digest()
    return duration(schedule.jitter) * (int.from_bytes(seed) / 2**64)


def _cron_slots(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """The cron's slots after a moment, in UTC, strictly increasing."""
    assert schedule.cron is not None
    last = after
    for slot in _local_slots(schedule, after):
        if slot > last:
            yield slot
            last = slot


def _local_slots(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Walk naive wall-clock time, so that the zone's own jumps are ours to decide."""
    here = zone(schedule.timezone)
    assert schedule.cron is not None
    # One hour early, because a clock set back shows the same hour twice.
    start = after.astimezone(here).replace(tzinfo=None) - timedelta(hours=3)
    for wall in CronSim(schedule.cron, start):
        # fold=0: of a time that occurs twice, the first. A time that does not exist maps through UTC to one that does.
        moment = wall.replace(tzinfo=here, fold=0).astimezone(UTC)
        yield moment if moment.astimezone(here).replace(tzinfo=None) == wall else _after_gap(wall, moment, schedule)


def _after_gap(wall: datetime, moment: datetime, schedule: Schedule) -> datetime:
    """The first valid minute after a wall-clock time that the zone skips."""
    here = zone(schedule.timezone)
    # With fold=1 the offset after the jump applies: the gap ends where that offset first shows a valid time.
    jump = wall.replace(tzinfo=here, fold=0).utcoffset()
    after = wall.replace(tzinfo=here, fold=1).utcoffset()
    assert jump is not None
    assert after is not None
    low, high = moment - abs(after - jump), moment
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (
            (low, middle) if middle.astimezone(here).utcoffset() != low.astimezone(here).utcoffset() else (middle, high)
        )
    return high.replace(microsecond=0, second=0) + (timedelta(minutes=1) if high.second else timedelta())
