"""Quarantine: one open case per record, from when it is rejected until it fits."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from db.models.quality import CASE
from db.statement import text
from etl.records import Fault
from etl.runs.changes import OpenCase
from etl.runs.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from sqlalchemy import Connection

    from db.queries.raw_rows import RawRows
    from etl.records import BadRecord, Reject
    from etl.runs.changes import Candidates, Changes

# Bytes of an unstorable record that the quarantine keeps.
MAX_RAW_BYTES = 64 * 1024
# How many reasons a run tells of.
_MOST_REASONS = 5
# Most sources have none, and need not hash and look up every record.
_HAS_CASES = text(
    "SELECT EXISTS (SELECT 1 FROM rejected_records WHERE source_name = :source_name AND state IN ('open', 'discarded'))"
)


class Claim(Protocol):
    """The run or the batch that rejects come from."""

    @property
    def run_id(self) -> UUID:
        """The run."""

    @property
    def source_name(self) -> str:
        """The source."""

    @property
    def source_type(self) -> str:
        """Its type."""

    @property
    def mapping_version(self) -> int:
        """The version that the records were read by."""


def _origin(claim: Claim) -> dict[str, Any]:
    names = ("source_name", "source_type", "mapping_version")
    return {"run_id": str(claim.run_id), **{name: getattr(claim, name) for name in names}}


def has_cases(connection: Connection, source_name: str) -> bool:
    """Whether anything of a source is in quarantine."""
    return bool(connection.execute(_HAS_CASES, {"source_name": source_name}).scalar_one())


def find_cases(connection: Connection, found: Candidates, values: dict[str, Any]) -> list[OpenCase]:
    """The open cases of the candidates: those with an id of theirs, and those with their content."""
    nothing = not (found.records or found.batch.rejected)
    if nothing or not has_cases(connection, values["source_name"]):
        return []
    hashes = sorted(content_hash.hex() for content_hash in found.all_hashes())
    keys = ["=" + key for key in found.records if isinstance(key, str)]
    lists = {"hashes": msgspec.json.encode(hashes).decode(), "keys": msgspec.json.encode(keys).decode()}
    return [OpenCase(bytes(row[0]), *row[1:]) for row in connection.execute(_OPEN, values | lists)]


# A record that killed its workers is tried again, and one whose shape had changed once that is let through. One that
# was judged by another version is judged anew, unless it was put away as it is.
_OPEN = text(f"""
    WITH met AS (
        SELECT r.id FROM jsonb_array_elements_text(CAST(:hashes AS jsonb)) AS hash
        JOIN rejected_records r ON r.content_hash = decode(hash, 'hex')
        WHERE r.source_name = :source_name AND r.state = 'open'
        UNION
        SELECT r.id FROM jsonb_array_elements_text(CAST(:hashes AS jsonb)) AS hash
        JOIN rejected_records r ON r.content_hash = decode(hash, 'hex')
        WHERE r.source_name = :source_name AND r.state = 'discarded'
        UNION
        SELECT r.id FROM jsonb_array_elements_text(CAST(:keys AS jsonb)) AS key
        JOIN rejected_records r ON ({CASE}) = key
        WHERE r.source_name = :source_name AND r.state = 'open'
    )
    SELECT content_hash, external_id, run_id = :run_id AS written,
        state = 'discarded' OR (mapping_version = :mapping_version AND rule <> 'poison'
            AND NOT (rule = 'drift' AND :lets_drift)) AS is_current,
        state = 'discarded' AS is_discarded
    FROM rejected_records WHERE id = ANY (ARRAY(SELECT id FROM met))
""")


def put_unstorable(connection: Connection, claim: Claim, rejected: list[BadRecord]) -> None:
    """Records that cannot be kept as JSON: what there is of their bytes."""
    origin = _origin(claim)
    _put(
        connection,
        (
            {
                **origin,
                "content_hash": bad.content_hash.hex(),
                "raw_bytes": b64encode(bad.raw[:MAX_RAW_BYTES]).decode(),
                "raw_truncated": len(bad.raw) > MAX_RAW_BYTES,
                "stage": "extract",
                "field": _storable(bad.field),
                "rule": bad.rule,
                "message": _storable(bad.message),
                "errors": [Fault(_storable(bad.field), bad.rule, None, _storable(bad.message))],
            }
            for bad in rejected
        ),
    )


def put_rejects(connection: Connection, claim: Claim, rejects: list[Reject]) -> None:
    """Stored records that became no items."""
    if rejects:
        _put(connection, rejected_rows(claim, rejects))


def rejected_rows(claim: Claim, rejects: list[Reject]) -> list[dict[str, Any]]:
    """The same as rows of GIVEN."""
    origin = _origin(claim)
    return [
        {
            **origin,
            "external_id": reject.record.external_id,
            "content_hash": reject.content_hash.hex(),
            "raw_data_id": reject.record.raw_id,
            "raw_ingested_at": reject.record.ingested_at,
            "raw_truncated": False,
            "stage": "normalize",
            **msgspec.structs.asdict(reject.faults[0]),
            "errors": reject.faults,
        }
        for reject in rejects
    ]


def close_replaced(connection: Connection, run_id: UUID) -> None:
    """The cases of a run of which a newer record has been loaded are over, whichever batch came first."""
    connection.execute(_CLOSE_REPLACED, {"run_id": run_id})


_CLOSE_REPLACED = text("""
    UPDATE rejected_records r SET state = 'superseded'
    FROM unified_items i
    WHERE r.run_id = :run_id AND r.state = 'open' AND i.source_name = r.source_name
      AND i.external_id = r.external_id AND i.raw_data_id > r.raw_data_id
""")


def _put(connection: Connection, rows: Iterable[dict[str, Any]]) -> None:
    """Open cases, or go on with those that are open; the newest record of a case is the one that it shows."""
    # The last of a batch wins. In the order of their keys, so that two batches never wait for each other in a circle.
    cases = {row.get("external_id") or row["content_hash"]: row for row in rows}
    if cases:
        ordered = [cases[key] for key in sorted(cases)]
        connection.execute(_UPSERT, {"rows": msgspec.json.encode(ordered).decode()})


_COLUMNS = (
    *("run_id", "source_name", "source_type", "external_id", "raw_data_id", "raw_ingested_at", "raw_truncated"),
    *("stage", "field", "rule", "value", "message", "mapping_version", "errors"),
)
_TYPES = {
    "run_id": "uuid",
    "raw_data_id": "bigint",
    "raw_ingested_at": "timestamptz",
    "raw_truncated": "boolean",
    "mapping_version": "integer",
    "errors": "jsonb",
}
_RENEWED = (*_COLUMNS, "content_hash", "raw_bytes")
# Rejects as they are given, as JSON; hashes are hexadecimal.
GIVEN = f"""jsonb_to_recordset(CAST(:rows AS jsonb)) AS {{alias}}(
    {", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in _RENEWED)})"""
_UPSERT = text(f"""
    INSERT INTO rejected_records AS r ({", ".join(_RENEWED)})
    SELECT {", ".join(_COLUMNS)}, decode(content_hash, 'hex'), decode(raw_bytes, 'base64')
    FROM {GIVEN.format(alias="given")}
    ON CONFLICT (source_name, ({CASE})) WHERE state = 'open' DO UPDATE SET
        {", ".join(f"{name} = excluded.{name}" for name in _RENEWED)},
        attempts = r.attempts + CASE WHEN r.run_id = excluded.run_id THEN 0 ELSE 1 END,
        last_seen_at = clock_timestamp()
    WHERE r.raw_data_id IS NULL OR excluded.raw_data_id IS NULL OR excluded.raw_data_id >= r.raw_data_id
""")


def close_fitting(connection: Connection, source_name: str, batch_id: int) -> None:
    """The staged records of a batch fit: their cases are over. Like the load itself, not by nested loops."""
    if has_cases(connection, source_name):
        connection.execute(_CLOSE_FITTING, {"source_name": source_name, "batch_id": batch_id})


_CLOSE_FITTING = text("""
    UPDATE rejected_records SET state = 'superseded', last_seen_at = clock_timestamp()
    WHERE id IN (
        SELECT r.id FROM rejected_records r
        JOIN staged_items s ON s.batch_id = :batch_id AND s.external_id = r.external_id
        WHERE r.source_name = :source_name AND r.state = 'open' AND coalesce(r.raw_data_id, 0) <= s.raw_data_id)
""")


def close_met(connection: Connection, source_name: str, changes: Changes) -> None:
    """The cases that are over before anything is loaded.

    Of records that came again as they are served, and of those that had no id and have one now.
    """
    keys = ["=" + key for key in changes.reverted] + [content_hash.hex() for content_hash in changes.identified]
    if keys:
        values = {"source_name": source_name, "keys": msgspec.json.encode(keys).decode()}
        connection.execute(_CLOSE_MET, values)


_CLOSE_MET = text(f"""
    UPDATE rejected_records SET state = 'superseded', last_seen_at = clock_timestamp()
    FROM jsonb_array_elements_text(CAST(:keys AS jsonb)) AS key
    WHERE source_name = :source_name AND state = 'open' AND ({CASE}) = key
""")


def put_poisoned(connection: Connection, claim: Claim, rows: RawRows) -> int:
    """Raw rows of which every worker died; how many."""
    values = rows.values | {"mapping_version": claim.mapping_version}
    count: int = connection.execute(
        text(f"SELECT count(*) FROM raw_data p WHERE {rows.condition}"), values
    ).scalar_one()
    connection.execute(text(_FORGET.format(rows=rows.condition)), values)
    connection.execute(text(_PUT_POISONED.format(rows=rows.condition)), values)
    return count


_FORGET = """
    UPDATE rejected_records c SET state = 'superseded'
    FROM raw_data p
    WHERE {rows} AND c.source_name = p.source_name AND c.state = 'open' AND coalesce(c.raw_data_id, 0) <= p.id
      AND (c.external_id = p.source_id OR (p.source_id IS NULL AND c.content_hash = p.content_hash))
"""
_PUT_POISONED = """
    INSERT INTO rejected_records (run_id, source_name, source_type, external_id, content_hash, raw_data_id,
                                  raw_ingested_at, stage, field, rule, message, mapping_version, errors)
    SELECT DISTINCT ON (coalesce('=' || p.source_id, encode(p.content_hash, 'hex')))
        :run_id, p.source_name, p.source_type, p.source_id, p.content_hash, p.id, p.ingested_at, 'normalize', '',
        'poison', 'every worker that took this record died', :mapping_version, '[]'
    FROM raw_data p
    WHERE {rows} AND NOT EXISTS (
        SELECT 1 FROM unified_items i
        WHERE i.source_name = p.source_name AND i.external_id = p.source_id AND i.raw_data_id > p.id)
    ORDER BY coalesce('=' || p.source_id, encode(p.content_hash, 'hex')), p.id DESC
    ON CONFLICT DO NOTHING
"""


def reasons(connection: Connection, run_id: UUID) -> list[Reason]:
    """Why records that a run fetched or drove again are in quarantine, the commonest reason first.

    Where it has put none there, those that it met again: of the source.
    """
    values = {"run_id": run_id, "most": _MOST_REASONS}
    rows = connection.execute(_REASONS, values).all() or connection.execute(_REASONS_MET, values).all()
    return [Reason(row.field, row.rule, row.records, row.value, row.message) for row in rows]


_BY_REASON = """
    SELECT field, rule, count(*) AS records, (array_agg(value ORDER BY id))[1] AS value,
        (array_agg(message ORDER BY id))[1] AS message
    FROM ({met}) met
    GROUP BY field, rule ORDER BY count(*) DESC, field, rule LIMIT :most"""
_REASONS = text(
    _BY_REASON.format(
        met="""
        SELECT * FROM rejected_records WHERE run_id = :run_id AND state = 'open'
        UNION ALL
        SELECT c.* FROM etl_runs r
        JOIN rejected_records c ON c.source_name = r.source_name AND c.state = 'open' AND c.driven_by = r.run_id
        WHERE r.run_id = :run_id AND r.lane = 'replay' AND c.run_id <> r.run_id"""
    )
)
_REASONS_MET = text(
    _BY_REASON.format(
        met="""
        SELECT * FROM rejected_records
        WHERE source_name = (SELECT source_name FROM etl_runs WHERE run_id = :run_id) AND state = 'open'
        ORDER BY id DESC LIMIT 10000"""
    )
)


def _storable(shown: str) -> str:
    return shown.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
