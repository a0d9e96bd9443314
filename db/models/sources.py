"""The tables of sources: what is declared, where the next run starts, and the counters of all runs."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Double, Index, Integer, Numeric, PrimaryKeyConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, counter, now, small


class SourceRow(Base):
    """A declared source, and when it is due. It is late when it was not read for `late_after` seconds."""

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
    late_after: Mapped[float | None] = mapped_column(Double)
    late_since: Mapped[datetime | None]
    deaths: Mapped[int] = small()
    death_cause: Mapped[str | None]
    id_form: Mapped[str] = mapped_column(server_default="resolved")
    origin: Mapped[str]
    created_at: Mapped[datetime] = now()
    updated_at: Mapped[datetime] = now()
    paused_at: Mapped[datetime | None]


class VersionRow(Base):
    """A source as it was declared at some time, by its `version`.

    Those of one `mapping_version` make the same items of the same records, read by `reader` at least. What was mapped
    since `mapped_since` and has not changed counts as unchanged.
    """

    __tablename__ = "source_versions"
    __table_args__ = (
        PrimaryKeyConstraint("source_name", "version"),
        Index("ix_source_versions_made_at", "made_at"),
    )

    source_name: Mapped[str]
    version: Mapped[int] = mapped_column(Integer)
    mapping_version: Mapped[int] = mapped_column(Integer)
    mapped_since: Mapped[int] = mapped_column(Integer)
    reader: Mapped[int] = mapped_column(Integer)
    made_at: Mapped[datetime] = now()
    made_by: Mapped[str]
    document: Mapped[dict[str, Any]]


class RemovalRow(Base):
    """A source that was deleted with its items: how far they are marked as deleted, and since when all are.

    They are removed long after that, so that whoever mirrors them can see it.
    """

    __tablename__ = "source_removals"

    source_name: Mapped[str] = mapped_column(primary_key=True)
    asked_at: Mapped[datetime] = now()
    after: Mapped[str] = mapped_column(server_default="")
    emptied_at: Mapped[datetime | None]


class CheckpointRow(Base):
    """Where the next run of a source starts, and the totals of all runs that are rolled up.

    `sizes` are how many records the last complete runs met, and `size_flag` what was odd about the last of them.
    """

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
    last_read_at: Mapped[datetime | None]
    sizes: Mapped[list[int] | None]
    size_flag: Mapped[str | None]
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


class CounterRow(Base):
    """How many there ever were: runs by how they ended, records by what became of them, and takeovers."""

    __tablename__ = "etl_counters"
    __table_args__ = (PrimaryKeyConstraint("name", "label"),)

    name: Mapped[str]
    label: Mapped[str]
    value: Mapped[int] = counter()


class HourRow(Base):
    """How many runs of fetching ended in an hour, by how they ended."""

    __tablename__ = "etl_hours"
    __table_args__ = (PrimaryKeyConstraint("hour", "status"),)

    hour: Mapped[datetime]
    status: Mapped[str]
    runs: Mapped[int] = counter()
