"""Items on their way out: ranges of ids as text that PostgreSQL writes, and a record of each export."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from db.copy import copy_out
from db.queries.item_paths import Filters, conditions, filter_values
from db.queries.item_sizes import ESTIMATE
from db.statement import text
from etl.errors import TooManyExportsError, UnknownExportError
from etl.item import COLUMNS, FIELDS, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Row

AT_ONCE = 2
# An export that said nothing for so long is over, whatever became of it: seconds.
SILENT_SECONDS = 60
KEPT_SECONDS = 86_400
# What the items of a range may hold: bytes.
RANGE_BYTES = 2 * 1024 * 1024
PLACES_LOCK = 7236150431
_TIMES = frozenset({"created_at", "updated_at"})
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = tuple(map(ord, "=+-@\t\r\n"))


# The columns that can be had, in their order.
EXPORTED = ("id", "source_type", "source_name", "external_id", *COLUMNS, "status", "created_at", "updated_at")


class Format(StrEnum):
    """How items are written."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


# JSON holds neither of the characters that stand in for quotes and commas, so that nothing of it is quoted.
_OPTIONS = {
    Format.CSV: "FORMAT csv",
    Format.PARQUET: "FORMAT csv",
    Format.NDJSON: "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'",
}


@dataclass(frozen=True)
class Wanted:
    """Which items, which of their columns, and how they are written."""

    filters: Filters
    columns: Sequence[str]
    format: Format


@dataclass(frozen=True)
class Range:
    """The items of a range of ids: their text, and how many there are."""

    text: bytes
    items: int
    until: int


def begin_export(connection: Connection, export_id: UUID, wanted: Wanted) -> int:
    """Put an export on record; the last id that there is.

    Raises:
        TooManyExportsError: as many go on as may.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": PLACES_LOCK})
    # Its own is there when the answer to an earlier try was lost.
    running = connection.execute(_RUNNING, {"silent": SILENT_SECONDS, "export_id": export_id}).scalar_one()
    if running >= AT_ONCE:
        raise TooManyExportsError(f"{AT_ONCE} exports go on; ask again later")
    query = text("""
        INSERT INTO exports (export_id, format, state) VALUES (:export_id, :format, 'running')
        ON CONFLICT (export_id) DO NOTHING
    """)
    connection.execute(query, {"export_id": export_id, "format": wanted.format})
    return last_id(connection)


def last_id(connection: Connection) -> int:
    """The last id that there is."""
    return int(connection.execute(text("SELECT coalesce(max(id), 0) FROM unified_items")).scalar_one())


def origin(connection: Connection) -> str:
    """Which database this is, wherever it is reached; another one once it was restored."""
    query = text("""
        SELECT concat_ws(' ', system_identifier, timeline_id, (
            SELECT oid FROM pg_database WHERE datname = current_database()), pg_relation_filenode('unified_items'))
        FROM pg_control_system(), pg_control_checkpoint()
    """)
    return str(connection.execute(query).scalar_one())


_RUNNING = text("""
    SELECT count(*) FROM exports
    WHERE state = 'running' AND export_id <> :export_id AND seen_at > clock_timestamp() - make_interval(secs => :silent)
""")


def note_export(connection: Connection, export_id: UUID, items: int, state: str, sha256: str | None = None) -> None:
    """Note how far an export is, and how it ended."""
    query = text("""
        UPDATE exports SET items = :items, state = :state, sha256 = :sha256, seen_at = clock_timestamp()
        WHERE export_id = :export_id AND state = 'running'
    """)
    connection.execute(query, {"export_id": export_id, "items": items, "state": state, "sha256": sha256})


def find_export(connection: Connection, export_id: UUID) -> Row[Any]:
    """An export of the last day; one that says nothing any more is `broken`.

    Raises:
        UnknownExportError: there is none.
    """
    query = text("""
        SELECT export_id, format, items, sha256, started_at, seen_at,
            CASE WHEN state = 'running' AND seen_at < clock_timestamp() - make_interval(secs => :silent)
                THEN 'broken' ELSE state END AS state
        FROM exports WHERE export_id = :export_id
    """)
    row = connection.execute(query, {"export_id": export_id, "silent": SILENT_SECONDS}).first()
    if row is None:
        raise UnknownExportError(f"there is no export {export_id}")
    return row


def last_at_once(connection: Connection, wanted: Wanted, after: int, until: int, last: int) -> int:
    """The last id of the range that begins after one, ends with another, and is short enough to be read at once.

    Where nothing is in it, it goes on to the next item that there is, or to the last one: ids have gaps of any width.
    """
    query = text(f"SELECT sum({ESTIMATE}) FROM unified_items WHERE {_within(wanted)}")
    while (size := connection.execute(query, _ids(wanted, after, until)).scalar()) and size > RANGE_BYTES:
        if until - after == 1:
            return until
        until = after + (until - after) // 2
    return until if size else _before_next(connection, until, last)


def _before_next(connection: Connection, until: int, last: int) -> int:
    found = connection.execute(text("SELECT min(id) FROM unified_items WHERE id > :until"), {"until": until}).scalar()
    return last if found is None else max(until, min(last, found - 1))


def read_range(connection: Connection, wanted: Wanted, after: int, until: int) -> Range:
    """The items of a range of ids."""
    query = text(f"SELECT {shown(wanted)} FROM unified_items i WHERE {_within(wanted)} ORDER BY id")
    return Range(*copy_out(connection, query, _ids(wanted, after, until), _OPTIONS[wanted.format]), until)


def _within(wanted: Wanted) -> str:
    return f"id > :after AND id <= :until AND {conditions(wanted.filters)}"


def _ids(wanted: Wanted, after: int, until: int) -> dict[str, Any]:
    return filter_values(wanted.filters) | {"after": after, "until": until}


def shown(wanted: Wanted) -> str:
    """How the items are written, as SQL."""
    if wanted.format is Format.CSV:
        return ", ".join(map(_cell, wanted.columns))
    if wanted.format is Format.PARQUET:
        return ", ".join(map(_value, wanted.columns))
    # As rows of a table of its own: quicker than to build objects.
    return f"row_to_json((SELECT r FROM (SELECT {', '.join(f'i.{name}' for name in wanted.columns)}) r))"


def _cell(name: str) -> str:
    """A cell: texts begin no formula, and numbers stay numbers."""
    if is_time(name):
        return _time(name)
    if name == "id" or is_number(name):
        return f"i.{name}"
    value = f"array_to_string(i.{name}, ', ')" if _kind(name) is Kind.TAGS else f"i.{name}::text"
    return f"CASE WHEN ascii({value}) IN {_FORMULA} THEN '''' || {value} ELSE {value} END"


def _value(name: str) -> str:
    """A value as it is; tags and metadata are JSON."""
    if is_time(name):
        return _time(name)
    return f"to_json(i.{name})" if _kind(name) is Kind.TAGS else f"i.{name}"


def _time(name: str) -> str:
    return f"""to_char(i.{name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24\\:MI\\:SS.US"Z"')"""


def is_time(name: str) -> bool:
    """Whether a column holds times."""
    return name in _TIMES or _kind(name) is Kind.TIME


def is_number(name: str) -> bool:
    """Whether a column holds numbers, of any size."""
    return _kind(name) is Kind.NUMBER


def _kind(name: str) -> Kind | None:
    return next((field.kind for field in FIELDS if field.name == name), None)


def purge_exports(connection: Connection) -> int:
    """Forget exports that ended long ago; how many."""
    query = text("""
        DELETE FROM exports
        WHERE started_at < clock_timestamp() - make_interval(secs => :seconds)
          AND seen_at < clock_timestamp() - make_interval(secs => :seconds)
    """)
    return connection.execute(query, {"seconds": KEPT_SECONDS}).rowcount
