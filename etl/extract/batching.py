"""From pages to batches: a page may fill several, small pages share one."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from msgspec import to_builtins
from msgspec.structs import replace

from etl.errors import ETLError
from etl.records import RawBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from etl.mapping.mapper import Mapper
    from etl.records import BadRecord, Page, Position, RawRecord, Record

# A batch ends at this many bytes of payload, whatever its number of records.
MAX_BYTES = 8 * 1024 * 1024


class Batcher:
    """Collects records until a batch is full, and knows where the source goes on after it."""

    def __init__(self, mapper: Mapper, size: int, in_hurry: Callable[[], bool] = lambda: False) -> None:
        """A batch holds at most `size` records; `in_hurry` says that it is to be cut at the end of a page."""
        self._mapper = mapper
        self._size = size
        self._in_hurry = in_hurry
        self._records: list[RawRecord] = []
        self._rejected: list[BadRecord] = []
        self._bytes = self._pages = self._fetched = self._skipped = 0

    def batches(self, pages: Iterable[Page], start: Position) -> Iterator[RawBatch]:
        """Cut pages into batches. The last one carries a finished position, and may be empty.

        Raises:
            ETLError: a page could not be had; what came before it was given first.
        """
        position = stored = start
        source = iter(pages)
        while True:
            try:
                page = next(source)
            except StopIteration:
                break
            except ETLError:
                if position is not stored:
                    yield self._cut(position)
                raise
            yield from self._fill(page, start, position)
            position = _after(page, len(page.records), position)
            if self._in_hurry() and not position.finished:
                yield self._cut(position)
                stored = position
        yield self._cut(replace(position, cursor=None, done=0, validator=None, tries=0, finished=True))

    def _fill(self, page: Page, start: Position, before: Position) -> Iterator[RawBatch]:
        """Take in one page, giving the batches that it fills."""
        self._pages += 1
        self._fetched += page.size
        done = _already_done(page, start)
        # What was left out of a page counts with its first records.
        self._skipped += 0 if done else page.skipped
        records = islice(page.records, done, None)
        while taken := self._take(records):
            done += taken
            # The batch that ends the source is cut by the caller, so that it says so.
            if self._is_full() and not (position := _after(page, done, before)).finished:
                yield self._cut(position)

    def _take(self, records: Iterator[Record]) -> int:
        """Take in the next few records, as far as there is room; how many."""
        room = self._size - len(self._records) - len(self._rejected)
        good, bad, skipped = self._mapper.take(islice(records, max(room, 1)))
        self._skipped += skipped
        self._records += good
        self._rejected += bad
        self._bytes += sum([len(r.payload) for r in good]) + sum([len(r.raw) for r in bad])
        return len(good) + len(bad) + skipped

    def _is_full(self) -> bool:
        return len(self._records) + len(self._rejected) >= self._size or self._bytes >= MAX_BYTES

    def _cut(self, position: Position) -> RawBatch:
        batch = RawBatch(self._records, self._rejected, position, self._pages, self._fetched, self._skipped)
        self._records, self._rejected = [], []
        self._bytes = self._pages = self._fetched = self._skipped = 0
        return batch


def _already_done(page: Page, start: Position) -> int:
    """How many records of a page were stored before: those of the page resumed in, if it is still the same page."""
    same = to_builtins(page.cursor) == start.cursor and page.validator == start.validator
    return start.done if same else 0


def _after(page: Page, done: int, before: Position) -> Position:
    """Where to go on once `done` records of a page are stored; `before` is the position before the page."""
    known = before.known or page.known
    after = replace(before, tries=0, watermark=page.watermark or before.watermark, known=known)
    if done < len(page.records):
        return replace(after, cursor=to_builtins(page.cursor), done=done, validator=page.validator)
    kept, finished = page.kept or before.kept, page.following is None
    following = to_builtins(page.following)
    return replace(after, cursor=following, done=0, validator=None, finished=finished, kept=kept)
