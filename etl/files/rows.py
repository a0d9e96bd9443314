"""Rows of a CSV file as records, in stretches: quickly where all is well, row by row where it is not.

A stretch is parsed as a whole. If anything in it is odd (a byte that is not text, a row that is too long, a quote that
is not closed), the same bytes are read again row by row, so that each bad row costs only itself.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from etl.errors import FormatError
from etl.files.lines import Lines
from etl.records import BadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from etl.records import Record

MAX_FIELD = 1024 * 1024
# The bytes of a stretch, small enough for the cache of a processor, and the rows of one that is read row by row.
CHUNK = 64 * 1024
SLOW_ROWS = 1000
# In mode append, what may still be being written: bytes.
MAX_HELD_BACK = 64 * 1024
# Names stand in each record, so what they take is limited: the columns, the bytes of a name and of all names.
MAX_COLUMNS = 10_000
MAX_NAME = 1024
MAX_NAMES = 256 * 1024
# Blank lines that may come before a header: bytes.
_MAX_BLANK = 1024 * 1024
_CUTS = 20
# A quote that is open at the end of the file: perhaps the rest is yet to come.
_OPEN = "open"

csv.field_size_limit(MAX_FIELD)


@dataclass(frozen=True)
class Format:
    """How a file is written: delimiter and quote, encoding, and the one for lines that are not in it."""

    delimiter: str
    quote: str
    encoding: str
    fallback: str | None


@dataclass(frozen=True)
class RowChunk:
    """Some rows, and where the next ones start; `fallbacks` counts the lines read in the fallback encoding."""

    records: list[Record]
    offset: int
    row: int
    fallbacks: int = 0


class Rows:
    """The rows of one file from an offset on."""

    def __init__(self, file: BinaryIO, size: int, form: Format, columns: list[str] | None, *, growing: bool) -> None:
        """Read up to `size`. Of a `growing` file the last line may be incomplete, and is then left alone."""
        self._file = file
        self._size = size
        self._form = form
        self._columns = columns
        self._growing = growing
        self._single_until = 0

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
            rows = [row for row in _parse(data.decode(self._form.encoding), self._form) if row]
        except (csv.Error, UnicodeDecodeError):
            return None
        if rows and self._columns is None:
            self._columns = numbered(len(rows[0]))
        width = 0 if self._columns is None else len(self._columns)
        if any(count != width for count in map(len, rows)):
            return None
        columns = self._columns or []
        return RowChunk(
            [dict(zip(columns, fields, strict=True)) for fields in rows], offset + len(data), row + len(rows)
        )

    def _whole_rows(self, data: bytes) -> bytes:
        """Up to the last line end that no quoted field seems to stand over. A wrong guess shows when it is parsed."""
        quote = self._form.quote.encode()
        # What follows a carriage return at the very end may belong to it.
        ending, end = (b"\n", len(data)) if b"\n" in data else (b"\r", len(data) - 1)
        for _ in range(_CUTS):
            end = data.rfind(ending, 0, end)
            if end < 0:
                return b""
            if data.count(quote, 0, end) % 2 == 0:
                return data[: end + 1]
        return b""

    def _careful(self, offset: int, row: int) -> RowChunk:
        """A stretch read row by row."""
        lines = Lines(self._file, offset, self._form.encoding, self._form.fallback, self._single_until)
        records: list[Record] = []
        for fields in _rows(lines, self._form):
            raw = fields.raw if isinstance(fields, BadRecord) else lines.taken()
            if self._growing and self._is_incomplete(lines.offset, raw, fields):
                lines.offset -= len(raw)
                break
            if fields != []:
                row += 1
                records.append(self._record(fields, row, raw))
            if len(records) >= SLOW_ROWS or lines.offset >= min(self._size, offset + CHUNK):
                break
        self._single_until = lines.single_until
        return RowChunk(records, lines.offset, row, lines.fallbacks)

    def _is_incomplete(self, offset: int, raw: bytes, fields: list[str] | BadRecord) -> bool:
        """True for the last row of a file that is still being written to."""
        if isinstance(fields, BadRecord) and fields.rule == _OPEN:
            return self._size - offset + len(raw) < MAX_HELD_BACK
        return offset >= self._size and not raw.endswith((b"\n", b"\r"))

    def _record(self, fields: list[str] | BadRecord, row: int, raw: bytes) -> Record:
        if isinstance(fields, BadRecord):
            rule = "csv" if fields.rule == _OPEN else fields.rule
            return msgspec.structs.replace(fields, rule=rule, message=f"row {row}: {fields.message}")
        self._columns = self._columns or numbered(len(fields))
        if len(fields) != len(self._columns):
            message = f"row {row}: {len(fields)} fields where the header has {len(self._columns)}"
            return BadRecord(raw, "", "columns", message)
        return dict(zip(self._columns, fields, strict=True))


def read_header(file: BinaryIO, offset: int, form: Format) -> tuple[list[str], int]:
    """The column names in the first row that is not blank, and the offset after it.

    Raises:
        FormatError: there is none that can be read.
    """
    lines = Lines(file, offset, form.encoding, form.fallback)
    for fields in _rows(lines, form):
        if isinstance(fields, BadRecord):
            raise FormatError(f"the header cannot be read: {fields.message}", code="bad_header")
        if any(name.strip() for name in fields):
            return column_names(fields), lines.offset
        if lines.offset - offset > _MAX_BLANK:
            break
    raise FormatError("the file has no header", code="bad_header")


def numbered(count: int) -> list[str]:
    """The names of columns without names.

    Raises:
        FormatError: there are too many.
    """
    if count > MAX_COLUMNS:
        raise FormatError(f"{count} columns are more than {MAX_COLUMNS}", code="bad_header")
    return [f"column_{number}" for number in range(1, count + 1)]


def column_names(fields: list[str]) -> list[str]:
    """Header cells as unique names: trimmed, `column_N` for an empty one, `name_2` for a repeat.

    Raises:
        FormatError: there are too many, or they are too long.
    """
    names = dict(zip(numbered(len(fields)), map(str.strip, fields), strict=True))
    sizes = [len(name.encode("utf-8", "replace")) for name in names.values()]
    for number, size in enumerate(sizes, 1):
        if size > MAX_NAME:
            raise FormatError(f"the name of column {number} is longer than {MAX_NAME} bytes", code="bad_header")
    if sum(sizes) > MAX_NAMES:
        raise FormatError(f"the column names have more than {MAX_NAMES} bytes in all", code="bad_header")
    return _unique(name or default for default, name in names.items())


def _unique(names: Iterable[str]) -> list[str]:
    """A repeat goes on counting where the last one of its name stopped."""
    taken: dict[str, int] = {}
    for base in names:
        name, repeat = base, taken.get(base, 1)
        while name in taken:
            repeat += 1
            name = f"{base}_{repeat}"
        taken[base], taken[name] = repeat, taken.get(name, 1)
    return list(taken)


def _rows(lines: Lines, form: Format) -> Iterator[list[str] | BadRecord]:
    """Rows of fields. A row that cannot be read costs its first line only: the rest is read again."""
    reader = _parse(lines, form)
    while True:
        lines.begin()
        try:
            yield next(reader)
        except StopIteration:
            return
        except (csv.Error, UnicodeDecodeError) as error:
            yield _bad_row(lines, form, error)
            reader = _parse(lines, form)


def _bad_row(lines: Lines, form: Format, error: csv.Error | UnicodeDecodeError) -> BadRecord:
    raw, alone = lines.retry()
    if alone and isinstance(error, UnicodeDecodeError):
        return BadRecord(raw, "", "encoding", f"not valid {form.encoding}: {error.reason}")
    reason = "a quote is not closed" if isinstance(error, UnicodeDecodeError) else error
    return BadRecord(raw, "", _OPEN if "unexpected end" in str(error) else "csv", f"not a CSV row: {reason}")


def _parse(source: str | Lines, form: Format) -> Iterator[list[str]]:
    lines = io.StringIO(source, newline="") if isinstance(source, str) else source
    return csv.reader(lines, delimiter=form.delimiter, quotechar=form.quote, strict=True)
