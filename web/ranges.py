"""Items as the text of one range of ids after the other: flat in memory, whatever there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.queries.exports import Format, read_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from db.queries.exports import Range, Wanted
    from db.session import Database

# Ids of a range at first and at most, and how long its text should be: bytes.
FIRST, MOST, AIM = 1000, 20_000, 2 * 1024 * 1024


def head(wanted: Wanted) -> bytes:
    """What stands before the first item."""
    return (",".join(wanted.columns) + "\n").encode() if wanted.format is Format.CSV else b""


def ranges(database: Database, wanted: Wanted, after: int, last: int) -> Iterator[Range]:
    """The items with ids above `after`, to `last`; some ranges are empty."""
    width = FIRST
    while after < last:
        found = database.read(read_range, wanted, after, min(after + width, last))
        yield found
        width = max(1, min(MOST, width * 2, (found.until - after) * AIM // max(len(found.text), 1) + 1))
        after = found.until
