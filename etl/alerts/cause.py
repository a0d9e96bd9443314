"""What alerts are about: a cause, and whom it affects. One message is sent for a cause, however many it affects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from etl.declare.duration import duration
from etl.errors import Postponed
from etl.http.address import host_of

if TYPE_CHECKING:
    from datetime import datetime


class Kind(StrEnum):
    """What can be wrong."""

    HOST = "host"
    FAILING = "failing"
    SET_ASIDE = "set_aside"
    LATE = "late"
    EMPTY = "empty"
    ODD_SIZE = "odd_size"
    REJECTS = "rejects"
    DRIFT = "drift"
    DATABASE = "database_failing"
    BROKER = "broker_unreachable"
    SCHEDULER = "scheduler_silent"
    WORKERS = "no_worker"
    DISK = "disk_full"
    ALARM = "alarm"


# Of runs: what the end of one says of its source.
OF_RUNS = frozenset({Kind.HOST, Kind.FAILING, Kind.EMPTY, Kind.ODD_SIZE})
# Of the service as a whole: while one stands, that sources are late needs no message of its own.
OF_SERVICE = (Kind.DATABASE, Kind.BROKER, Kind.SCHEDULER, Kind.WORKERS)
# A source of which one of these is known is not told of for what follows from it.
TELLING = frozenset({Kind.HOST, Kind.FAILING, Kind.SET_ASIDE})
FOLLOWING = frozenset({Kind.LATE, Kind.EMPTY, Kind.ODD_SIZE, Kind.REJECTS, Kind.DRIFT})


@dataclass(frozen=True, order=True)
class Cause:
    """Something that is wrong. `subject` is a host, a group of failures, a source, or empty for the service."""

    kind: Kind
    subject: str = ""

    @property
    def key(self) -> str:
        """As it is written in tables and answers."""
        return f"{self.kind}:{self.subject}" if self.subject else str(self.kind)

    @classmethod
    def of_key(cls, key: str) -> Cause:
        """The cause of a key."""
        kind, _, subject = key.partition(":")
        return cls(Kind(kind), subject)


@dataclass(frozen=True)
class Member:
    """Somebody whom a cause affects: a source, or a part of the service.

    It counts from `due_at` on, and not at all while that is None. `times` are the failed runs in a row.
    """

    cause: Cause
    name: str
    since: datetime
    due_at: datetime | None
    message: str
    times: int = 1
    source: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def audience(self) -> str:
        """Who hears of it: all of its tags."""
        return ",".join(sorted(self.tags))

    def is_due(self, now: datetime) -> bool:
        """Whether it counts by now."""
        return self.due_at is not None and self.due_at <= now


# These say that the host is unwell, not what was asked of it.
_OF_HOST = frozenset({"timeout", "connection_failed", "tls_failed", "dns_failed", str(Postponed.BY_BREAKER)})
_SERVER_ERROR = re.compile(r"http_5\d\d")
_ADDRESS = re.compile(r"https?://[^\s'\"<>/?#]+")


def cause_of_failure(code: str, message: str, fingerprint: str, declared: str | None) -> Cause:
    """What a failed run is a sign of: its host, or else what all that fail alike have in common.

    `declared` is the host of the source's address; the message may name another, which was asked for a token.
    """
    host = _host_named(message) or declared
    if host and (code in _OF_HOST or _SERVER_ERROR.fullmatch(code)):
        return Cause(Kind.HOST, host)
    return Cause(Kind.FAILING, fingerprint)


def _host_named(message: str) -> str | None:
    found = _ADDRESS.search(message)
    try:
        return host_of(found[0]) if found else None
    except ValueError:
        return None


@dataclass(frozen=True)
class Patience:
    """How long a source may fail before somebody is told: so many runs in a row, or so long."""

    runs: int = 1
    time: timedelta = timedelta(0)

    @classmethod
    def declared(cls, value: int | str | None) -> Patience:
        """As a source declares it in `alert_after`."""
        if value is None:
            return cls()
        return cls(time=duration(value)) if isinstance(value, str) else cls(runs=value)

    def due_at(self, since: datetime, times: int) -> datetime | None:
        """From when on a source counts that fails since then, so many times in a row."""
        return since + self.time if times >= self.runs else None


AT_ONCE = Patience()
