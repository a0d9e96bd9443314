"""Items as the text of one range of ids after the other: flat in memory, whatever there is."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from db.queries.exports import Format, last_at_once, read_range

if TYPE_CHECKING:
    from collections.abc import Generator

    from db.queries.exports import Range, Wanted
    from db.session import Database

# Ids of a range at first and at most, and how long its text should be: bytes.
FIRST, MOST, AIM = 1000, 20_000, 2 * 1024 * 1024
# Ranges that are read while one is sent, each over a connection of its own.
AHEAD = 2


def head(wanted: Wanted) -> bytes:
    """What stands before the first item."""
    return (",".join(wanted.columns) + "\n").encode() if wanted.format is Format.CSV else b""


def ranges(database: Database, wanted: Wanted, after: int, last: int) -> Generator[Range]:
    """The items with ids above `after`, to `last`; some ranges are empty. While one is used, the next are read."""
    reads: deque[tuple[int, Future[Range]]] = deque()
    width, ahead = FIRST, 0
    pool = ThreadPoolExecutor(AHEAD)
    try:
        while reads or after < last:
            while len(reads) <= ahead and after < last:
                until = database.read(last_at_once, wanted, after, min(after + width, last), last)
                reads.append((until - after, pool.submit(database.read, read_range, wanted, after, until)))
                after = until
            ids, read = reads.popleft()
            found = read.result()
            width = max(1, min(MOST, width * 2, ids * AIM // max(len(found.text), 1) + 1))
            # Not before it is seen how long they come out.
            ahead = AHEAD if len(found.text) <= 2 * AIM else 0
            yield found
    finally:
        pool.shutdown(cancel_futures=True)
