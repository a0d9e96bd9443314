"""COPY: the bulk way into a table, and out of one."""

from __future__ import annotations

import itertools
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection, TextClause

# Between the fields of a line that is still to be escaped: no text that PostgreSQL can hold contains it.
NEXT = "\0"
# What bytea begins with.
HEX = "\\x"
# What goes to the driver at once: characters.
_CHUNK = 256 * 1024


def copy_rows(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Append rows to a table in one COPY. `table` and `columns` are ours, never a user's."""
    _copy(connection, table, columns, _Source(("\t".join(map(_field, row)) for row in rows), "\n".join), null="\\N")


def copy_lines(connection: Connection, table: str, columns: Sequence[str], lines: Iterable[str]) -> None:
    """The same for lines of texts with `NEXT` between them, where an empty text stands for null.

    To escape many lines as one text is several times quicker than to escape each of their fields.
    """
    _copy(connection, table, columns, _Source(lines, _escaped), null="")


def array(values: list[str]) -> str:
    """A list of texts as PostgreSQL writes an array.

    Raises:
        ValueError: one holds NUL, which no text of PostgreSQL's does, and which would end it here.
    """
    if any(NEXT in value for value in values):
        raise ValueError("a text in an array holds NUL")
    quoted = NEXT.join(values).replace("\\", "\\\\").replace('"', '\\"').replace(NEXT, '","')
    return '{"' + quoted + '"}' if values else "{}"


def copy_out(connection: Connection, query: TextClause, values: dict[str, Any], options: str) -> tuple[bytes, int]:
    """The rows of a query as the text that COPY makes of them with these options, and how many there are."""
    driver = connection.connection.driver_connection
    assert driver is not None
    written = BytesIO()
    with driver.cursor() as cursor:
        statement = cursor.mogrify(str(query.compile(dialect=connection.dialect)), values).decode()
        cursor.copy_expert(f"COPY ({statement}) TO STDOUT ({options})", written, _CHUNK)
        return written.getvalue(), cursor.rowcount


def _copy(connection: Connection, table: str, columns: Sequence[str], source: _Source, *, null: str) -> None:
    if source.is_empty:
        return
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor:
        cursor.copy_expert(f"COPY {table} ({', '.join(columns)}) FROM STDIN (NULL '{null}')", source, _CHUNK)


class _Source:
    """Lines as a file that the driver reads from: they are made while the server takes them, and never all held."""

    def __init__(self, lines: Iterable[str], join: Callable[[list[str]], str]) -> None:
        """`join` makes one text of several lines."""
        self._lines = iter(lines)
        self._join = join
        self._first = next(self._lines, None)
        self.is_empty = self._first is None

    def read(self, size: int) -> bytes:
        """At least `size` characters in whole lines, less at the end."""
        taken: list[str] = []
        length = 0
        for line in itertools.chain([] if self._first is None else [self._first], self._lines):
            self._first = None
            taken.append(line)
            length += len(line)
            if length >= size:
                break
        return (self._join(taken) + "\n").encode() if taken else b""


def _escaped(lines: list[str]) -> str:
    together = "\n".join(lines)
    if together.count("\n") >= len(lines):
        # Some end of a line is one of a text.
        return "\n".join(_escape(line).replace(NEXT, "\t") for line in lines)
    return _escape_inline(together).replace(NEXT, "\t")


def _field(value: Any) -> str:
    """One value: text, number, time, bytes or a list of texts."""
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return _escape(value)
    if isinstance(value, bytes):
        return "\\" + HEX + value.hex()
    if isinstance(value, list):
        return _escape(array(value))
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _escape(text: str) -> str:
    return _escape_inline(text).replace("\n", "\\n")


def _escape_inline(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r")
