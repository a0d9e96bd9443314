"""What a file's first bytes tell of how it is written, where its source does not say: delimiter, and lines of title."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections import Counter
from dataclasses import replace
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING

from etl.files.form import is_empty

if TYPE_CHECKING:
    from etl.files.form import Form

DELIMITERS = ",;\t|"
SAMPLE = 64 * 1024
_ROWS = 200
# Lines of title above a table.
_MAX_TITLES = 20
# Spreadsheets write it into the first line.
_SEPARATOR_LINE = re.compile(rb'"?sep=(.)"?[ \t]*(?:\r\n|\r|\n|\Z)', re.IGNORECASE)
# What cells are that are not just text: nothing, a number in one of the usual forms, a date or a time.
_TYPED = re.compile(
    r"|[-+]?[\d., '\u00a0\u202f]*\d(?:[eE][-+]?\d+)?\s?[%€$£]?|[€$£]\s?[\d.,]+"
    r"|\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[ T]\d{1,2}:\d{2}(?::\d{2})?\S*)?|\d{1,2}:\d{2}(?::\d{2})?"
)


def separator_line(start: bytes) -> tuple[str, int] | None:
    """The delimiter that the first line names, as `sep=;`, and the length of that line; None if it is another line."""
    found = _SEPARATOR_LINE.match(start)
    return None if found is None else (found[1].decode("latin-1"), found.end())


def find_delimiter(sample: str, form: Form) -> str:
    """The delimiter that gives the first rows the same width and the cells that look like values; else a comma."""
    scores = {delimiter: _score(sample, replace(form, delimiter=delimiter)) for delimiter in DELIMITERS}
    best = max(DELIMITERS, key=lambda delimiter: scores[delimiter])
    return best if scores[best] > 0 else ","


def count_titles(sample: str, form: Form) -> int:
    """How many rows above the header hold a title only: one text, where the rows of the table hold several."""
    rows = sample_rows(sample, form)
    filled = [sum(1 for cell in row if cell.strip()) for row in rows]
    if len(rows) < 3 or median(filled) < 2:
        return 0
    width = _usual_width(rows)
    titles = 0
    for row, count in zip(rows[: min(_MAX_TITLES, len(rows) - 2)], filled, strict=False):
        if count != 1 or not row[0].strip() or 1 < len(row) < width:
            break
        titles += 1
    return titles if titles and _is_header(rows[titles], rows[titles + 1 :]) else 0


def _is_header(names: list[str], rows: list[list[str]]) -> bool:
    """Whether a row has names, and no values, over columns of which one at least has values of a type."""
    if any(name.strip() and _TYPED.fullmatch(name.strip()) for name in names):
        return False
    columns = ([row[at].strip() for row in rows if at < len(row)] for at in range(len(names)))
    held = ([cell for cell in column if cell] for column in columns)
    return any(column and 2 * sum(map(_is_typed, column)) >= len(column) for column in held)


def _is_typed(cell: str) -> bool:
    return _TYPED.fullmatch(cell) is not None


def sample_rows(sample: str, form: Form) -> list[list[str]]:
    """The first rows, up to one that cannot be read, which may be cut off by the end of the sample."""
    lines = (line for line in io.StringIO(sample, newline="") if not form.is_comment(line))
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):
        rows.extend(row for row in islice(form.rows(lines), _ROWS) if not is_empty(row))
    # The last one may be cut.
    return rows[:-1] if len(sample) >= SAMPLE and len(rows) > 1 else rows


def _usual_width(rows: list[list[str]]) -> int:
    return Counter(map(len, rows)).most_common(1)[0][0] if rows else 0


def _score(sample: str, form: Form) -> float:
    """How many rows agree on a width of more than one, how much more, and how many cells look like values."""
    rows = sample_rows(sample, form)
    width = _usual_width(rows)
    if width < 2:
        return 0.0
    usual = [row for row in rows if len(row) == width]
    cells = [cell.strip() for row in usual for cell in row]
    return len(usual) / len(rows) * (width - 1) / width * sum(map(_worth, cells)) / len(cells)


def _worth(cell: str) -> float:
    """A value of a type is worth most; a text in which another delimiter stands without a space after it, least."""
    if _TYPED.fullmatch(cell):
        return 1.0
    return 0.4 if any(mark in cell for mark in ";\t|") or re.search(r",\S", cell) else 0.8
