"""All causes that are known, and what follows from what is seen: whom they affect, and what is to be told."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from etl.alerts.cause import AT_ONCE, FOLLOWING, OF_RUNS, OF_SERVICE, TELLING, Cause, Kind, Member
from etl.alerts.incident import Event, Incident, audiences, next_event, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from etl.alerts.cause import Patience


# A clock that is set back by more is noticed, and times that lie ahead are moved with it.
UNNOTICED = timedelta(minutes=2)


@dataclass(frozen=True)
class Sighting:
    """What the end of a run says of its source: what it failed of, if it did, and what was odd about its size."""

    source: str
    seen_at: datetime
    failed_of: Cause | None = None
    message: str = ""
    size: Kind | None = None
    patience: Patience = AT_ONCE
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notice:
    """One thing to tell: of an incident as it is after the telling, and whom it affects.

    The audiences in `told` have heard of it already: it is for those alone who hear of others.
    """

    event: Event
    incident: Incident
    members: tuple[Member, ...]
    told: frozenset[str] | None = None


@dataclass(frozen=True)
class Mutes:
    """What people do not want to be told of just now."""

    all: bool = False
    causes: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()

    def covers(self, member: Member) -> bool:
        """Whether a message about this one is not wanted."""
        return self.covers_cause(member.cause) or member.source in self.sources or not self.tags.isdisjoint(member.tags)

    def covers_cause(self, cause: Cause) -> bool:
        """Whether no message about this cause is wanted, whomever it affects."""
        return self.all or cause.key in self.causes

    def covers_end(self, incident: Incident) -> bool:
        """Whether nobody wants to hear that it is over."""
        is_muted = bool(incident.names) and self.sources.issuperset(incident.names)
        heard = [self.tags.intersection(audience.split(",")) for audience in incident.audiences]
        is_muted |= bool(heard) and all(heard)
        return self.covers_cause(incident.cause) or is_muted


class Ledger:
    """The causes, whom each affects, and what was told of it."""

    def __init__(
        self,
        members: Iterable[Member],
        incidents: Iterable[Incident],
        mutes: Mutes,
        reminded: timedelta,
        new_id: Callable[[], UUID],
    ) -> None:
        """`new_id` names incidents; one that stands is told of again after `reminded`."""
        self._members: dict[Cause, dict[str, Member]] = defaultdict(dict)
        self._causes: dict[str, set[Cause]] = defaultdict(set)
        for member in members:
            self._put(member)
        self.incidents = {incident.cause: incident for incident in incidents}
        self._mutes = mutes
        self._reminded = reminded
        self._new_id = new_id

    @property
    def members(self) -> dict[tuple[Cause, str], Member]:
        """Whom each cause affects, by the cause and their name."""
        return {(cause, name): member for cause, named in self._members.items() for name, member in named.items()}

    def see_all(self, sightings: Sequence[Sighting]) -> list[Notice]:
        """Take in how runs ended, one after the other; what is to be told of it, as it is after the last of them."""
        if not sightings:
            return []
        touched, notices = set[Cause](), list[Notice]()
        now = self._not_before(sightings[0].seen_at)
        for sighting in sightings:
            now = max(now, sighting.seen_at)
            causes = self._see(sighting)
            touched |= causes
            turned = {cause for cause in causes if self._turns(cause, now)}
            notices += self._judge(turned, now)
        return self._settled(notices, now) + self._judge(touched, now)

    def see(self, sighting: Sighting) -> list[Notice]:
        """The same for one."""
        return self.see_all([sighting])

    def _see(self, sighting: Sighting) -> set[Cause]:
        """Whom causes affect after this; the causes that it touches."""
        known = {cause: self._members[cause][sighting.source] for cause in self._of_runs(sighting)}
        for member in known.values():
            self._drop(member)
        if sighting.failed_of:
            self._put(_failing(sighting, [member for cause, member in known.items() if cause.kind in _FAILING]))
        if sighting.size:
            odd = _member(sighting, Cause(sighting.size, sighting.source), sighting.seen_at, sighting.seen_at)
            before = known.get(odd.cause)
            self._put(replace(odd, since=before.since, due_at=before.due_at) if before else odd)
        return {*known, *self._causes[sighting.source]}

    def _not_before(self, now: datetime) -> datetime:
        """Nothing is judged as of before it was judged last: what was due then would not be any more.

        Runs may end before a look, and be told of after it; and clocks are set back, but not by more unnoticed.
        """
        looked = (incident.changed_at for incident in self.incidents.values())
        found = (member.since for named in self._members.values() for member in named.values())
        last = max((*looked, *found), default=now)
        return last if now < last < now + UNNOTICED else now

    def _turns(self, cause: Cause, now: datetime) -> bool:
        """Whether a cause may have begun or ended by this; the others are looked at once, after all."""
        incident = self.incidents.get(cause)
        stood = incident is not None and incident.stands
        return stood != any(member.is_due(now) for member in self._members[cause].values())

    def _settled(self, notices: Sequence[Notice], now: datetime) -> list[Notice]:
        """The last that is told of each cause says whom it affects when it is told, not when it was noticed."""
        last = {notice.incident.cause: number for number, notice in enumerate(notices)}
        settled = list(notices)
        for cause, number in last.items():
            notice = notices[number]
            if notice.event is Event.RECOVERED or notice.told is not None:
                continue
            loud = self._loud(cause, now)
            incident = replace(
                self.incidents[cause],
                told_members=sources(loud),
                audiences=tuple(sorted(audiences(loud) | set(notice.incident.audiences))),
            )
            self.incidents[cause] = incident
            settled[number] = replace(notice, incident=incident, members=tuple(loud))
        return settled

    def hold(self, kinds: Collection[Kind], found: Iterable[Member], subject: str | None = None) -> None:
        """Take in all that there is of these kinds, about this subject if one is named; what is not found is over."""
        before = {
            key: member
            for key, member in self.members.items()
            if _is_held(member, kinds) and subject in {None, member.cause.subject}
        }
        for member in before.values():
            self._drop(member)
        for member in found:
            known = before.get((member.cause, member.name))
            self._put(replace(member, since=known.since, due_at=known.due_at) if known else member)

    def leave_out(self, sources: Collection[str]) -> None:
        """Sources that nobody reads for now concern nobody."""
        for source in sources:
            for cause in tuple(self._causes[source]):
                self._drop(self._members[cause][source])

    def judge(self, now: datetime) -> list[Notice]:
        """What is to be told by now of any cause."""
        now = self._not_before(now)
        notices = self._judge({*self._members, *self.incidents}, now)
        self.incidents = {cause: one for cause, one in self.incidents.items() if not one.is_over(now)}
        return notices

    def _put(self, member: Member) -> None:
        self._members[member.cause][member.name] = member
        self._causes[member.name].add(member.cause)

    def _drop(self, member: Member) -> None:
        del self._members[member.cause][member.name]
        self._causes[member.name].discard(member.cause)

    def _of_runs(self, sighting: Sighting) -> list[Cause]:
        """What the end of a run decides about; a source that was read is not late."""
        kinds = OF_RUNS if sighting.failed_of else OF_RUNS | {Kind.LATE}
        return [cause for cause in self._causes[sighting.source] if cause.kind in kinds]

    def _judge(self, causes: Iterable[Cause], now: datetime) -> list[Notice]:
        return [notice for cause in sorted(causes) if (notice := self._look_at(cause, now))]

    def _look_at(self, cause: Cause, now: datetime) -> Notice | None:
        due, loud = self._due(cause, now), self._loud(cause, now)
        known = self.incidents.get(cause)
        incident = (known or Incident(cause, now)).noticed(due, now)
        event = next_event(incident, due, loud, now, self._reminded)
        if event is Event.RECOVERED and self._mutes.covers_end(incident):
            event = None
        told = None
        if event:
            incident = incident.after(event, loud, now, self._new_id())
        elif fresh := incident.untold_audiences(loud):
            # For whoever hears of those it is news.
            event, told = Event.FIRING, frozenset(incident.audiences)
            incident = replace(incident, audiences=tuple(sorted({*incident.audiences, *fresh})))
        if known or incident.stands:
            self.incidents[cause] = incident
        return Notice(event, incident, tuple(loud), told) if event else None

    def _due(self, cause: Cause, now: datetime) -> list[Member]:
        """Whom it affects long enough. That a host is not asked counts when those that wait for it may wait no more."""
        members = self._members[cause].values()
        due = [member for member in members if member.is_due(now)]
        is_patient = cause.kind is Kind.HOST and any(member.source and not member.is_due(now) for member in members)
        return [member for member in due if member.source] if is_patient else due

    def _loud(self, cause: Cause, now: datetime) -> list[Member]:
        # While something is wrong with the service, or may be, that a source is late needs no message.
        is_troubled = cause.kind is Kind.LATE and any(self._members.get(Cause(kind)) for kind in OF_SERVICE)
        return [] if is_troubled else list(filter(self._is_loud, self._due(cause, now)))

    def _is_loud(self, member: Member) -> bool:
        """Whether it is worth a message of its own."""
        kinds = {cause.kind for cause in self._causes[member.name]}
        is_explained = member.cause.kind in FOLLOWING and not kinds.isdisjoint(TELLING)
        return not (is_explained or self._mutes.covers(member))


_FAILING = frozenset({Kind.HOST, Kind.FAILING})


def _is_held(member: Member, kinds: Collection[Kind]) -> bool:
    """Of a host, whether its breaker is open is looked for; which sources fail of it their runs say."""
    return member.cause.kind in kinds and not (member.source and member.cause.kind in OF_RUNS)


def _failing(sighting: Sighting, known: Sequence[Member]) -> Member:
    """A source that fails; `known` is of what it failed before.

    It stays with what it failed of first: one that fails of something else each time is told of once. But a host that
    answers again is not the cause any more.
    """
    assert sighting.failed_of is not None
    before = known[0] if known else None
    cause = sighting.failed_of
    if before is None:
        return _member(sighting, cause, sighting.seen_at, sighting.patience.due_at(sighting.seen_at, 1))
    if before.cause.kind is Kind.FAILING or cause.kind is Kind.HOST:
        cause = before.cause
    due_at = before.due_at or sighting.patience.due_at(before.since, before.times + 1)
    return _member(sighting, cause, before.since, due_at, before.times + 1)


def _member(sighting: Sighting, cause: Cause, since: datetime, due_at: datetime | None, times: int = 1) -> Member:
    return Member(
        cause, sighting.source, since, due_at, sighting.message, times, source=sighting.source, tags=sighting.tags
    )
