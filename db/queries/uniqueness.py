"""Values that are to stand in one item of a source alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from psycopg2.errors import QueryCanceled
from sqlalchemy.exc import OperationalError

from db.queries.events import record_event
from db.queries.versions import BOUND
from db.statement import text
from etl.declare.expect import KINDS, METADATA

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection, Row

# What all questions after one run may take together: seconds.
LONGEST = 10


def look_at_values(connection: Connection, run_id: UUID) -> None:
    """Warn, on the record of a run that has changed something, of values that stand in several items."""
    run = connection.execute(_CHANGED, {"run_id": run_id}).first()
    if run is None:
        return
    until = time.monotonic() + LONGEST
    for field in (name for name, rules in (run.expect or {}).items() if rules.get("unique")):
        _look(connection, run_id, run.source_name, field, until - time.monotonic())


_CHANGED = text(f"""
    SELECT r.source_name, {BOUND} -> 0 -> 'expect' AS expect FROM etl_runs r JOIN sources s ON s.name = r.source_name
    WHERE r.run_id = :run_id AND r.lane = 'fetch' AND r.status <> 'cancelled'
      AND r.records_inserted + r.records_updated > 0
""")


def _look(connection: Connection, run_id: UUID, source_name: str, field: str, seconds: float) -> None:
    found = _repeated(connection, source_name, field, seconds) if seconds > 0 else None
    if found is None:
        told = f"that could not be told within {LONGEST} s"
    elif found.values:
        told = f"{found.values} values stand in more than one item, such as {found.sample!r} in {found.items}"
    else:
        return
    record_event(connection, run_id, "warning", code="not_unique", message=f"`expect.{field}.unique`: {told}")


def _repeated(connection: Connection, source_name: str, field: str, seconds: float) -> Row[Any] | None:
    """How many values there are more than once; None if that takes too long."""
    query = text(_REPEATED.format(value=_value(field)))
    try:
        with connection.begin_nested():
            connection.execute(text(f"SET LOCAL statement_timeout = '{max(1, round(seconds * 1000))}ms'"))
            return connection.execute(query, {"source_name": source_name, "key": field.removeprefix(METADATA)}).one()
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise
        return None


def _value(field: str) -> str:
    """A column, or a key of the metadata; the names of columns are ours."""
    return "metadata ->> :key" if field not in KINDS else f"{field}::text"


_REPEATED = """
    WITH repeated AS (
        SELECT {value} AS value, count(*) AS items FROM unified_items
        WHERE source_name = :source_name AND status = 'active' AND {value} IS NOT NULL
        GROUP BY 1 HAVING count(*) > 1
    )
    SELECT count(*) AS values, (array_agg("left"(value, 60) ORDER BY items DESC, value))[1] AS sample,
        max(items) AS items
    FROM repeated
"""
