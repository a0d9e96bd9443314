"""Where an item comes from: its stored record, the run that wrote it, and the mapping by which it was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.queries.item_paths import SHOWN
from db.statement import text
from etl.errors import UnknownItemError

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

# Of an earlier record what is larger is not shown: bytes.
LARGEST = 65_536


def get_item(connection: Connection, item_id: int) -> str:
    """One item as JSON, whatever its status.

    Raises:
        UnknownItemError: there is none with this id.
    """
    found: str | None = connection.execute(_ITEM, {"id": item_id}).scalar()
    if found is None:
        raise UnknownItemError(f"there is no item {item_id}")
    return found


_ITEM = text(f"SELECT row_to_json(item)::text FROM (SELECT {SHOWN} FROM unified_items WHERE id = :id) item")


@dataclass(frozen=True)
class Lineage:
    """An item (JSON), and what made it; None of what is not kept any more. `earlier` is JSON too.

    `payload` is the record as the source gave it, as JSON. `fetched_by` is the run that stored it, `written_by` the one
    that wrote the item last: another one after a replay. `requests` are those whose answers the record was
    stored with, at most 20: small pages share a batch. `document` is that of the mapping version.
    `earlier` are the records that the item came from before, newest first, and `erasure` tells that it was erased.
    """

    item: str
    raw_data_id: int
    raw_ingested_at: datetime
    payload: str | None
    fetched_by: UUID | None
    written_by: UUID
    mapping_version: int
    made_at: datetime | None
    made_by: str | None
    document: dict[str, Any] | None
    earlier: str
    requests: list[dict[str, Any]] | None
    erasure: dict[str, Any] | None


def get_lineage(connection: Connection, item_id: int) -> Lineage:
    """Where one item comes from.

    Raises:
        UnknownItemError: there is none with this id.
    """
    item = get_item(connection, item_id)
    row = connection.execute(_LINEAGE, {"id": item_id, "largest": LARGEST}).first()
    if row is None:
        raise UnknownItemError(f"there is no item {item_id}")
    return Lineage(item=item, **row._asdict())


_LINEAGE = text("""
    SELECT i.raw_data_id, i.raw_ingested_at, p.raw_payload::text AS payload, p.run_id AS fetched_by,
        i.run_id AS written_by, i.mapping_version, v.made_at, v.made_by, v.document,
        coalesce((
            SELECT jsonb_agg(jsonb_build_object('raw_data_id', e.id, 'ingested_at', e.ingested_at, 'run_id', e.run_id,
                'payload', CASE WHEN pg_column_size(e.raw_payload) <= :largest THEN e.raw_payload END)
                ORDER BY e.id DESC)
            FROM raw_data e WHERE e.source_name = i.source_name AND e.id = ANY (i.earlier)), '[]')::text AS earlier,
        -- of a page that fills several batches, those of the first of them
        (SELECT jsonb_agg(to_jsonb(q) - 'run_id' - 'request_id' - 'batch' ORDER BY q.request_id) FROM (
            SELECT * FROM etl_requests q
            WHERE q.run_id = p.run_id AND q.error IS NULL AND q.batch = (
                SELECT max(q.batch) FROM etl_requests q WHERE q.run_id = p.run_id AND q.batch <= (
                    SELECT min(b.number) FROM etl_batches b
                    WHERE b.run_id = p.run_id AND p.id BETWEEN b.first_raw_id AND b.last_raw_id))
            ORDER BY q.request_id LIMIT 20) q) AS requests,
        (SELECT jsonb_build_object('reason', x.reason, 'asked_at', x.asked_at, 'done_at', x.done_at)
         FROM erasures x WHERE x.item_id = i.id) AS erasure
    FROM unified_items i
    LEFT JOIN raw_data p ON p.id = i.raw_data_id AND p.ingested_at = i.raw_ingested_at
    LEFT JOIN LATERAL (
        SELECT made_at, made_by, document FROM source_versions v
        WHERE v.source_name = i.source_name AND v.mapping_version = i.mapping_version
        ORDER BY version LIMIT 1) v ON true
    WHERE i.id = :id
""")
