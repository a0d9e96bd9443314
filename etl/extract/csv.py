"""The pages of plain CSV files, with flat memory.

What comes by URL, is compressed or in a wide encoding becomes a local plain copy first, so that every slice can go on
at a byte offset.
"""

from __future__ import annotations

import codecs
import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from msgspec.structs import replace

from etl.errors import FormatError
from etl.files.archive import is_ascii_compatible, is_plain, make_plain
from etl.files.dialect import SAMPLE, find_delimiter
from etl.files.rows import Format, Rows, numbered, read_header
from etl.records import Cursor, Kept, Page, Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from etl.declare.source import CsvSource
    from etl.extract.context import Context
    from etl.reporter import Reporter


class CsvCursor(Cursor, frozen=True, kw_only=True):
    """A place in a file: its name, what tells that it is still the same one, and the bytes and rows before the place.

    `digest` is the hash of a whole file, `head` the number of bytes that `file` is the hash of, where a file grows. A
    download has no name, but the `validator` of its answer.
    """

    name: str
    file: str = ""
    digest: str | None = None
    head: int | None = None
    validator: Validator | None = None
    # From a factory, so that they are written even if they are 0.
    offset: int = msgspec.field(default_factory=int)
    row: int = msgspec.field(default_factory=int)

    def is_in_file_of(self, other: CsvCursor) -> bool:
        """Whether both are places in the same, unchanged file."""
        return (self.name, self.file) == (other.name, other.file)


class CsvPages:
    """Cuts a plain file into pages."""

    def __init__(self, source: CsvSource, reporter: Reporter) -> None:
        self._source = source
        self._reporter = reporter

    def pages(
        self,
        file: BinaryIO,
        size: int,
        start: CsvCursor,
        resumed: CsvCursor | None,
        during: Kept,
        after: Callable[[CsvCursor], Kept],
    ) -> Iterator[Page]:
        """The pages of the first `size` bytes of a file. The last one has none following.

        Args:
            file: open for reading.
            size: bytes.
            start: what all its cursors have in common.
            resumed: where to go on, if that is in this file; else it is read from its start.
            during: what is kept until the last page is done.
            after: says, of the place where the file ended, what is kept then.
        """
        form = self._format(file)
        columns, offset = self._columns(file, form, 3 if _starts_with(file, codecs.BOM_UTF8) else 0)
        rows = Rows(file, size, form, columns, growing=self._source.mode == "append")
        at = replace(start, offset=offset, row=0)
        if resumed is not None and resumed.is_in_file_of(start):
            at = replace(start, offset=resumed.offset, row=resumed.row)
        fallbacks = 0
        for chunk in rows.chunks(at.offset, at.row):
            self._reporter.alive()
            fallbacks += chunk.fallbacks
            following = replace(start, offset=chunk.offset, row=chunk.row)
            yield Page(at, chunk.records, following, start.file, chunk.offset - at.offset, kept=during)
            at = following
        if fallbacks:
            message = f"{fallbacks} lines are not {form.encoding} and were read as {form.fallback}"
            self._reporter.warn("fallback_encoding", message)
        yield Page(at, [], None, start.file, kept=after(at))

    def _columns(self, file: BinaryIO, form: Format, offset: int) -> tuple[list[str] | None, int]:
        """The names of the columns, and where the data starts. Without a header the first row says how many."""
        if self._source.csv.header:
            return read_header(file, offset, form)
        try:
            names, _ = read_header(file, offset, form)
        except FormatError:
            return None, offset
        return numbered(len(names)), offset

    def _format(self, file: BinaryIO) -> Format:
        declared = self._source.csv
        file.seek(0)
        delimiter = declared.delimiter or find_delimiter(
            file.read(SAMPLE).removeprefix(codecs.BOM_UTF8), declared.quote
        )
        if declared.encoding is None:
            return Format(delimiter, declared.quote, "utf-8", declared.fallback_encoding)
        # Wide encodings were turned into UTF-8 on the way to the copy.
        encoding = declared.encoding if is_ascii_compatible(declared.encoding) else "utf-8"
        return Format(delimiter, declared.quote, encoding, None)


class PlainCopies:
    """Local copies of what is not plain, known by the hash of the original; the slices of a run share them."""

    def __init__(self, source: CsvSource, context: Context) -> None:
        self._encoding = source.csv.encoding
        self._scratch = context.scratch
        self._alive = context.reporter.alive
        self._pages = CsvPages(source, context.reporter)

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


def _starts_with(file: BinaryIO, mark: bytes) -> bool:
    file.seek(0)
    return file.read(len(mark)) == mark
