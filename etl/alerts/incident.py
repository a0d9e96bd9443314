"""When people are told of a cause: at first, when it is over, when it grows, now and then, and once when it flaps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from etl.alerts.cause import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from etl.alerts.cause import Cause, Member

# A cause that came and went within this time, and comes again, flaps; it is told of again when it was steady so long.
WINDOW = timedelta(hours=3)
STEADY = timedelta(hours=1)
# One that affects this many times more than it was told of is told of again, but not before this time.
GROWTH = 1.5
GROWN_AFTER = timedelta(hours=1)
MOST_NAMES = 100


class Event(StrEnum):
    """What a message says."""

    FIRING = "firing"
    RECOVERED = "recovered"
    GROWN = "grown"
    REMINDER = "reminder"
    FLAPPING = "flapping"
    TEST = "test"


class Delivery(StrEnum):
    """How far a message is on its way to an address."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"


class Told(StrEnum):
    """What people believe of a cause."""

    NOTHING = "nothing"
    FIRING = "firing"
    FLAPPING = "flapping"


@dataclass(frozen=True)
class Incident:
    """What is known of a cause, and what was told of it.

    `told_times` are when it was told that it stands, flaps or is over, within the last hours; `told_members` is how
    many it was said to affect, and `audiences` are theirs. `affected` is how many sources it affected at most, and
    `names` are they, as far as 100.
    """

    cause: Cause
    changed_at: datetime
    stands: bool = False
    told: Told = Told.NOTHING
    told_at: datetime | None = None
    told_members: int = 0
    told_times: tuple[datetime, ...] = ()
    incident_id: UUID | None = None
    affected: int = 0
    names: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()

    def noticed(self, due: Sequence[Member], now: datetime) -> Incident:
        """What is known after a look, at which it affects these."""
        seen = self if bool(due) == self.stands else replace(self, stands=bool(due), changed_at=now)
        if due and not self.stands and self.told is not Told.FLAPPING:
            # Also where nobody wanted to hear of the end of an earlier one: this is another.
            seen = replace(seen, told=Told.NOTHING, affected=0, names=())
        names = [member.source for member in due if member.source]
        if len(names) <= seen.affected:
            return seen
        return replace(seen, affected=len(names), names=tuple(names[:MOST_NAMES]))

    def after(self, event: Event, loud: Sequence[Member], now: datetime, new_id: UUID) -> Incident:
        """What is known once this was told."""
        told = {Event.RECOVERED: Told.NOTHING, Event.FLAPPING: Told.FLAPPING}.get(event, Told.FIRING)
        begins = self.told is Told.NOTHING
        times = tuple(time for time in self.told_times if now - time < WINDOW)
        # That something flaps no more is the end of many turns.
        turns = 0 if event in {Event.GROWN, Event.REMINDER} else 2 if self.told is Told.FLAPPING else 1
        return replace(
            self,
            told=told,
            told_at=now,
            told_members=sources(loud),
            told_times=times + (now,) * turns,
            incident_id=new_id if begins else self.incident_id,
            audiences=tuple(sorted(audiences(loud) | set(() if begins else self.audiences))),
        )

    def untold_audiences(self, loud: Sequence[Member]) -> set[str]:
        """Who was not told of it and hears of those whom it affects, if they are not told already."""
        return audiences(loud).difference(self.audiences) if self.told is Told.FIRING else set()

    def is_over(self, now: datetime) -> bool:
        """Whether nothing is to be remembered of it."""
        return not self.stands and self.told is Told.NOTHING and now - self.changed_at >= WINDOW


def audiences(members: Sequence[Member]) -> set[str]:
    """Who hears of these: as the sources do, or of what is no source as of the service."""
    return {member.audience for member in members if member.source} or ({""} if members else set())


def sources(members: Sequence[Member]) -> int:
    """How many of them are sources, and no part of the service."""
    return sum(member.source is not None for member in members)


def next_event(
    incident: Incident, due: Sequence[Member], loud: Sequence[Member], now: datetime, reminded: timedelta
) -> Event | None:
    """What is to be told of a cause now, None if nothing is.

    `due` are all whom it affects long enough; `loud` those of them that are neither muted nor explained by another
    cause. What stands unchanged is told of again after `reminded`.
    """
    match incident.told:
        case Told.NOTHING:
            return _first(incident, loud, now)
        case Told.FLAPPING if now - incident.changed_at < STEADY:
            return None
        case _ if not due:
            return Event.RECOVERED
        case Told.FLAPPING:
            return Event.FIRING if loud else None
        case Told.FIRING:
            return _again(incident, loud, now, reminded)


def _first(incident: Incident, loud: Sequence[Member], now: datetime) -> Event | None:
    if not loud:
        return None
    lately = [time for time in incident.told_times if now - time < WINDOW]
    return Event.FLAPPING if len(lately) > 1 else Event.FIRING


def _again(incident: Incident, loud: Sequence[Member], now: datetime, reminded: timedelta) -> Event | None:
    if not loud or incident.told_at is None:
        return None
    silence = now - incident.told_at
    # Of a host that is down ever more sources fail, as their turn comes.
    is_grown = (
        incident.cause.kind is not Kind.HOST
        and sources(loud) > incident.told_members
        and sources(loud) >= GROWTH * incident.told_members
    )
    if silence >= GROWN_AFTER and is_grown:
        return Event.GROWN
    return Event.REMINDER if silence >= reminded else None
