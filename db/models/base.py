"""What the tables have in common: types, names of constraints, and columns that many have."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Integer, LargeBinary, MetaData, Numeric, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID as PG_UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Xid8(UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in DDL."""
        return "xid8"


class Snapshot(UserDefinedType[str]):
    """Which transactions of PostgreSQL could be seen."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in DDL."""
        return "pg_snapshot"


# What SQLAlchemy does not know when it finds it in a database.
TYPES = {"xid8": Xid8, "pg_snapshot": Snapshot}


class Base(DeclarativeBase):
    """Common types and constraint names."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 -- SQLAlchemy's own name
        str: Text,
        int: BigInteger,
        Decimal: Numeric,
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
        UUID: PG_UUID(as_uuid=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
        list[int]: ARRAY(BigInteger),
    }


def counter() -> Mapped[int]:
    """A large number that starts at zero."""
    return mapped_column(BigInteger, server_default="0")


def small() -> Mapped[int]:
    """A number that starts at zero and stays small."""
    return mapped_column(Integer, server_default="0")


def now() -> Mapped[datetime]:
    """The time at which a row is written."""
    return mapped_column(DateTime(timezone=True), server_default=text("clock_timestamp()"))
