"""The table of plans."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Integer, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, counter, now, small


class PlanRow(Base):
    """What a replay would do, as far as it is known: of the raw rows up to `after`, by the document that it began with.

    A plan is no run: it writes nothing else, and is kept for a day.
    """

    __tablename__ = "etl_plans"
    __table_args__ = (CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name="state"),)

    plan_id: Mapped[UUID] = mapped_column(primary_key=True)
    source_name: Mapped[str]
    scope: Mapped[dict[str, Any]]
    document: Mapped[dict[str, Any]]
    mapping_version: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(server_default="queued")
    attempt: Mapped[int] = small()
    after: Mapped[int] = counter()
    found: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    message: Mapped[str | None]
    created_at: Mapped[datetime] = now()
    touched_at: Mapped[datetime] = now()
