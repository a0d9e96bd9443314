"""The first page and the parts of the service as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.queries.events import MOST_OF_A_RUN
from db.queries.overview import MOST_COUNTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Row

    from config.settings import Settings
    from db.queries.errors_grouped import Groups


def present_overview(
    health: dict[str, Any],
    *,
    sources: Row[Any],
    runs: Row[Any],
    cases: int,
    hours: list[Row[Any]],
    errors: Groups,
    open_breakers: int | None,
) -> dict[str, Any]:
    """All at a glance."""
    return {
        "status": health["status"],
        "sources": sources._asdict(),
        "runs": runs._asdict(),
        "open_rejects": min(cases, MOST_COUNTED),
        "open_rejects_is_exact": cases <= MOST_COUNTED,
        "open_breakers": open_breakers,
        "hours": [row._asdict() for row in hours],
        "attention": [*map(_standing, health["reasons"]), *map(_failing, errors.groups)],
    }


def _standing(reason: dict[str, Any]) -> dict[str, Any]:
    return {**reason, "sources_total": None, "sources": [], "error": None}


def _failing(group: Row[Any]) -> dict[str, Any]:
    times = f"{group.runs} run{'s' if group.runs > 1 else ''} failed"
    return {
        "code": group.code,
        "message": f"{times}: {group.message}",
        "since": group.first_seen_at,
        "sources_total": group.sources_total,
        "sources": group.sources,
        "error": group.fingerprint,
    }


def present_system(
    lengths: Mapping[str, int | None],
    settings: Settings,
    packages: dict[str, str],
    *,
    processes: list[Row[Any]],
    oldest: dict[str, Any],
    connections: list[Row[Any]],
    tables: list[Row[Any]],
    versions: Row[Any],
) -> dict[str, Any]:
    """The parts of the service."""
    kept = _retentions(settings)
    return {
        "processes": [row._asdict() for row in processes],
        "queues": [{"name": name, "length": lengths[name], "oldest_at": oldest.get(name)} for name in lengths],
        "connections": [row._asdict() for row in connections],
        "tables": [{**row._asdict(), "retention": kept.get(row.name)} for row in tables],
        "database_bytes": versions.database_bytes,
        "versions": {"postgresql": versions.postgresql, "migration": versions.migration, **packages},
    }


def _retentions(settings: Settings) -> dict[str, str]:
    """For how long the rows of a table are kept, where they are not kept for ever."""
    runs = f"{settings.runs_retention.days} days"
    return {
        **dict.fromkeys(("etl_runs", "etl_batches", "etl_requests"), runs),
        "etl_run_events": f"{runs}, at most {MOST_OF_A_RUN} of a run",
        "source_versions": f"the newest 20 of each, others {settings.audit_retention.days} days, at most 1,000",
        "rejected_records": f"{settings.cases_retention.days} days once settled; open ones are kept",
        "audit_log": f"{settings.audit_retention.days} days",
        "idempotency_keys": "1 day",
        **dict.fromkeys(("alert_outbox", "alert_deliveries"), f"{settings.alerts_retention.days} days"),
        "alert_mutes": f"{settings.alerts_retention.days} days after they end",
        "sessions": "7 days, and 30 days to be seen",
        "etl_plans": "1 day",
        "exports": "1 day",
        "etl_hours": "90 days",
        "etl_sizes": "90 days",
        "mirror_marks": f"{settings.deleted_retention.days} days, and up to one more",
        "source_removals": f"{settings.deleted_retention.days} days",
    }
