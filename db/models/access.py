"""The tables of callers: their keys, what they did, and what they were answered."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, Integer, PrimaryKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, now
from db.states import one_of
from etl.access.roles import Role


class KeyRow(Base):
    """An API key: of the key itself, only the hash. `last_used_at` is right to a minute."""

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint(one_of("role", Role), name="role"),)

    key_id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    prefix: Mapped[str] = mapped_column(unique=True)
    hash: Mapped[str]
    name: Mapped[str]
    role: Mapped[str]
    created_at: Mapped[datetime] = now()
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    replaced_by: Mapped[int | None] = mapped_column(Integer)


class SessionRow(Base):
    """A session of the pages, or the link that may begin one. `mark` is that of the key that it came from, if any."""

    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint(one_of("role", Role), name="role"),
        CheckConstraint("(link_hash IS NULL) <> (token_hash IS NULL)", name="form"),
        Index("ix_sessions_expires_at", "expires_at"),
    )

    session_id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str]
    role: Mapped[str]
    mark: Mapped[str | None]
    key_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("api_keys.key_id"))
    link_hash: Mapped[str | None] = mapped_column(unique=True)
    token_hash: Mapped[str | None] = mapped_column(unique=True)
    created_at: Mapped[datetime] = now()
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class AuditRow(Base):
    """A write over the API or by a command: who did what to what, and what that was before and after."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_target", "target", "audit_id"), Index("ix_audit_log_at", "at"))

    audit_id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime] = now()
    actor: Mapped[str]
    action: Mapped[str]
    target: Mapped[str | None]
    detail: Mapped[dict[str, Any]]


class AnswerRow(Base):
    """What a caller was answered who gave an `Idempotency-Key`, and to which request."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        PrimaryKeyConstraint("caller", "key"),
        Index("ix_idempotency_keys_created_at", "created_at"),
    )

    caller: Mapped[str]
    key: Mapped[str]
    request_hash: Mapped[bytes]
    created_at: Mapped[datetime] = now()
    status: Mapped[int | None] = mapped_column(Integer)
    headers: Mapped[dict[str, Any] | None]
    body: Mapped[bytes | None]
