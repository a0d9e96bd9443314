"""How a CSV file is written."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_FIELD = 1024 * 1024

# MySQL and PostgreSQL write it, with their escapes.
_NO_VALUE = "\\N"

csv.field_size_limit(MAX_FIELD)


@dataclass(frozen=True)
class Form:
    """Delimiter, quote and escape, encoding and the one for lines that are not in it, and what is no record.

    `ragged` says what becomes of rows of another width than the header: `pad`, `reject`, or None for what is plain.
    """

    delimiter: str
    quote: str | None = '"'
    escape: str | None = None
    skip_space: bool = False
    encoding: str = "utf-8"
    fallback: str | None = None
    comment: str | None = None
    ragged: str | None = None
    drop_empty: bool = True

    def rows(self, lines: Iterable[str], *, strict: bool = True) -> Iterator[list[str]]:
        """The rows of some lines; csv.Error for what is none, if `strict`."""
        return csv.reader(
            lines if self.escape is None else map(self._without_no_values, lines),
            delimiter=self.delimiter,
            quotechar=self.quote,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            escapechar=self.escape,
            skipinitialspace=self.skip_space,
            strict=strict,
        )

    def _without_no_values(self, line: str) -> str:
        """A line without the fields that databases write for no value: to a reader that takes escapes, a letter."""
        return _no_values(self.delimiter).sub("", line) if _NO_VALUE in line else line

    def rows_of(self, text: str) -> Iterator[list[str]]:
        """The rows of a text."""
        return self.rows(io.StringIO(text, newline=""))

    def is_comment(self, line: str) -> bool:
        """Whether a line at the start of a row is no part of the table."""
        return self.comment is not None and line.startswith(self.comment)


@cache
def _no_values(delimiter: str) -> re.Pattern[str]:
    between = re.escape(delimiter)
    return re.compile(rf"(?:(?<=\A)|(?<={between}))\\N(?={between}|[\r\n]|\Z)")


def is_empty(row: list[str]) -> bool:
    """Whether no cell of a row holds more than spaces and tabs."""
    return not any(cell.strip(" \t") for cell in row)
