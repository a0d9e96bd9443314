"""The tables of what is wrong with records: quarantine, and what their fields have been like."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, CheckConstraint, Double, Identity, Index, Integer, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, now

# What makes two rejects one case: their id, or where there is none what they say.
CASE = "coalesce('=' || external_id, encode(content_hash, 'hex'))"


class RejectRow(Base):
    """A quarantined record: the first of its fields that broke a rule, and all of them. A record has one open case."""

    __tablename__ = "rejected_records"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'redriven', 'discarded', 'superseded')", name="state"),
        CheckConstraint("stage IN ('extract', 'normalize')", name="stage"),
        Index("ix_rejected_records_open", "source_name", "content_hash", postgresql_where=text("state = 'open'")),
        Index(
            "ix_rejected_records_discarded",
            "source_name",
            "content_hash",
            postgresql_where=text("state = 'discarded'"),
        ),
        Index("ix_rejected_records_closed", "last_seen_at", postgresql_where=text("state <> 'open'")),
        Index("ix_rejected_records_by_state", "state", "id"),
        Index("ix_rejected_records_of_source", "source_name", "state", "id"),
        Index("ix_rejected_records_raw", "source_name", "raw_data_id"),
        Index("ix_rejected_records_run", "run_id"),
        Index(
            "uq_rejected_records_case",
            "source_name",
            text(f"({CASE})"),
            unique=True,
            postgresql_where=text("state = 'open'"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    run_id: Mapped[UUID]
    source_name: Mapped[str]
    source_type: Mapped[str]
    external_id: Mapped[str | None]
    content_hash: Mapped[bytes]
    raw_data_id: Mapped[int | None]
    raw_ingested_at: Mapped[datetime | None]
    raw_bytes: Mapped[bytes | None]
    raw_truncated: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    stage: Mapped[str]
    field: Mapped[str]
    rule: Mapped[str]
    value: Mapped[str | None]
    message: Mapped[str]
    mapping_version: Mapped[int] = mapped_column(Integer)
    errors: Mapped[list[Any] | None] = mapped_column(JSONB)
    state: Mapped[str] = mapped_column(server_default="open")
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    reason: Mapped[str | None]
    driven_by: Mapped[UUID | None]
    earlier: Mapped[list[Any] | None] = mapped_column(JSONB)
    first_seen_at: Mapped[datetime] = now()
    last_seen_at: Mapped[datetime] = now()


class FieldRow(Base):
    """What a field of a source's records, or of its items, has been like: how often it was seen, and of what kinds.

    `seen` and the counts in `kinds` fade, so that they say what is usual now. `drift` is what is wrong with it.
    """

    __tablename__ = "source_fields"
    __table_args__ = (
        CheckConstraint("scope IN ('item', 'record')", name="scope"),
        Index("ix_source_fields_drift", "source_name", postgresql_where=text("drift IS NOT NULL")),
    )

    source_name: Mapped[str] = mapped_column(primary_key=True)
    scope: Mapped[str] = mapped_column(primary_key=True)
    field: Mapped[str] = mapped_column(primary_key=True)
    first_seen_at: Mapped[datetime] = now()
    last_seen_at: Mapped[datetime] = now()
    seen: Mapped[float] = mapped_column(Double)
    kinds: Mapped[dict[str, Any]]
    sample: Mapped[str | None]
    drift: Mapped[dict[str, Any] | None]
    mapping_version: Mapped[int] = mapped_column(Integer)
