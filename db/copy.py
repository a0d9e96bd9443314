"""COPY: the bulk way into a table."""

from __future__ import annotations

import io
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from decimal import Decimal

    from sqlalchemy import Connection

NULL = b"\\N"


def copy_rows(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Append rows to a table in one COPY. `table` and `columns` are ours, never a user's."""
    lines = [b"\t".join(map(field, row)) for row in rows]
    if not lines:
        return
    buffer = io.BytesIO(b"\n".join(lines) + b"\n")
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor:
        cursor.copy_expert(f"COPY {table} ({', '.join(columns)}) FROM STDIN", buffer)


def field(value: Any) -> bytes:
    """One value in COPY's text format. Bytes are bytea; `Json` is for texts known to be JSON."""
    if value is None:
        return NULL
    if isinstance(value, Json):
        # JSON text escapes control characters itself; only its backslashes need doubling.
        return value.replace(b"\\", b"\\\\")
    if isinstance(value, str):
        return _escape(value.encode())
    if isinstance(value, bytes):
        return b"\\\\x" + value.hex().encode()
    return _other(value)


def _other(value: list[str] | datetime | int | Decimal) -> bytes:
    if isinstance(value, list):
        return _escape(_array(value))
    if isinstance(value, datetime):
        return value.isoformat().encode()
    # PostgreSQL reads Python's True and False as they are.
    return str(value).encode()


class Json(bytes):
    """A JSON text on its way into a jsonb column."""

    __slots__ = ()


def _escape(text: bytes) -> bytes:
    return text.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def _array(values: list[str]) -> bytes:
    quoted = ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]
    return ("{" + ",".join(quoted) + "}").encode()
