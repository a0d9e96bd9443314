"""The tables of items on their way out: exports, and for mirrors marks, and how far back changes can be told."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, CheckConstraint, Identity, Index
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, Snapshot, Xid8, counter, now


class MarkRow(Base):
    """When it was written, the transactions of its cluster that `seen` says could be seen."""

    __tablename__ = "mirror_marks"
    __table_args__ = (Index("ix_mirror_marks_at", "at"),)

    mark_id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    nonce: Mapped[UUID] = mapped_column(unique=True)
    horizon: Mapped[str] = mapped_column(Xid8)
    at: Mapped[datetime] = now()
    cluster: Mapped[str | None]
    seen: Mapped[str | None] = mapped_column(Snapshot)


class FloorRow(Base):
    """Items that changed up to `xid` were removed, the last by transaction `raised`; the one row that there is."""

    __tablename__ = "mirror_floor"
    __table_args__ = (CheckConstraint("one", name="one"),)

    one: Mapped[bool] = mapped_column(Boolean, primary_key=True)
    xid: Mapped[str] = mapped_column(Xid8)
    cluster: Mapped[str | None]
    raised: Mapped[str | None] = mapped_column(Xid8)


class ExportRow(Base):
    """An export: how far it is, and once it is complete the checksum of its text."""

    __tablename__ = "exports"
    __table_args__ = (
        CheckConstraint("state IN ('running', 'complete', 'broken')", name="state"),
        Index("ix_exports_started_at", "started_at"),
    )

    export_id: Mapped[UUID] = mapped_column(primary_key=True)
    format: Mapped[str]
    state: Mapped[str]
    items: Mapped[int] = counter()
    sha256: Mapped[str | None]
    started_at: Mapped[datetime] = now()
    seen_at: Mapped[datetime] = now()
