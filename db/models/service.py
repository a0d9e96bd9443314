"""The tables of the service itself: its processes, what is wrong with it, and how far its checks have come."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Integer, PrimaryKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, counter, now


class WorkerRow(Base):
    """A process that was seen alive: what `/health` counts, with no broker needed."""

    __tablename__ = "etl_workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    started_at: Mapped[datetime] = now()
    seen_at: Mapped[datetime] = now()
    processes: Mapped[int] = mapped_column(Integer, server_default="1")
    reader: Mapped[int | None] = mapped_column(Integer)
    protocol: Mapped[int | None] = mapped_column(Integer)


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


class SizeRow(Base):
    """How large a table was: bytes, with its partitions and indexes."""

    __tablename__ = "etl_sizes"
    __table_args__ = (PrimaryKeyConstraint("name", "at"),)

    at: Mapped[datetime] = now()
    name: Mapped[str]
    bytes: Mapped[int]
