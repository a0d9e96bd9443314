"""The tables of records: as the source gave them, on their way, and as they are served."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Computed,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    TextClause,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, Xid8, counter, now
from db.queries.item_paths import BY_TYPE, CATEGORY_KEY, TITLE_KEY
from etl.declare.source import SOURCE_TYPES

SEARCH = (
    "setweight(to_tsvector('simple'::regconfig, \"left\"(COALESCE(title, ''::text), 1000)), 'A'::\"char\") || "
    "setweight(to_tsvector('simple'::regconfig, \"left\"(COALESCE(description, ''::text), 24000)), 'B'::\"char\")"
)

# What an index holds beside its key, so that filters and other orders need no look at the rows.
TYPE, NUMBERS = ["source_type"], ["amount", "rating"]


def _item_index(
    name: str,
    *key: str | TextClause,
    also: Sequence[str] = (),
    using: str = "btree",
    status: str = "active",
    of: str | None = None,
) -> Index:
    """An index over the items of one status, and perhaps of one type of source."""
    items = f"status = '{status}'" + (f" AND source_type = '{of}'" if of else "")
    return Index(
        f"ix_unified_items_{name}",
        *key,
        postgresql_include=also,
        postgresql_using=using,
        postgresql_where=text(items),
    )


class ItemContent:
    """What an item says, staged or served."""

    title: Mapped[str | None]
    description: Mapped[str | None]
    category: Mapped[str | None]
    url: Mapped[str | None]
    image_url: Mapped[str | None]
    author: Mapped[str | None]
    amount: Mapped[Decimal | None]
    quantity: Mapped[Decimal | None]
    rating: Mapped[Decimal | None]
    tags: Mapped[list[str] | None]
    published_at: Mapped[datetime | None]


class RawRow(Base):
    """A record as the source gave it. Partitioned by month; no foreign key points here."""

    __tablename__ = "raw_data"
    __table_args__ = (
        PrimaryKeyConstraint("id", "ingested_at"),
        Index("ix_raw_data_of_source", "source_name", "id"),
        {"postgresql_partition_by": "RANGE (ingested_at)"},
    )

    id: Mapped[int] = mapped_column(BigInteger, server_default=text("nextval('raw_data_id_seq'::regclass)"))
    ingested_at: Mapped[datetime] = now()
    run_id: Mapped[UUID]
    source_type: Mapped[str]
    source_name: Mapped[str]
    source_id: Mapped[str | None]
    raw_payload: Mapped[dict[str, Any]]
    content_hash: Mapped[bytes]


class StagedRow(ItemContent, Base):
    """A normalised record on its way into unified_items. Unlogged: a crash empties it, and load notices."""

    __tablename__ = "staged_items"
    __table_args__ = (
        PrimaryKeyConstraint("batch_id", "token", "raw_data_id"),
        {"prefixes": ["UNLOGGED"]},
    )

    batch_id: Mapped[int]
    token: Mapped[int]
    raw_data_id: Mapped[int]
    raw_ingested_at: Mapped[datetime]
    external_id: Mapped[str]
    content_hash: Mapped[bytes]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")


class SeenRow(Base):
    """An id that a run met in a source of which it reads all, each time that it did.

    Unlogged: a crash empties it, and who deletes what was not seen notices.
    """

    __tablename__ = "seen_ids"
    __table_args__ = (
        PrimaryKeyConstraint("run_id", "external_id", "number"),
        {"prefixes": ["UNLOGGED"]},
    )

    run_id: Mapped[UUID]
    external_id: Mapped[str]
    number: Mapped[int]


class ItemRow(ItemContent, Base):
    """A thing as we serve it: one per source and external id. `earlier` are the records that it came from before."""

    __tablename__ = "unified_items"
    __table_args__ = (
        UniqueConstraint("source_name", "external_id"),
        CheckConstraint("octet_length(external_id) <= 1000", name="external_id"),
        CheckConstraint("status IN ('active', 'deleted')", name="status"),
        # What mirrors read, whatever the status.
        Index("ix_unified_items_changed", "change_xid", "id"),
        _item_index("by_created", "created_at", "id", also=TYPE),
        _item_index("by_updated", "updated_at", "id", also=[*TYPE, "created_at", "published_at", *NUMBERS]),
        _item_index("by_published", "published_at", "id", also=[*TYPE, "created_at", "updated_at", *NUMBERS]),
        _item_index("by_title", text(f"({TITLE_KEY})"), "id", also=TYPE),
        *(_item_index(f"{of}_by_{by}", by, "id", of=of) for by in BY_TYPE for of in SOURCE_TYPES),
        _item_index(
            *("of_source", "source_name", "created_at", "id"),
            also=[*TYPE, "updated_at", "published_at", *NUMBERS],
        ),
        _item_index("words", "source_name", text(f"({CATEGORY_KEY})"), "search", using="gin"),
        _item_index(
            *("deleted", "created_at", "id"),
            also=[*TYPE, "source_name", "updated_at", "published_at", *NUMBERS],
            status="deleted",
        ),
        _item_index("deleted_by_title", text(f"({TITLE_KEY})"), "id", also=[*TYPE, "source_name"], status="deleted"),
        _item_index(
            *("deleted_words", "source_name", text(f"({CATEGORY_KEY})"), "search"),
            using="gin",
            status="deleted",
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    source_type: Mapped[str]
    source_name: Mapped[str]
    external_id: Mapped[str]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'::jsonb"))
    status: Mapped[str] = mapped_column(server_default="active")
    created_at: Mapped[datetime] = now()
    updated_at: Mapped[datetime] = now()
    deleted_at: Mapped[datetime | None]
    raw_data_id: Mapped[int]
    raw_ingested_at: Mapped[datetime]
    run_id: Mapped[UUID]
    content_hash: Mapped[bytes]
    mapping_version: Mapped[int] = mapped_column(Integer)
    earlier: Mapped[list[int] | None]
    erased_at: Mapped[datetime | None]
    change_xid: Mapped[str] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))
    search: Mapped[str | None] = mapped_column(TSVECTOR, Computed(SEARCH, persisted=True))


class ErasureRow(Base):
    """A record that was erased, why, and how far its source's stored records were looked through for more of it.

    `settled` says that no run is left which began before and may store it. It stays, so that it does not come back.
    """

    __tablename__ = "erasures"
    __table_args__ = (
        UniqueConstraint("source_name", "external_id"),
        Index("ix_erasures_item", "item_id"),
        Index("ix_erasures_open", "looked_at", postgresql_where=text("done_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    item_id: Mapped[int]
    source_name: Mapped[str]
    external_id: Mapped[str]
    reason: Mapped[str]
    asked_at: Mapped[datetime] = now()
    emptied_at: Mapped[datetime | None]
    after: Mapped[int] = counter()
    raw_ids: Mapped[list[int] | None]
    records: Mapped[int] = counter()
    settled: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    waits: Mapped[float] = mapped_column(Double, server_default="0")
    looked_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default="-infinity")
    done_at: Mapped[datetime | None]
