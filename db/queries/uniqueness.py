"""Values that are to stand in one item of a source alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg2.errors import QueryCanceled
from sqlalchemy.exc import OperationalError

from db.queries.events import record_event
from db.statement import text
from etl.declare.expect import KINDS, METADATA

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection, Row

# What one question may take; a run ends without an answer to one that takes longer: seconds.
LONGEST = 10


def look_at_values(connection: Connection, run_id: UUID, source_name: str, config: dict[str, Any]) -> None:
    """Warn, on the record of a run that has changed something, of values that stand in several items."""
    for field, rules in (config.get("expect") or {}).items():
        if rules.get("unique"):
            _look(connection, run_id, source_name, field)


def _look(connection: Connection, run_id: UUID, source_name: str, field: str) -> None:
    found = _repeated(connection, source_name, field)
    if found is None:
        told = f"that could not be told within {LONGEST} s"
    elif found.values:
        told = f"{found.values} values stand in more than one item, such as {found.sample!r} in {found.items}"
    else:
        return
    record_event(connection, run_id, "warning", code="not_unique", message=f"`expect.{field}.unique`: {told}")


def _repeated(connection: Connection, source_name: str, field: str) -> Row[Any] | None:
    """How many values there are more than once; None if that takes too long. The run ends all the same."""
    query = text(_REPEATED.format(value=_value(field)))
    try:
        with connection.begin_nested():
            connection.execute(text(f"SET LOCAL statement_timeout = '{LONGEST}s'"))
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
