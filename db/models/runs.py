"""The tables of runs: their claims, their batches and what happened to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, counter, now, small
from db.states import ACTIVE_RUN, OPEN_BATCH, one_of
from etl.runs.outcome import BatchState, Lane, Stage, Status, Trigger


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
        Index("ix_etl_runs_backfills", "source_name", "completed_at", postgresql_where=text("lane = 'backfill'")),
        Index("ix_etl_runs_other_lanes", "lane", "created_at", "run_id", postgresql_where=text("lane <> 'fetch'")),
        Index("ix_etl_runs_asked", "trigger", "created_at", "run_id", postgresql_where=text("trigger <> 'schedule'")),
        Index(
            "ix_etl_runs_error_code",
            "error_code",
            "created_at",
            "run_id",
            postgresql_where=text("error_fingerprint IS NOT NULL"),
        ),
        Index(
            "ix_etl_runs_failed",
            "completed_at",
            postgresql_include=["error_fingerprint", "source_name", "run_id"],
            postgresql_where=text("error_fingerprint IS NOT NULL"),
        ),
        Index(
            "ix_etl_runs_failed_of",
            "error_fingerprint",
            "completed_at",
            postgresql_where=text("error_fingerprint IS NOT NULL"),
        ),
        Index(
            "ix_etl_runs_slow",
            "dispatched_at",
            postgresql_where=text(f"slow AND {ACTIVE_RUN} AND extracted_at IS NULL"),
        ),
    )

    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    source_name: Mapped[str]
    source_type: Mapped[str | None]
    source_version: Mapped[int | None] = mapped_column(Integer)
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
    ids_seen: Mapped[int] = counter()
    ids_lacking: Mapped[int] = counter()
    items_deleted: Mapped[int] = counter()
    requests: Mapped[int] = small()
    pages: Mapped[int] = counter()
    bytes: Mapped[int] = counter()
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    checkpoint_before: Mapped[dict[str, Any] | None]
    checkpoint_after: Mapped[dict[str, Any] | None]
    rolled_up: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    slow: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    read_all: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    accept_deletions: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    failing_since: Mapped[datetime | None]
    scope: Mapped[dict[str, Any] | None]
    error_fingerprint: Mapped[str | None]


class BatchRow(Base):
    """A range of a run's raw rows, and how far it has come. `part` tells the halves of a halved batch apart.

    One of a replay lists its rows, whichever run fetched them, and the span of time in which they were stored; it is
    worked on after others. `items_gained` is by how many more items are served since: fewer after a deletion.
    """

    __tablename__ = "etl_batches"
    __table_args__ = (
        UniqueConstraint("run_id", "number", "part"),
        CheckConstraint(one_of("state", BatchState), name="state"),
        Index("ix_etl_batches_open", "run_id", postgresql_where=text(OPEN_BATCH)),
        Index("ix_etl_batches_dropped", "source_name", "run_id", postgresql_where=text("state = 'dropped'")),
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
    raw_ids: Mapped[list[int] | None]
    raw_since: Mapped[datetime | None]
    raw_until: Mapped[datetime | None]
    low: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
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
    records_discarded: Mapped[int] = counter()
    items_gained: Mapped[int | None]
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


class RequestRow(Base):
    """An HTTP request of a run: what was asked, without secrets, and what came of it.

    Its answer begins in a `batch`, if it held records.
    """

    __tablename__ = "etl_requests"
    __table_args__ = (Index("ix_etl_requests_run", "run_id", "request_id"),)

    request_id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("etl_runs.run_id", ondelete="CASCADE"))
    batch: Mapped[int | None] = mapped_column(Integer)
    at: Mapped[datetime]
    method: Mapped[str]
    url: Mapped[str]
    status: Mapped[int | None] = mapped_column(Integer)
    bytes: Mapped[int] = counter()
    seconds: Mapped[float] = mapped_column(Double)
    attempt: Mapped[int] = mapped_column(Integer)
    error: Mapped[str | None]
