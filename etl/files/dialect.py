"""Which delimiter a file uses, where its source does not say: the one that gives the first rows the same width."""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DELIMITERS = ",;\t|"
SAMPLE = 64 * 1024
_ROWS = 200


def find_delimiter(sample: bytes, quote: str) -> str:
    """The delimiter of a file by its first bytes; a comma when none gives more than one column."""
    # Delimiters and quotes are ASCII: any encoding that leaves ASCII alone will do.
    text = sample.decode("latin-1")
    widths = {delimiter: _widths(text, delimiter, quote) for delimiter in DELIMITERS}
    scores = {delimiter: _score(found) for delimiter, found in widths.items()}
    best = max(DELIMITERS, key=lambda delimiter: scores[delimiter])
    return best if scores[best] > (0.0, 1) else ","


def _score(widths: list[int]) -> tuple[float, int]:
    """How well rows agree on a width of more than one, and which."""
    if not widths:
        return 0.0, 0
    width, count = Counter(widths).most_common(1)[0]
    return (count / len(widths), width) if width > 1 else (0.0, 1)


def _widths(text: str, delimiter: str, quote: str) -> list[int]:
    return [len(row) for row, _ in zip(_rows(text, delimiter, quote), range(_ROWS), strict=False) if row]


def _rows(text: str, delimiter: str, quote: str) -> Iterator[list[str]]:
    """The rows up to the first that cannot be read, which may be cut off by the end of the sample."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, strict=True)
    try:
        yield from reader
    except csv.Error:
        return
