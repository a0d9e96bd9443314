"""The first rows of a CSV file: what stands above the table, and the names of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from etl.errors import FormatError
from etl.files.broken import read_rows
from etl.files.lines import Lines
from etl.records import BadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from etl.files.form import Form

# Names stand in each record, so what they take is limited: the columns, the bytes of a name and of all names.
MAX_COLUMNS = 10_000
MAX_NAME = 1024
MAX_NAMES = 256 * 1024
# Blank lines that may come before a header: bytes.
_MAX_BLANK = 1024 * 1024


@dataclass(frozen=True)
class Header:
    """The names of the columns, None where there are no rows to tell how many; and where the data starts."""

    columns: list[str] | None
    offset: int


def read_header(file: BinaryIO, offset: int, form: Form, titles: int = 0) -> Header:
    """The column names in the first row that is not blank, after so many rows of titles.

    Raises:
        FormatError: there is none that can be read.
    """
    lines = Lines(file, offset, form.encoding, form.fallback)
    for fields in _filled_rows(lines, form, offset):
        if titles:
            titles -= 1
        elif isinstance(fields, BadRecord):
            raise FormatError(f"the header cannot be read: {fields.message}", code="bad_header")
        else:
            return Header(column_names(fields), lines.offset)
    raise FormatError("the file has no header", code="bad_header")


def count_columns(file: BinaryIO, offset: int, form: Form) -> Header:
    """Of a file without a header: its columns by their number, as many as the first row has."""
    lines = Lines(file, offset, form.encoding, form.fallback)
    first = next((row for row in _filled_rows(lines, form, offset) if not isinstance(row, BadRecord)), None)
    return Header(None if first is None else numbered(len(first)), offset)


def _filled_rows(lines: Lines, form: Form, offset: int) -> Iterator[list[str] | BadRecord]:
    for row in read_rows(lines, form, None):
        if isinstance(row, BadRecord) or any(name.strip() for name in row):
            yield row
        elif lines.offset - offset > _MAX_BLANK:
            return


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
