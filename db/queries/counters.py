"""Counters of all that ever ended, which outlive the runs that they count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.statement import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

RUNS, RECORDS, TAKEOVERS, ALERTS = "runs", "records", "takeovers", "alerts"
OUTCOMES = ("extracted", "inserted", "updated", "unchanged", "duplicate", "failed")
_VALUES = ", ".join(f"('{outcome}', records_{outcome})" for outcome in OUTCOMES)
# What runs in `{ended}` add: a name, a label, and a number.
ADDED = f"""
    SELECT '{RUNS}' AS name, status AS label, count(*) AS value FROM {{ended}} WHERE lane = 'fetch' GROUP BY status
    UNION ALL
    SELECT '{RECORDS}', o.outcome, sum(o.records) FROM {{ended}}
    CROSS JOIN LATERAL (VALUES {_VALUES}) o(outcome, records)
    WHERE lane <> 'replay' GROUP BY o.outcome
"""
_READ = text(f"""
    WITH ended AS (
        SELECT lane, status, {", ".join(f"records_{outcome}" for outcome in OUTCOMES)} FROM etl_runs
        WHERE NOT rolled_up AND completed_at IS NOT NULL
    )
    SELECT name, label, sum(value)::bigint AS value
    FROM (SELECT name, label, value FROM etl_counters UNION ALL {ADDED.format(ended="ended")}) counted
    GROUP BY name, label ORDER BY name, label
""")
_ADD = text("""
    INSERT INTO etl_counters AS c (name, label, value) VALUES (:name, :label, :value)
    ON CONFLICT (name, label) DO UPDATE SET value = c.value + excluded.value
""")


def read_counters(connection: Connection) -> dict[tuple[str, str], int]:
    """All of them by name and label, with what is not rolled up yet."""
    return {(row.name, row.label): row.value for row in connection.execute(_READ)}


def add_count(connection: Connection, name: str, label: str, number: int) -> None:
    """Count so many more."""
    if number:
        connection.execute(_ADD, {"name": name, "label": label, "value": number})
