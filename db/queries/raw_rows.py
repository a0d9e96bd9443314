"""The raw rows of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.statement import text
from etl.records import StoredRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection


@dataclass(frozen=True)
class RawRows:
    """Those that its own run stored between a first and a last id; or those listed, stored in a span of time."""

    run_id: UUID
    first: int
    last: int
    ids: list[int] | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def condition(self) -> str:
        """In SQL, of `raw_data p`."""
        if self.ids is None:
            return "p.id BETWEEN :first AND :last AND p.run_id = :run_id"
        return "p.id = ANY (:ids) AND p.ingested_at BETWEEN :since AND :until"

    @property
    def values(self) -> dict[str, Any]:
        """Its parameters."""
        return dict(vars(self))


def find_ids(connection: Connection, rows: RawRows) -> Sequence[int]:
    """The different ids of the rows, in order."""
    query = text(f"SELECT DISTINCT p.id FROM raw_data p WHERE {rows.condition} ORDER BY p.id")
    return connection.execute(query, rows.values).scalars().all()


def read_rows(connection: Connection, rows: RawRows) -> list[StoredRecord]:
    """The rows themselves, in the order in which the source gave them."""
    query = text(f"""
        SELECT p.id, p.ingested_at::text, p.source_id, p.content_hash, p.raw_payload::text FROM raw_data p
        WHERE {rows.condition} ORDER BY p.id
    """)
    # Taken at once: one by one each row costs a call through several layers.
    found = connection.execute(query, rows.values).all()
    return [StoredRecord(raw_id, at, key, bytes(content_hash), body) for raw_id, at, key, content_hash, body in found]
