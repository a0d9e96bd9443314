"""The tables of alerts: what was seen, what stands, what is to be told, and to whom it was sent."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, CheckConstraint, ForeignKey, Identity, Index, Integer, PrimaryKeyConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, now, small


def _texts() -> Mapped[list[str]]:
    return mapped_column(server_default="{}")


class SightingRow(Base):
    """How a run ended that failed, or whose source did before; written as the run ends, gone once it is judged."""

    __tablename__ = "alert_sightings"

    sighting_id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    source_name: Mapped[str] = mapped_column(index=True)
    run_id: Mapped[UUID]
    seen_at: Mapped[datetime] = now()
    code: Mapped[str | None]
    message: Mapped[str | None]
    fingerprint: Mapped[str | None]
    size_flag: Mapped[str | None]


class MemberRow(Base):
    """A source, or a part of the service, that a cause affects. It counts from `due_at` on."""

    __tablename__ = "alert_members"
    __table_args__ = (PrimaryKeyConstraint("cause", "name"),)

    cause: Mapped[str]
    name: Mapped[str]
    source_name: Mapped[str | None] = mapped_column(index=True)
    since: Mapped[datetime]
    due_at: Mapped[datetime | None]
    times: Mapped[int] = mapped_column(Integer, server_default="1")
    message: Mapped[str]
    tags: Mapped[list[str]] = _texts()


class IncidentRow(Base):
    """A cause, whether it stands, and what was told of it."""

    __tablename__ = "alert_incidents"
    __table_args__ = (CheckConstraint("told IN ('nothing', 'firing', 'flapping')", name="told"),)

    cause: Mapped[str] = mapped_column(primary_key=True)
    stands: Mapped[bool] = mapped_column(Boolean)
    changed_at: Mapped[datetime]
    told: Mapped[str]
    told_at: Mapped[datetime | None]
    told_members: Mapped[int] = small()
    told_times: Mapped[list[datetime]] = mapped_column(ARRAY(TIMESTAMP(timezone=True)), server_default="{}")
    incident_id: Mapped[UUID | None]
    affected: Mapped[int] = small()
    names: Mapped[list[str]] = _texts()
    tags: Mapped[list[str]] = _texts()


class AlertRow(Base):
    """A message, as it is told."""

    __tablename__ = "alert_outbox"
    __table_args__ = (Index("ix_alert_outbox_created_at", "created_at", "alert_id"),)

    alert_id: Mapped[UUID] = mapped_column(primary_key=True)
    event: Mapped[str]
    kind: Mapped[str | None]
    title: Mapped[str]
    body: Mapped[str]
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = now()


class DeliveryRow(Base):
    """A message on its way to one destination."""

    __tablename__ = "alert_deliveries"
    __table_args__ = (
        PrimaryKeyConstraint("alert_id", "destination"),
        CheckConstraint("state IN ('pending', 'sent', 'failed')", name="state"),
        Index("ix_alert_deliveries_pending", "destination", "created_at", postgresql_where=text("state = 'pending'")),
        Index("ix_alert_deliveries_sent_at", "destination", "sent_at"),
    )

    alert_id: Mapped[UUID] = mapped_column(ForeignKey("alert_outbox.alert_id", ondelete="CASCADE"))
    destination: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="pending")
    attempts: Mapped[int] = small()
    created_at: Mapped[datetime] = now()
    due_at: Mapped[datetime] = now()
    taken_until: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    error: Mapped[str | None]
    refused: Mapped[bool] = mapped_column(server_default=text("false"))


class MuteRow(Base):
    """What nobody wants to be told of until some time: everything, a cause, a source, or sources with a tag."""

    __tablename__ = "alert_mutes"
    __table_args__ = (
        PrimaryKeyConstraint("scope", "subject"),
        CheckConstraint("scope IN ('all', 'cause', 'source', 'tag')", name="scope"),
    )

    scope: Mapped[str]
    subject: Mapped[str]
    until: Mapped[datetime]
    reason: Mapped[str | None]
    made_by: Mapped[str]
    made_at: Mapped[datetime] = now()
