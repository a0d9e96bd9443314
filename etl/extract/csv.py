"""The pages of one plain CSV file, with flat memory.

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
from etl.records import Kept, Page, Validator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etl.declare.source import CsvSource
    from etl.extract.context import Context
    from etl.records import Cursor


class CsvCursor(msgspec.Struct, frozen=True):
    """A place in a file: the file's name and what tells that it is still the same, the bytes and rows before the place.

    `digest` is the hash of the whole file, `head` how many bytes of a growing one `file` is the hash of. A download has
    no name, and the `validator` of its answer. A cursor without a name comes after the last file.
    """

    name: str | None
    file: str = ""
    digest: str = ""
    head: int | None = None
    validator: Validator | None = None
    offset: int = 0
    row: int = 0

    @classmethod
    def of(cls, cursor: Cursor | None) -> CsvCursor | None:
        """The cursor that a position keeps."""
        return None if cursor is None else msgspec.convert(cursor, cls)

    def kept(self) -> Cursor:
        """What a position keeps of it."""
        return {
            key: value for key, value in msgspec.to_builtins(self).items() if key == "name" or value not in ("", None)
        }

    def is_in(self, other: CsvCursor) -> bool:
        """Whether it is a place in the same file as another one, and that has not changed."""
        return (self.name, self.file) == (other.name, other.file)


class FilePages:
    """Reads plain files as a source declares them."""

    def __init__(self, source: CsvSource, context: Context) -> None:
        self._source = source
        self._reporter = context.reporter

    def pages(
        self, file: BinaryIO, size: int, start: CsvCursor, resumed: CsvCursor | None, during: Kept, after: Kept
    ) -> Iterator[Page]:
        """The pages of one file. The last one has none following, and `after` is kept."""
        form = self._format(file)
        columns, offset = self._columns(file, form, 3 if _starts_with(file, codecs.BOM_UTF8) else 0)
        rows = Rows(file, size, form, columns, growing=self._source.mode == "append")
        at = replace(start, offset=offset, row=0)
        if resumed is not None and resumed.is_in(start):
            at = replace(start, offset=resumed.offset, row=resumed.row)
        fallbacks = 0
        for chunk in rows.chunks(at.offset, at.row):
            self._reporter.alive()
            fallbacks += chunk.fallbacks
            following = replace(start, offset=chunk.offset, row=chunk.row)
            page_size = chunk.offset - at.offset
            yield Page(at.kept(), chunk.records, following.kept(), start.file, page_size, kept=during)
            at = following
        if fallbacks:
            message = f"{fallbacks} lines are not {form.encoding} and were read as {form.fallback}"
            self._reporter.warn("fallback_encoding", message)
        yield Page(at.kept(), [], None, start.file, kept=after)

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
        self._context = context
        self._pages = FilePages(source, context)

    def path(self, digest: str) -> Path:
        """Where the copy of an original is, or will be."""
        scratch = self._context.scratch
        return scratch.with_name(f"{scratch.name}-{digest}")

    def make(self, original: Path, digest: str) -> None:
        """A plain copy, whole or not at all. What is plain already need not be copied if it is ours."""
        copy = self.path(digest)
        if is_plain(original, self._encoding) and original.parent == copy.parent:
            original.replace(copy)
            return
        with temporary(copy.with_suffix(".unpacked")) as part:
            with part.open("wb") as file:
                make_plain(original, file, self._encoding, self._context.reporter.alive)
            part.replace(copy)

    def pages(
        self, digest: str, start: CsvCursor, resumed: CsvCursor | None, during: Kept, after: Kept
    ) -> Iterator[Page]:
        """The pages of a copy, which is removed after the last one."""
        copy = self.path(digest)
        with copy.open("rb") as file:
            yield from self._pages.pages(file, os.fstat(file.fileno()).st_size, start, resumed, during, after)
        copy.unlink(missing_ok=True)


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
