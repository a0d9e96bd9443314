"""The state of the service as the API shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from db.errors import TROUBLES
from etl.hosts.breaker import State
from etl.http.address import declared_host
from etl.runs.outcome import Status
from etl.runs.share import SET_ASIDE
from etl.runs.volume import Size
from web.schemas.stats import HealthStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Row

    from db.queries.failures import Failing
    from db.queries.slots import Overdue


@dataclass(frozen=True)
class DatabaseView:
    """What the database says: counts of sources, workers that were seen lately, alarms, and sources, failing first."""

    counts: Row[Any]
    workers: int
    alarms: list[Row[Any]]
    sources: list[Row[Any]]
    failing: Failing | None = None
    overdue: Overdue | None = None
    scheduler_seen_at: datetime | None = None
    drifted: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BrokerView:
    """Whether the broker answers, and the states of the hosts it remembers; None when nobody knows.

    `trouble` is why it takes no messages, `database_trouble` what kept the database from writing lately.
    """

    connected: bool
    breakers: Mapping[str, State] | None = None
    trouble: str | None = None
    database_trouble: str | None = None


def present_health(database: DatabaseView, broker: BrokerView, environment: Mapping[str, str]) -> dict[str, Any]:
    """The whole picture. `environment` tells the hosts of declared addresses."""
    counts = database.counts
    reasons = [*_reasons(database, broker), *(alarm._asdict() for alarm in database.alarms)]
    return {
        "status": HealthStatus.DEGRADED if reasons else HealthStatus.HEALTHY,
        "reasons": reasons,
        "database_connected": True,
        "broker_connected": broker.connected,
        "workers": database.workers,
        "scheduler_seen_at": database.scheduler_seen_at,
        "total_sources": counts.total,
        "successful_sources": counts.successful,
        "partial_sources": counts.partial,
        "failed_sources": counts.failed,
        "sources": [_source(row, _breaker(declared_host(row.url, environment), broker)) for row in database.sources],
    }


def present_unhealthy(message: str, broker: BrokerView) -> dict[str, Any]:
    """What can be said without the database."""
    return {
        "status": HealthStatus.UNHEALTHY,
        "reasons": [_reason("database_unreachable", message)],
        "database_connected": False,
        "broker_connected": broker.connected,
    }


def _reasons(database: DatabaseView, broker: BrokerView) -> list[dict[str, Any]]:
    failed, set_aside = database.counts.failed, database.counts.set_aside or []
    found = []
    if not broker.connected:
        found.append(_reason("broker_unreachable", "the message broker cannot be reached; runs start when it is back"))
    if broker.trouble:
        found.append(_reason("broker_full", f"the message broker takes no messages: {broker.trouble}"))
    if database.failing or broker.database_trouble:
        found.append(_failing(database.failing, broker.database_trouble))
    if database.overdue:
        number, since = database.overdue.sources, database.overdue.since
        message = f"no scheduler claims the slots of {number} source{'s' if number > 1 else ''}: is beat running?"
        found.append({"code": "scheduler_silent", "message": message, "since": since})
    if not database.workers:
        found.append(_reason("no_worker", "no worker was seen in the last 30 s"))
    if failed:
        found.append(_reason("sources_failed", f"{failed} source{'s' if failed > 1 else ''} failed last time"))
    if set_aside:
        found.append(_reason(SET_ASIDE, f"set aside, because worker processes died of them: {_named(set_aside)}"))
    found += _watched(database.counts)
    if database.drifted:
        message = f"a field that is mapped is not in the records any more: {_named(database.drifted)}"
        found.append(_reason("drift", message))
    return found


def _watched(counts: Row[Any]) -> list[dict[str, Any]]:
    """What is wrong with when sources were read, and with how much was in them."""
    found = []
    if counts.late:
        found.append(
            {"code": "late", "message": f"not read for too long: {_named(counts.late)}", "since": counts.late_since}
        )
    if counts.empty:
        found.append(_reason(Size.EMPTY, f"the last run met no records: {_named(counts.empty)}"))
    if counts.odd_size:
        message = f"the last run met fewer or more records than expected: {_named(counts.odd_size)}"
        found.append(_reason(Size.ODD, message))
    return found


def _named(sources: list[str]) -> str:
    return ", ".join(sources[:5]) + (", …" if len(sources) > 5 else "")


def _failing(failing: Failing | None, noted: str | None) -> dict[str, Any]:
    """Why nothing is written, though the database answers; all goes on by itself once it can be."""
    if failing is None:
        return _reason("database_failing", noted or "")
    what = f"the database cannot write: {TROUBLES[failing.failure]}" if failing.failure in TROUBLES else failing.failure
    waiting = f"{failing.batches} batch{'es' if failing.batches > 1 else ''} cannot be written and wait"
    return {"code": "database_failing", "message": f"{waiting}; {what}", "since": failing.since}


def _reason(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "since": None}


def _breaker(host: str | None, broker: BrokerView) -> State | None:
    """The state of a host; one of which nothing is remembered is well."""
    return None if host is None or broker.breakers is None else broker.breakers.get(host, State.CLOSED)


def _source(row: Row[Any], breaker: State | None) -> dict[str, Any]:
    return {
        "name": row.source_name,
        "type": row.source_type,
        "status": row.active_status or last_status(row),
        "last_run_at": row.last_run_at,
        "last_success_at": row.last_success_at,
        "checkpoint_value": (row.checkpoint or {}).get("watermark"),
        "breaker": breaker,
        "next_run_at": None if row.gone_reason else row.next_run_at,
        "not_before": row.not_before,
        "not_before_reason": row.not_before_reason if row.not_before else None,
        "gone_reason": row.gone_reason,
        **flags(row),
    }


def flags(row: Row[Any]) -> dict[str, bool]:
    """What is odd about when a source was read last, and what was in it."""
    return {
        "late": row.late_since is not None,
        "empty": row.size_flag == Size.EMPTY,
        "odd_size": row.size_flag == Size.ODD,
    }


def last_status(row: Row[Any]) -> str:
    """How a source stands by its last run, unless it is not to be read at all."""
    if row.set_aside:
        return SET_ASIDE
    if row.gone_reason:
        return "gone"
    return row.last_status or (Status.SKIPPED if row.last_run_at else "never_run")
