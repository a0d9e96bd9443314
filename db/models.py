"""The tables. Queries are written in SQL beside them; these definitions are what migrations are checked against."""

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
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    TextClause,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

import db.quality  # noqa: F401 -- its tables belong to the schema
from db.base import Base, Xid8, counter, now, small
from db.queries.item_paths import CATEGORY_KEY, TITLE_KEY
from db.states import ACTIVE_RUN, OPEN_BATCH, one_of
from etl.runs.outcome import BatchState, Lane, Stage, Status, Trigger

SEARCH = (
    "setweight(to_tsvector('simple'::regconfig, \"left\"(COALESCE(title, ''::text), 1000)), 'A'::\"char\") || "
    "setweight(to_tsvector('simple'::regconfig, \"left\"(COALESCE(description, ''::text), 24000)), 'B'::\"char\")"
)

# What an index holds beside its key, so that filters and other orders need no look at the rows.
TYPE, NUMBERS = ["source_type"], ["amount", "rating"]


def _item_index(
    name: str, *key: str | TextClause, also: Sequence[str] = (), using: str = "btree", status: str = "active"
) -> Index:
    """An index over the items of one status."""
    return Index(
        f"ix_unified_items_{name}",
        *key,
        postgresql_include=also,
        postgresql_using=using,
        postgresql_where=text(f"status = '{status}'"),
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


class SourceRow(Base):
    """A declared source, and when it is due."""

    __tablename__ = "sources"
    __table_args__ = (
        CheckConstraint("name ~ '^[a-z0-9_]{1,100}$'", name="name"),
        CheckConstraint("id_form IN ('plain', 'resolved')", name="id_form"),
        Index("ix_sources_due", "next_run_at", postgresql_where=text("enabled")),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    config: Mapped[dict[str, Any]]
    mapping_version: Mapped[int] = mapped_column(Integer, server_default="1")
    version: Mapped[int] = mapped_column(Integer, server_default="1")
    enabled: Mapped[bool]
    paused_until: Mapped[datetime | None]
    next_run_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    not_before_reason: Mapped[str | None]
    rest: Mapped[dict[str, Any] | None]
    moved_to: Mapped[str | None]
    moved_count: Mapped[int] = small()
    gone_reason: Mapped[str | None]
    answered_at: Mapped[datetime | None]
    misses: Mapped[int] = small()
    deaths: Mapped[int] = small()
    death_cause: Mapped[str | None]
    id_form: Mapped[str] = mapped_column(server_default="resolved")
    origin: Mapped[str]
    created_at: Mapped[datetime] = now()
    updated_at: Mapped[datetime] = now()


class RunRow(Base):
    """One pass over a source: its claim, its place in the source, and how it ended."""

    __tablename__ = "etl_runs"
    __table_args__ = (
        CheckConstraint(one_of("status", Status), name="status"),
        CheckConstraint(one_of("stage", Stage), name="stage"),
        CheckConstraint(one_of("trigger", Trigger), name="trigger"),
        CheckConstraint(one_of("lane", Lane), name="lane"),
        Index("uq_etl_runs_active", "source_name", "lane", unique=True, postgresql_where=text(ACTIVE_RUN)),
        Index(
            "uq_etl_runs_slot",
            "source_name",
            "scheduled_for",
            unique=True,
            postgresql_where=text("scheduled_for IS NOT NULL"),
        ),
        Index("ix_etl_runs_recent", "created_at", "run_id"),
        Index("ix_etl_runs_status", "status", "created_at", "run_id"),
        Index("ix_etl_runs_of_source", "source_name", "created_at", "run_id"),
        Index("ix_etl_runs_dispatch", "dispatched_at", postgresql_where=text(ACTIVE_RUN)),
        Index("ix_etl_runs_claimed", "dispatched_at", postgresql_where=text("claimed_at IS NOT NULL")),
        Index("ix_etl_runs_rollup", "completed_at", postgresql_where=text("NOT rolled_up")),
        Index(
            "ix_etl_runs_slow",
            "dispatched_at",
            postgresql_where=text(f"slow AND {ACTIVE_RUN} AND extracted_at IS NULL"),
        ),
    )

    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    source_name: Mapped[str]
    source_type: Mapped[str | None]
    lane: Mapped[str] = mapped_column(server_default="fetch")
    trigger: Mapped[str]
    status: Mapped[str]
    stage: Mapped[str]
    scheduled_for: Mapped[datetime | None]
    slots_missed: Mapped[int] = small()
    created_at: Mapped[datetime] = now()
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    attempt: Mapped[int] = small()
    token: Mapped[int] = counter()
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    not_before: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    dispatch_count: Mapped[int] = small()
    claimed_at: Mapped[datetime | None]
    position: Mapped[dict[str, Any] | None]
    batches: Mapped[int] = small()
    extracted_at: Mapped[datetime | None]
    records_extracted: Mapped[int] = counter()
    records_inserted: Mapped[int] = counter()
    records_updated: Mapped[int] = counter()
    records_unchanged: Mapped[int] = counter()
    records_duplicate: Mapped[int] = counter()
    records_failed: Mapped[int] = counter()
    records_corrected: Mapped[int] = counter()
    rows_skipped: Mapped[int] = counter()
    pages: Mapped[int] = counter()
    bytes: Mapped[int] = counter()
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    checkpoint_before: Mapped[dict[str, Any] | None]
    checkpoint_after: Mapped[dict[str, Any] | None]
    rolled_up: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    slow: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    read_all: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    failing_since: Mapped[datetime | None]


class BatchRow(Base):
    """A range of a run's raw rows, and how far it has come. `part` tells the halves of a halved batch apart."""

    __tablename__ = "etl_batches"
    __table_args__ = (
        UniqueConstraint("run_id", "number", "part"),
        CheckConstraint(one_of("state", BatchState), name="state"),
        Index("ix_etl_batches_open", "run_id", postgresql_where=text(OPEN_BATCH)),
        Index("ix_etl_batches_dispatch", "dispatched_at", postgresql_where=text(OPEN_BATCH)),
        Index("ix_etl_batches_claimed", "dispatched_at", postgresql_where=text("claimed_at IS NOT NULL")),
        Index("ix_etl_batches_rollup", "batch_id", postgresql_where=text(f"NOT rolled_up AND NOT ({OPEN_BATCH})")),
    )

    batch_id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("etl_runs.run_id", ondelete="CASCADE"))
    source_name: Mapped[str]
    number: Mapped[int] = mapped_column(Integer)
    part: Mapped[str] = mapped_column(server_default="")
    first_raw_id: Mapped[int | None]
    last_raw_id: Mapped[int | None]
    state: Mapped[str]
    token: Mapped[int] = counter()
    attempt: Mapped[int] = small()
    lease_expires_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    dispatch_count: Mapped[int] = small()
    claimed_at: Mapped[datetime | None]
    staged_count: Mapped[int | None]
    staged_token: Mapped[int | None]
    mapping_version: Mapped[int | None] = mapped_column(Integer)
    failing_since: Mapped[datetime | None]
    failure: Mapped[str | None]
    records_extracted: Mapped[int] = counter()
    records_inserted: Mapped[int] = counter()
    records_updated: Mapped[int] = counter()
    records_unchanged: Mapped[int] = counter()
    records_duplicate: Mapped[int] = counter()
    records_failed: Mapped[int] = counter()
    records_corrected: Mapped[int] = counter()
    records_failed_again: Mapped[int] = counter()
    records_unmapped: Mapped[int] = counter()
    observed: Mapped[dict[str, Any] | None]
    reader: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime] = now()
    normalized_at: Mapped[datetime | None]
    loaded_at: Mapped[datetime | None]
    rolled_up: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))


class EventRow(Base):
    """What happened to a run, in order."""

    __tablename__ = "etl_run_events"
    __table_args__ = (Index("ix_etl_run_events_run", "run_id", "event_id"),)

    event_id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("etl_runs.run_id", ondelete="CASCADE"))
    at: Mapped[datetime] = now()
    event: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))


class CheckpointRow(Base):
    """Where the next run of a source starts, and the totals of all runs that are rolled up."""

    __tablename__ = "etl_checkpoints"

    source_name: Mapped[str] = mapped_column(primary_key=True)
    source_type: Mapped[str]
    kind: Mapped[str | None]
    version: Mapped[int] = counter()
    value: Mapped[dict[str, Any] | None]
    run_id: Mapped[UUID | None]
    last_success_at: Mapped[datetime | None]
    last_failure_at: Mapped[datetime | None]
    last_run_at: Mapped[datetime | None]
    last_status: Mapped[str | None]
    total_items: Mapped[int] = counter()
    total_runs: Mapped[int] = counter()
    total_success: Mapped[int] = counter()
    total_partial: Mapped[int] = counter()
    total_failed: Mapped[int] = counter()
    total_extracted: Mapped[int] = counter()
    total_seconds: Mapped[Decimal] = mapped_column(Numeric, server_default="0")
    updated_at: Mapped[datetime] = now()


class TotalsRow(Base):
    """The sums of the sources' counters by type; made anew from them by each roll-up."""

    __tablename__ = "etl_totals"

    source_type: Mapped[str] = mapped_column(primary_key=True)
    items: Mapped[int] = counter()
    judged: Mapped[int] = counter()
    seconds: Mapped[Decimal] = mapped_column(Numeric, server_default="0")
    last_success_at: Mapped[datetime | None]
    last_failure_at: Mapped[datetime | None]


class RawRow(Base):
    """A record as the source gave it. Partitioned by month; no foreign key points here."""

    __tablename__ = "raw_data"
    __table_args__ = (
        PrimaryKeyConstraint("id", "ingested_at"),
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


class ItemRow(ItemContent, Base):
    """A thing as we serve it: one per source and external id."""

    __tablename__ = "unified_items"
    __table_args__ = (
        UniqueConstraint("source_name", "external_id"),
        CheckConstraint("octet_length(external_id) <= 1000", name="external_id"),
        CheckConstraint("status IN ('active', 'deleted')", name="status"),
        _item_index("by_created", "created_at", "id", also=TYPE),
        _item_index("by_updated", "updated_at", "id", also=[*TYPE, "created_at", "published_at", *NUMBERS]),
        _item_index("by_published", "published_at", "id", also=[*TYPE, "created_at", "updated_at", *NUMBERS]),
        _item_index("by_title", text(f"({TITLE_KEY})"), "id", also=TYPE),
        _item_index("by_amount", "amount", "id", also=TYPE),
        _item_index("by_rating", "rating", "id", also=TYPE),
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
    change_xid: Mapped[str] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))
    search: Mapped[str | None] = mapped_column(TSVECTOR, Computed(SEARCH, persisted=True))


class WorkerRow(Base):
    """A process that was seen alive: what `/health` counts, with no broker needed."""

    __tablename__ = "etl_workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    started_at: Mapped[datetime] = now()
    seen_at: Mapped[datetime] = now()
    processes: Mapped[int] = mapped_column(Integer, server_default="1")


class AlarmRow(Base):
    """Something that is wrong with the service as a whole, found by a sweeper; `/health` gives it as a reason."""

    __tablename__ = "etl_alarms"

    code: Mapped[str] = mapped_column(primary_key=True)
    message: Mapped[str]
    since: Mapped[datetime] = now()


class LookRow(Base):
    """How far a check has come that goes through a table in steps: the last id it has seen."""

    __tablename__ = "etl_looks"

    name: Mapped[str] = mapped_column(primary_key=True)
    seen: Mapped[int] = counter()
    looked_at: Mapped[datetime] = now()
