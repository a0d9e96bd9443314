"""What a message says: to people as a title and some lines, to machines as facts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from etl.alerts.cause import Kind
from etl.alerts.incident import MOST_NAMES, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from etl.alerts.ledger import Notice

# So many of a kind that are to be told at once are told in one message.
MOST_ALONE = 5
NAMED = 10
LONGEST_TITLE, LONGEST_LINE, LONGEST_BODY = 200, 300, 4000


@dataclass(frozen=True)
class Alert:
    """A message as it is kept until it is sent. `facts` are the data of a webhook; `told` have heard of it."""

    alert_id: UUID
    event: Event
    kind: Kind | None
    title: str
    body: str
    facts: dict[str, Any]
    audiences: tuple[str, ...] = ()
    told: frozenset[str] | None = None


def compose(notices: Sequence[Notice], now: datetime, new_id: Callable[[], UUID]) -> list[Alert]:
    """The messages of what is to be told: one for each cause, but one in all where many of a kind follow each other.

    Of each cause in the order in which it was noticed.
    """
    turns: list[list[Notice]] = []
    for notice in notices:
        # The first turn in which nothing is told of this cause, nor in a later one.
        number = 1 + max((n for n, turn in enumerate(turns) if _tells(turn, notice)), default=-1)
        turns += [[]] if number == len(turns) else []
        turns[number].append(notice)
    return [_alert(part, now, new_id()) for turn in turns for part in _parts(turn)]


def _tells(turn: Sequence[Notice], notice: Notice) -> bool:
    return any(one.incident.cause == notice.incident.cause for one in turn)


def _parts(notices: Sequence[Notice]) -> Iterable[list[Notice]]:
    for _, found in groupby(sorted(notices, key=_group), key=_group):
        alike = list(found)
        yield from [alike] if len(alike) > MOST_ALONE else [[one] for one in alike]


def _group(notice: Notice) -> tuple[str, str, list[str]]:
    told = [] if notice.told is None else ["", *sorted(notice.told)]
    return notice.event, notice.incident.cause.kind, told


_EVENTS = {
    Event.FIRING: "",
    Event.RECOVERED: "Over: ",
    Event.GROWN: "More: ",
    Event.REMINDER: "Still: ",
    Event.FLAPPING: "On and off: ",
}
# Of one source, and of several.
_SAYS = {
    Kind.HOST: ("cannot be read", "cannot be read"),
    Kind.FAILING: ("fails", "fail"),
    Kind.SET_ASIDE: ("is set aside", "are set aside"),
    Kind.LATE: ("is late", "are late"),
    Kind.EMPTY: ("had no records", "had no records"),
    Kind.ODD_SIZE: ("had fewer or more records than usual", "had fewer or more records than usual"),
    Kind.REJECTS: ("has many rejected records", "have many rejected records"),
    Kind.DRIFT: ("lacks a field that is mapped", "lack a field that is mapped"),
}
_SERVICE = {
    Kind.DATABASE: "the database cannot be written to",
    Kind.BROKER: "the message broker cannot be reached",
    Kind.SCHEDULER: "no scheduler claims the slots",
    Kind.WORKERS: "no worker is alive",
    Kind.DISK: "a disk is nearly full",
    Kind.ALARM: "the service found a fault",
}


def _alert(notices: Sequence[Notice], now: datetime, alert_id: UUID) -> Alert:
    first = notices[0]
    kind = first.incident.cause.kind
    names, total = _whom(notices)
    title = f"{_EVENTS[first.event]}{_headline(notices, kind, names, total)}"[:LONGEST_TITLE]
    body = "\n".join(_lines(notices, names))[:LONGEST_BODY]
    facts = {
        "id": str(alert_id),
        "event": first.event,
        "kind": kind,
        "title": title,
        "message": body,
        "at": now,
        "causes": [
            {
                "cause": one.incident.cause.key,
                "incident": str(one.incident.incident_id),
                "since": min((member.since for member in one.members), default=one.incident.changed_at),
            }
            for one in notices[:MOST_NAMES]
        ],
        "sources": names[:MOST_NAMES] if kind in _SAYS else [],
        "sources_total": total if kind in _SAYS else 0,
    }
    audiences = {audience for one in notices for audience in one.incident.audiences}
    return Alert(alert_id, first.event, kind, title, body, facts, tuple(sorted(audiences)), first.told)


def _whom(notices: Sequence[Notice]) -> tuple[list[str], int]:
    """The sources that are affected, or were, and how many there are."""
    if notices[0].event is Event.RECOVERED:
        names = {name for one in notices for name in one.incident.names}
        return sorted(names), sum(one.incident.affected for one in notices)
    names = {member.source for one in notices for member in one.members if member.source}
    return sorted(names), len(names)


def _headline(notices: Sequence[Notice], kind: Kind, names: Sequence[str], total: int) -> str:
    if kind not in _SAYS:
        return _SERVICE[kind]
    hosts = sorted({one.incident.cause.subject for one in notices}) if kind is Kind.HOST else []
    if not names:
        return f"{_some(hosts, 3)} does not answer"
    who = names[0] if total == 1 else f"{total} sources"
    return f"{who} {_SAYS[kind][total != 1]}" + (f" from {_some(hosts, 3)}" if hosts else "")


def _lines(notices: Sequence[Notice], names: Sequence[str]) -> Iterable[str]:
    members = [member for one in notices for member in one.members]
    for member in members[:NAMED]:
        yield f"{member.name}: {member.message}"[:LONGEST_LINE] if member.source else member.message[:LONGEST_LINE]
    if len(members) > NAMED:
        yield f"and {len(members) - NAMED} more: {_some([member.name for member in members[NAMED:]], 20)}"
    if not members:
        subjects = [one.incident.cause.subject for one in notices if one.incident.cause.subject]
        yield _some(names or sorted(subjects), 20)
    if notices[0].event is Event.FLAPPING:
        yield "It comes and goes; the next message comes when it has been steady for an hour."


def _some(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def trial_alert(alert_id: UUID, now: datetime) -> Alert:
    """A message that says only that messages arrive."""
    title, body = "Test: alerts arrive", "This is a test; nothing is wrong."
    facts: dict[str, Any] = {
        "id": str(alert_id),
        "event": Event.TEST,
        "kind": None,
        "title": title,
        "message": body,
        "at": now,
    }
    facts |= {"causes": [], "sources": [], "sources_total": 0}
    return Alert(alert_id, Event.TEST, None, title, body, facts)


def digest(messages: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Several messages, each a title and a text, as one."""
    if len(messages) == 1:
        return messages[0]
    room = LONGEST_BODY // len(messages)
    texts = [f"{title}\n{body}"[:room] for title, body in messages]
    return f"{len(messages)} alerts: {messages[0][0]}, …"[:LONGEST_TITLE], "\n\n".join(texts)


def outage_alert(event: Event, alert_id: UUID, message: str, now: datetime) -> Alert:
    """That the database takes no writes, or takes them again: what can be said from memory."""
    title = f"{_EVENTS[event]}{_SERVICE[Kind.DATABASE]}"
    facts: dict[str, Any] = {
        "id": str(alert_id),
        "event": event,
        "kind": Kind.DATABASE,
        "title": title,
        "message": message,
        "at": now,
        "causes": [{"cause": str(Kind.DATABASE), "incident": None, "since": now}],
        "sources": [],
        "sources_total": 0,
    }
    return Alert(alert_id, event, Kind.DATABASE, title, message, facts)
