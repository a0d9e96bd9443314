"""What the ends of runs say to those who watch: written as a run ends, taken when it is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.statement import text
from db.states import IS_PAUSED
from etl.alerts.cause import Kind, Patience, cause_of_failure
from etl.alerts.ledger import Sighting
from etl.http.address import declared_host

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy import Connection, Row

# How many are judged in one transaction.
LIMIT = 500

# Of a run `r`: whether something was wrong with its source before. What is judged meanwhile is in either table.
IS_WATCHED = """(
    EXISTS (SELECT 1 FROM alert_members m WHERE m.source_name = r.source_name)
    OR EXISTS (SELECT 1 FROM alert_sightings w WHERE w.source_name = r.source_name))"""
_NOTE = text("""
    INSERT INTO alert_sightings (source_name, run_id, code, message, fingerprint, size_flag)
    SELECT r.source_name, r.run_id, CASE WHEN f.alike IS NOT NULL THEN r.error_code END,
        CASE WHEN f.alike IS NOT NULL THEN r.error_message END, f.alike, c.size_flag
    FROM etl_runs r CROSS JOIN (SELECT CAST(:group AS text) AS alike) f
    LEFT JOIN etl_checkpoints c ON c.source_name = r.source_name
    WHERE r.run_id = :run_id
""")
_TAKE = text(f"""
    WITH taken AS (
        DELETE FROM alert_sightings WHERE sighting_id IN (
            SELECT sighting_id FROM alert_sightings ORDER BY sighting_id LIMIT :limit)
        RETURNING *
    )
    SELECT t.source_name, t.seen_at, t.code, t.message, t.fingerprint, t.size_flag,
        s.config -> 'request' ->> 'url' AS url, s.config -> 'alert_after' AS alert_after, s.config -> 'tags' AS tags
    FROM taken t JOIN sources s ON s.name = t.source_name AND s.enabled AND NOT {IS_PAUSED}
    ORDER BY t.sighting_id
""")


def note_sighting(connection: Connection, run_id: UUID, group: str | None) -> None:
    """Write down how a run of fetching ended, where somebody may have to be told of it.

    `group` is what all have in common that fail alike; None says that nothing was wrong.
    """
    connection.execute(_NOTE, {"run_id": run_id, "group": group})


def take_sightings(connection: Connection, environment: Mapping[str, str]) -> list[Sighting]:
    """The oldest ones, which are gone by that. `environment` tells the hosts of declared addresses."""
    return [_sighting(row, environment) for row in connection.execute(_TAKE, {"limit": LIMIT})]


def _sighting(row: Row[Any], environment: Mapping[str, str]) -> Sighting:
    cause = None
    if row.code is not None:
        host = declared_host(row.url, environment)
        cause = cause_of_failure(row.code, row.message or "", row.fingerprint or row.code, host)
    return Sighting(
        row.source_name,
        row.seen_at,
        failed_of=cause,
        message=row.message or _ODD,
        size=Kind(row.size_flag) if row.size_flag else None,
        patience=Patience.declared(row.alert_after),
        tags=tuple(row.tags or ()),
    )


_ODD = "the last run met no records, or not as many as expected"
