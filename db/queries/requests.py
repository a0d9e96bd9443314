"""The HTTP requests of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from db.statement import text
from etl.reporter import Asked

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

# How many of a run are kept; the others are only counted.
MOST_KEPT = 1000

_COLUMNS = {
    "at": "double precision",
    "method": "text",
    "url": "text",
    "status": "integer",
    "bytes": "bigint",
    "seconds": "double precision",
    "attempt": "integer",
    "error": "text",
}
_NOTE = text(f"""
    WITH run AS (
        UPDATE etl_runs SET requests = requests + :count WHERE run_id = :run_id RETURNING requests - :count AS before
    )
    INSERT INTO etl_requests (run_id, batch, {", ".join(_COLUMNS)})
    SELECT :run_id, :batch, to_timestamp(at), {", ".join(name for name in _COLUMNS if name != "at")}
    FROM run, jsonb_to_recordset(CAST(:asked AS jsonb)) AS asked({", ".join(" ".join(one) for one in _COLUMNS.items())})
    ORDER BY at LIMIT greatest(:most - (SELECT before FROM run), 0)
""")
assert tuple(_COLUMNS) == Asked.__struct_fields__


def note_requests(connection: Connection, run_id: UUID, asked: list[Asked], batch: int | None = None) -> None:
    """Note what a run has asked for; the answers begin in the batch of this number, if it holds records."""
    values = {"run_id": run_id, "batch": batch, "count": len(asked), "most": MOST_KEPT}
    connection.execute(_NOTE, values | {"asked": msgspec.json.encode(asked).decode()})
