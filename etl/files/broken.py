"""Rows read one by one, where something is odd: a bad row costs itself alone, with all the lines it was broken into."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl.records import BadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from etl.files.form import Form
    from etl.files.lines import Lines

# A quote that is open at the end of the file: perhaps the rest is yet to come.
OPEN = "open"
# The lines that a row with a stray quote may go on over.
_MOST_LINES = 50
# After so many lines in a row that are whole rows, the row before them was alone.
_WHOLE_LINES = 2


def read_rows(lines: Lines, form: Form, width: int | None) -> Iterator[list[str] | BadRecord]:
    """Rows of fields; an empty one for a blank line or a comment.

    A row that cannot be read costs its first line, and those that go on with it. `width` is how many fields a row has.
    """
    reader = form.rows(lines)
    while True:
        lines.begin()
        try:
            if form.comment is not None and _is_comment(lines, form):
                lines.skip(1)
                yield []
            else:
                yield next(reader)
        except StopIteration:
            return
        except (csv.Error, UnicodeDecodeError) as error:
            yield _bad_row(lines, form, error, width)
            reader = form.rows(lines)


def _is_comment(lines: Lines, form: Form) -> bool:
    return any(form.is_comment(line.decode(form.encoding, "replace")) for line in lines.peek(1))


def _bad_row(lines: Lines, form: Form, error: csv.Error | UnicodeDecodeError, width: int | None) -> BadRecord:
    first, alone = lines.retry()
    if alone and isinstance(error, UnicodeDecodeError):
        return BadRecord(first, "", "encoding", f"not valid {form.encoding}: {error.reason}")
    others = [] if width is None or form.quote is None else _others(first, lines, form, width)
    lines.skip(len(others))
    reason = "a quote is not closed" if isinstance(error, UnicodeDecodeError) else error
    over = f", over {len(others) + 1} lines" if others else ""
    rule = OPEN if "unexpected end" in str(error) else "csv"
    return BadRecord(b"".join([first, *others]), "", rule, f"not a CSV row{over}: {reason}")


def _others(first: bytes, lines: Lines, form: Form, width: int) -> list[bytes]:
    """The lines that go on with a row whose first line has a stray quote: up to the one that makes its quotes even.

    There are none if the line has all fields, or if whole rows follow it.
    """
    quote = (form.quote or "").encode()
    found, quotes = count_fields(first, form), first.count(quote)
    if found >= width or quotes % 2 == 0:
        return []
    whole = 0
    for count, line in enumerate(ahead := lines.peek(_MOST_LINES), 1):
        is_whole = count_fields(line, form) == width and line.count(quote) % 2 == 0
        whole = whole + 1 if is_whole else 0
        if whole == _WHOLE_LINES:
            return []
        quotes += line.count(quote)
        if quotes % 2 == 0:
            return ahead[:count]
    return []


def count_fields(line: bytes, form: Form) -> int:
    """How many fields a line has, whatever its quotes are worth."""
    text = line.decode(form.encoding, "replace")
    try:
        return len(next(iter(form.rows([text], strict=False)), []))
    except csv.Error:
        return 0


@dataclass(frozen=True)
class Row:
    """A row of fields as it stands in the file."""

    fields: list[str]
    number: int
    raw: bytes


class ShortRows:
    """Rows with fewer fields than the header, one after the other: rows without their last values, or parts of one."""

    def __init__(self, width: int, *, plain: bool, begun: bool) -> None:
        """`plain` says that they are what they seem to be, and so are the first ones if others went before: `begun`."""
        self._width = width
        self._declared = plain
        self._plain = plain or begun
        self._rows: list[Row] = []
        self.size = 0
        self.padded = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        """One more of them; `size` is the bytes of all."""
        self._rows.append(row)
        self.size += len(row.raw)

    def end(self) -> None:
        """A row with all fields follows: those after it are judged on their own."""
        self._plain = self._declared

    def settle(self) -> Iterator[Row | BadRecord]:
        """What they are, once a row of another kind follows: filled up with empty fields, or one that is broken."""
        rows, self._rows, self.size = self._rows, [], 0
        if not self._plain and are_parts([len(row.fields) for row in rows], self._width):
            first, last = rows[0].number, rows[-1].number
            message = (
                f"rows {first} to {last} have the fields of one row that line ends have broken; if they are rows "
                "without their last fields, declare `csv.ragged: pad`"
            )
            yield BadRecord(b"".join(row.raw for row in rows), "", "columns", message)
            return
        self.padded += len(rows)
        for row in rows:
            yield Row(row.fields + [""] * (self._width - len(row.fields)), row.number, row.raw)


def are_parts(widths: Iterable[int], width: int) -> bool:
    """Whether rows of these widths make up one row of the full width when they are put together."""
    found = list(widths)
    return len(found) > 1 and sum(found) - (len(found) - 1) == width
