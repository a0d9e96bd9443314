"""Quarantined records that are driven again: those that fit now, and those that still do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from db.models.quality import CASE
from db.queries.cases import GIVEN, has_cases, rejected_rows
from db.statement import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from db.queries.cases import Claim
    from etl.records import Reject


def put_driven(connection: Connection, claim: Claim, rejects: list[Reject]) -> int:
    """Stored records that became no items: their cases stay open and keep the reasons that they had before.

    What was put away stays so as long as it says the same.

    Returns:
        How many of them stood in quarantine before this run.
    """
    if not rejects:
        return 0
    rows = rejected_rows(claim, rejects)
    values = {
        "rows": msgspec.json.encode(rows).decode(),
        "source_name": claim.source_name,
        "run_id": claim.run_id,
    }
    again: int = connection.execute(_COUNT, values).scalar_one()
    for statement in (_RENAME, _GO_ON, _OPEN):
        connection.execute(statement, values)
    return again


_GIVEN = f"""
    WITH given AS (
        SELECT r.*, decode(r.content_hash, 'hex') AS hash,
            coalesce('=' || r.external_id, r.content_hash) AS key
        FROM {GIVEN.format(alias="r")}
    )"""
_IS_DISCARDED = """EXISTS (
    SELECT 1 FROM rejected_records d
    WHERE d.source_name = :source_name AND d.state = 'discarded' AND d.content_hash = g.hash AND ({case}) = g.key)
""".format(case=CASE.replace("external_id", "d.external_id").replace("content_hash", "d.content_hash"))
_ITS_CASE = CASE.replace("external_id", "c.external_id").replace("content_hash", "c.content_hash")

# By what a record is known, and by its row: one condition of both would be asked of each pair.
_COUNT = text(f"""
    {_GIVEN}
    SELECT count(*) FROM given g WHERE {_IS_DISCARDED}
        OR EXISTS (SELECT 1 FROM rejected_records c WHERE c.source_name = :source_name AND c.state = 'open'
                   AND c.run_id <> :run_id AND ({_ITS_CASE}) = g.key)
        OR EXISTS (SELECT 1 FROM rejected_records c WHERE c.source_name = :source_name AND c.state = 'open'
                   AND c.run_id <> :run_id AND c.raw_data_id = g.raw_data_id)
""")
_IS_REPLACED = """EXISTS (
    SELECT 1 FROM unified_items i
    WHERE i.source_name = :source_name AND i.external_id = g.external_id AND i.raw_data_id > g.raw_data_id)"""
# A record that had no id, and has one now, is another case; one of which a newer one is served is none any more.
_RENAME = text(f"""
    {_GIVEN}
    UPDATE rejected_records c SET state = 'superseded'
    FROM given g
    WHERE c.source_name = :source_name AND c.state = 'open' AND c.raw_data_id = g.raw_data_id
      AND (({_ITS_CASE}) <> g.key OR {_IS_REPLACED})
""")
_REASON = ("field", "rule", "value", "message", "mapping_version", "errors")
_EARLIER = ", ".join(f"'{name}', c.{name}" for name in _REASON if name != "errors")
_GO_ON = text(f"""
    {_GIVEN}
    UPDATE rejected_records c SET
        attempts = c.attempts + 1, driven_by = :run_id, last_seen_at = clock_timestamp(),
        earlier = (SELECT jsonb_agg(one) FROM jsonb_path_query(
            jsonb_build_array(jsonb_build_object({_EARLIER})) || coalesce(c.earlier, '[]'), '$[0 to 9]') AS one),
        raw_data_id = g.raw_data_id, raw_ingested_at = g.raw_ingested_at, content_hash = g.hash, raw_bytes = NULL,
        raw_truncated = false, stage = g.stage, {", ".join(f"{name} = g.{name}" for name in _REASON)}
    FROM (SELECT DISTINCT ON (key) * FROM given ORDER BY key, raw_data_id DESC) g
    WHERE c.source_name = :source_name AND c.state = 'open' AND ({_ITS_CASE}) = g.key
      AND c.driven_by IS DISTINCT FROM :run_id AND c.run_id <> :run_id
      AND (c.raw_data_id IS NULL OR c.raw_data_id <= g.raw_data_id)
""")
_FIRST = ("run_id", "source_name", "source_type", "external_id", "raw_data_id", "raw_ingested_at", "stage", *_REASON)
_OPEN = text(f"""
    {_GIVEN}
    INSERT INTO rejected_records ({", ".join(_FIRST)}, content_hash)
    SELECT DISTINCT ON (g.key) {", ".join(f"g.{name}" for name in _FIRST)}, g.hash FROM given g
    WHERE NOT {_IS_DISCARDED} AND NOT {_IS_REPLACED} ORDER BY g.key, g.raw_data_id DESC
    ON CONFLICT DO NOTHING
""")


def close_driven(connection: Connection, source_name: str, batch_id: int) -> None:
    """The staged records of a batch fit: their cases are over, `superseded` where a newer record is served."""
    if has_cases(connection, source_name):
        connection.execute(_CLOSE, {"source_name": source_name, "batch_id": batch_id})


_CLOSE = text(f"""
    WITH met AS (
        SELECT r.id, s.external_id, s.raw_data_id FROM staged_items s
        JOIN rejected_records r ON r.source_name = :source_name AND r.raw_data_id = s.raw_data_id AND r.state = 'open'
        WHERE s.batch_id = :batch_id
        UNION
        SELECT c.id, s.external_id, s.raw_data_id FROM staged_items s
        JOIN rejected_records c ON c.source_name = :source_name AND c.state = 'open'
            AND ({_ITS_CASE}) = '=' || s.external_id AND coalesce(c.raw_data_id, 0) < s.raw_data_id
        WHERE s.batch_id = :batch_id
    )
    UPDATE rejected_records r
    SET state = CASE WHEN r.raw_data_id IS DISTINCT FROM met.raw_data_id OR EXISTS (
                SELECT 1 FROM unified_items i WHERE i.source_name = :source_name
                  AND i.external_id = met.external_id AND i.raw_data_id > met.raw_data_id)
            THEN 'superseded' ELSE 'redriven' END,
        driven_by = (SELECT run_id FROM etl_batches WHERE batch_id = :batch_id)
    FROM met WHERE r.id = met.id
""")


def leave_taken_back(connection: Connection, source_name: str, batch_id: int) -> int:
    """Leave out staged records that their source has taken back since; how many."""
    if not _has_taken_back(connection, source_name):
        return 0
    return int(connection.execute(_LEAVE, {"source_name": source_name, "batch_id": batch_id}).rowcount)


def _has_taken_back(connection: Connection, source_name: str) -> bool:
    """Whether any case of a source is over because its record came again as it was."""
    return bool(connection.execute(_ANY_SUPERSEDED, {"source_name": source_name}).scalar_one())


_ANY_SUPERSEDED = text("""
    SELECT EXISTS (SELECT 1 FROM rejected_records WHERE source_name = :source_name AND state = 'superseded')
""")
_LEAVE = text("""
    DELETE FROM staged_items s
    WHERE s.batch_id = :batch_id
      AND EXISTS (SELECT 1 FROM rejected_records r WHERE r.source_name = :source_name
                  AND r.raw_data_id = s.raw_data_id AND r.state = 'superseded')
      AND NOT EXISTS (SELECT 1 FROM rejected_records o WHERE o.source_name = :source_name
                      AND o.raw_data_id = s.raw_data_id AND o.state = 'open')
      AND NOT EXISTS (SELECT 1 FROM unified_items i WHERE i.source_name = :source_name
                      AND i.external_id = s.external_id AND i.raw_data_id = s.raw_data_id)
""")
