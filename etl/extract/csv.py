"""The pages of plain CSV files, with flat memory.

What comes by URL, is compressed or in a wide encoding becomes a local plain copy first, so that every slice can go on
at a byte offset.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from msgspec.structs import replace

from etl.files.archive import is_plain, make_plain
from etl.files.dialect import SAMPLE
from etl.files.opening import open_table
from etl.files.rows import Rows
from etl.records import Cursor, Kept, Page, Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from etl.declare.source import CsvSource
    from etl.extract.context import Context
    from etl.files.opening import Opening
    from etl.files.rows import RowChunk


class CsvCursor(Cursor, frozen=True, kw_only=True):
    """A place in a file: its name, what tells that it is still the same one, and the bytes and rows before the place.

    `digest` is the hash of a whole file. Where a file grows, `head` is the number of bytes that `file` is the hash of,
    and `seen` how many tell how it is written. A download has no name, but the `validator` of its answer.
    """

    name: str
    file: str = ""
    digest: str | None = None
    head: int | None = None
    seen: int | None = None
    validator: Validator | None = None
    # From a factory, so that they are written even if they are 0.
    offset: int = msgspec.field(default_factory=int)
    row: int = msgspec.field(default_factory=int)

    def is_in_file_of(self, other: CsvCursor) -> bool:
        """Whether both are places in the same, unchanged file."""
        return (self.name, self.file) == (other.name, other.file)


class CsvPages:
    """Cuts a plain file into pages."""

    def __init__(self, source: CsvSource, context: Context) -> None:
        self._source = source
        self._reporter = context.reporter
        self._opened = context.opened

    def pages(
        self,
        file: BinaryIO,
        size: int,
        start: CsvCursor,
        resumed: CsvCursor | None,
        during: Kept,
        after: Callable[[CsvCursor], Kept],
        seen: int = SAMPLE,
    ) -> Iterator[Page]:
        """The pages of the first `size` bytes of a file. The last one has none following.

        Args:
            file: open for reading.
            size: bytes.
            start: what all its cursors have in common.
            resumed: where to go on, if that is in this file; else it is read from its start.
            during: what is kept until the last page is done.
            after: says, of the place where the file ended, what is kept then.
            seen: how many bytes at its start tell how it is written.
        """
        opening = open_table(file, size, self._source.csv, seen)
        self._opened(opening)
        columns, offset = opening.header.columns, opening.header.offset
        rows = Rows(file, opening.end, opening.form, columns, growing=self._source.mode == "append")
        at = replace(start, offset=offset, row=0)
        if resumed is not None and resumed.is_in_file_of(start):
            at = replace(start, offset=resumed.offset, row=resumed.row)
        told = _Remarks(opening)
        for chunk in rows.chunks(at.offset, at.row):
            self._reporter.alive()
            told.add(chunk)
            following = replace(start, offset=chunk.offset, row=chunk.row)
            size = chunk.offset - at.offset
            yield Page(at, chunk.records, following, start.file, size, kept=during, skipped=chunk.skipped)
            at = following
        for code, message in told.warnings():
            self._reporter.warn(code, message)
        yield Page(at, [], None, start.file, kept=after(at))


class _Remarks:
    """What is to be said of how a file was read."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._fallbacks = self._padded = 0

    def add(self, chunk: RowChunk) -> None:
        self._fallbacks += chunk.fallbacks
        self._padded += chunk.padded

    def warnings(self) -> Iterator[tuple[str, str]]:
        form = self._opening.form
        if self._opening.guessed:
            yield "encoding_guessed", f"read as {form.encoding}, which is a guess; declare `csv.encoding`"
        if self._opening.titles:
            message = f"{self._opening.titles} rows above the header were taken for a title; declare `csv.skip_lines`"
            yield "titles_skipped", message
        if self._fallbacks:
            message = f"{self._fallbacks} lines are not {form.encoding} and were read as {form.fallback}"
            yield "fallback_encoding", message
        if self._padded and form.ragged is None:
            message = f"{self._padded} rows lack their last fields, which are taken for empty; declare `csv.ragged`"
            yield "short_rows", message


class PlainCopies:
    """Local copies of what is not plain, known by the hash of the original; the slices of a run share them."""

    def __init__(self, source: CsvSource, context: Context) -> None:
        self._encoding = source.csv.encoding
        self._scratch = context.scratch
        self._alive = context.reporter.alive
        self._pages = CsvPages(source, context)

    def has(self, digest: str) -> bool:
        """Whether there is a copy."""
        return self._path(digest).exists()

    def adopt(self, ours: Path, digest: str) -> None:
        """Make a plain copy of a file that is of no use afterwards: one that is plain already becomes the copy."""
        with ours.open("rb") as file:
            if not is_plain(file, self._encoding):
                self.make(file, digest)
                return
        ours.replace(self._path(digest))

    def make(self, original: BinaryIO, digest: str) -> None:
        """A plain copy, whole or not at all."""
        copy = self._path(digest)
        with temporary(copy.with_suffix(".unpacked")) as part:
            with part.open("wb") as file:
                make_plain(original, file, self._encoding, self._alive)
            part.replace(copy)

    def pages(
        self, digest: str, start: CsvCursor, resumed: CsvCursor | None, during: Kept, after: Kept
    ) -> Iterator[Page]:
        """The pages of a copy, which is removed after the last one."""
        copy = self._path(digest)
        with copy.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            yield from self._pages.pages(file, size, start, resumed, during, lambda _: after)
        copy.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._scratch.with_name(f"{self._scratch.name}-{digest}")


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A file that is gone afterwards, unless it has another name by then."""
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
