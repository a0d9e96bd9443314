"""CSV by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.declare.duration import seconds
from etl.extract.csv import CsvCursor, PlainCopies, temporary
from etl.records import Kept, Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.declare.source import CsvSource
    from etl.extract.context import Context
    from etl.http.target import PreparedRequest
    from etl.records import Position


class CsvDownload:
    """Reads a file by way of a local copy, known by the hash of what was sent; slices elsewhere fetch it anew."""

    def __init__(self, source: CsvSource, target: PreparedRequest, context: Context) -> None:
        """`target` is the source's request with its secrets."""
        self._timeout = seconds(source.timeout)
        self._target = target
        self._context = context
        self._copies = PlainCopies(source, context)

    def pages(self, position: Position) -> Iterator[Page]:
        """The pages from the position on. A file that is no longer the same is read from its start."""
        cursor = CsvCursor.of(position)
        if cursor is not None and self._copies.has(cursor.file):
            yield from self._read(cursor.file, Kept(validator=cursor.validator), cursor)
            return
        context, target = self._context, self._target
        # Part of what came before may be stored already: then nothing is `unchanged`.
        known = context.known if cursor is None else None
        part = context.scratch.with_suffix(".part")
        answer = context.http.download(target, self._timeout, part, position.tries, known)
        with temporary(part):
            is_known = cursor is None and context.is_known(target, answer)
            if not is_known:
                self._copies.adopt(part, answer.digest)
        context.reporter.answered(answer.fresh, answer.moved_to)
        kept = context.kept(target, answer)
        if is_known:
            yield Page(CsvCursor(name=""), [], None, size=answer.size, kept=kept, known=True)
        else:
            yield from self._read(answer.digest, kept, cursor)

    def _read(self, digest: str, kept: Kept, resumed: CsvCursor | None) -> Iterator[Page]:
        start = CsvCursor(name="", file=digest, validator=kept.validator)
        yield from self._copies.pages(digest, start, resumed, Kept(), kept)
