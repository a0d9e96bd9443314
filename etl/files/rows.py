"""Rows of a CSV file as records, in stretches: quickly where all is well, row by row where it is not.

A stretch is parsed as a whole. If anything in it is odd (a byte that is not text, a row that is too long, a quote that
is not closed), the same bytes are read again row by row, so that each bad row costs only itself.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from etl.files.broken import OPEN, Row, ShortRows, are_parts, count_fields, read_rows
from etl.files.form import is_empty
from etl.files.header import numbered
from etl.files.lines import Lines
from etl.records import BadRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.files.form import Form
    from etl.records import Record

# The bytes of a stretch, small enough for the cache of a processor, and the rows of one that is read row by row.
CHUNK = 64 * 1024
SLOW_ROWS = 1000
# Rows that lack fields, until one that does not shows what they are: bytes.
MAX_HELD = 1024 * 1024
# In mode append, what may still be being written: bytes.
MAX_HELD_BACK = 64 * 1024
_CUTS = 20


@dataclass(frozen=True)
class RowChunk:
    """Some rows, and where the next ones start.

    `fallbacks` counts the lines read in the fallback encoding, `skipped` the rows that say nothing, `padded` those that
    lacked fields.
    """

    records: list[Record]
    offset: int
    row: int
    fallbacks: int = 0
    skipped: int = 0
    padded: int = 0


class Rows:
    """The rows of one file from an offset on."""

    def __init__(self, file: BinaryIO, size: int, form: Form, columns: list[str] | None, *, growing: bool) -> None:
        """Read up to `size`. Of a `growing` file the last line may be incomplete, and is then left alone."""
        self._file = file
        self._size = size
        self._form = form
        self._columns = columns
        self._growing = growing
        self._single_until = 0
        # Whether a stretch was read, and ended among rows that lack fields.
        self._has_begun = self._in_short = False
        mark = form.comment
        self._comment = None if mark is None else re.compile(rf"(?:\A|[\r\n]){re.escape(mark)}")

    def chunks(self, offset: int, row: int) -> Iterator[RowChunk]:
        """Stretches up to the end; `row` is the number of rows before the offset."""
        while offset < self._size:
            chunk = self._quick(offset, row) or self._careful(offset, row)
            if chunk.offset == offset:
                return
            yield chunk
            offset, row = chunk.offset, chunk.row

    def _quick(self, offset: int, row: int) -> RowChunk | None:
        """A stretch parsed at once, None when something about it is odd."""
        self._file.seek(offset)
        data = self._file.read(min(CHUNK, self._size - offset))
        at_end = offset + len(data) >= self._size
        data = data if at_end and not self._growing else self._whole_rows(data)
        if not data:
            return None
        try:
            text = data.decode(self._form.encoding)
            rows = [fields for fields in self._form.rows_of(text) if fields]
        except (csv.Error, UnicodeDecodeError):
            return None
        found = len(rows)
        if self._comment is not None and self._comment.search(text):
            return None
        if self._form.drop_empty and not all(fields[0].strip(" \t") for fields in rows):
            rows = [fields for fields in rows if not is_empty(fields)]
        if rows and self._columns is None:
            self._columns = numbered(len(rows[0]))
        columns = self._columns or []
        padded = 0
        if any(count != len(columns) for count in map(len, rows)):
            evened = self._evened(rows, len(columns))
            if evened is None:
                return None
            rows, padded = evened
        records: list[Record] = [dict(zip(columns, fields, strict=True)) for fields in rows]
        self._has_begun, self._in_short = True, False
        return RowChunk(records, offset + len(data), row + found, skipped=found - len(rows), padded=padded)

    def _evened(self, rows: list[list[str]], width: int) -> tuple[list[list[str]], int] | None:
        """The rows with as many fields as there are columns, and how many lacked some; None if that is not plain."""
        if self._form.ragged == "reject" or len(rows[-1]) < width:
            return None
        short: list[int] = []
        padded = 0
        for fields in rows:
            if len(fields) < width:
                short.append(len(fields))
                padded += 1
                continue
            if len(fields) > width and any(fields[width:]):
                return None
            if short and self._form.ragged is None and are_parts(short, width):
                return None
            short.clear()
        return [(fields + [""] * (width - len(fields)))[:width] for fields in rows], padded

    def _whole_rows(self, data: bytes) -> bytes:
        """Up to the last line end that no quoted field seems to stand over. A wrong guess shows when it is parsed."""
        quote = (self._form.quote or "").encode()
        # What follows a carriage return at the very end may belong to it.
        ending, end = (b"\n", len(data)) if b"\n" in data else (b"\r", len(data) - 1)
        for _ in range(_CUTS):
            end = data.rfind(ending, 0, end)
            if end < 0:
                return b""
            if not quote or data.count(quote, 0, end) % 2 == 0:
                return data[: end + 1]
        return b""

    def _careful(self, offset: int, row: int) -> RowChunk:
        """A stretch read row by row."""
        lines = Lines(self._file, offset, self._form.encoding, self._form.fallback, self._single_until)
        records: list[Record] = []
        skipped = 0
        width = None if self._columns is None else len(self._columns)
        begun = self._in_short if self._has_begun else bool(row) and self._follows_short(offset)
        short = ShortRows(width or 0, plain=self._form.ragged is not None, begun=begun)
        for fields in read_rows(lines, self._form, width):
            raw = fields.raw if isinstance(fields, BadRecord) else lines.taken()
            if self._growing and self._is_incomplete(lines.offset, raw, fields):
                lines.offset -= len(raw)
                break
            row += fields != []
            if isinstance(fields, list) and (fields == [] or (self._form.drop_empty and is_empty(fields))):
                skipped += fields != []
            elif isinstance(fields, list) and self._is_short(fields):
                short.add(Row(fields, row, raw))
            else:
                records += self._settled(short)
                short.end()
                records.append(self._record(fields, row, raw))
            # What short rows are shows in the one after them.
            is_over = len(records) >= SLOW_ROWS or lines.offset >= offset + CHUNK
            is_held = 0 < len(short) < SLOW_ROWS and short.size < MAX_HELD
            if lines.offset >= self._size or (is_over and not is_held):
                break
        self._has_begun, self._in_short = True, bool(len(short))
        records += self._settled(short)
        self._single_until = lines.single_until
        return RowChunk(records, lines.offset, row, lines.fallbacks, skipped, short.padded)

    def _follows_short(self, offset: int) -> bool:
        """Whether the line before an offset lacks fields as well, so that those after it are no parts of one row."""
        begin = max(0, offset - CHUNK)
        self._file.seek(begin)
        last = self._file.read(offset - begin).rstrip(b"\r\n").replace(b"\r", b"\n").rpartition(b"\n")[2]
        return self._columns is not None and 0 < count_fields(last, self._form) < len(self._columns)

    def _is_short(self, fields: list[str]) -> bool:
        if self._columns is None:
            self._columns = numbered(len(fields))
        return self._form.ragged != "reject" and len(fields) < len(self._columns)

    def _settled(self, short: ShortRows) -> Iterator[Record]:
        for row in short.settle() if len(short) else ():
            yield row if isinstance(row, BadRecord) else self._record(row.fields, row.number, row.raw)

    def _is_incomplete(self, offset: int, raw: bytes, fields: list[str] | BadRecord) -> bool:
        """True for the last row of a file that is still being written to."""
        if isinstance(fields, BadRecord) and fields.rule == OPEN:
            return self._size - offset + len(raw) < MAX_HELD_BACK
        return offset >= self._size and not raw.endswith((b"\n", b"\r"))

    def _record(self, fields: list[str] | BadRecord, row: int, raw: bytes) -> Record:
        if isinstance(fields, BadRecord):
            rule = "csv" if fields.rule == OPEN else fields.rule
            return msgspec.structs.replace(fields, rule=rule, message=f"row {row}: {fields.message}")
        columns = self._columns or []
        if self._form.ragged != "reject" and len(fields) > len(columns) and not any(fields[len(columns) :]):
            fields = fields[: len(columns)]
        if len(fields) != len(columns):
            message = f"row {row}: {len(fields)} fields where the header has {len(columns)}"
            return BadRecord(raw, "", "columns", message)
        return dict(zip(columns, fields, strict=True))
