"""CSV files on disk: read whole when they have changed, or from where the last run ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from msgspec.structs import replace

from etl.errors import ETLError, FormatError, PostponedError, WaitError
from etl.extract.csv import CsvCursor, FilePages, PlainCopies
from etl.files.archive import is_packed, is_plain
from etl.files.dialect import SAMPLE
from etl.files.find import digest_of, find_files
from etl.records import FileMark, Kept, Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etl.declare.source import CsvSource
    from etl.extract.context import Context
    from etl.records import Position


class CsvFiles:
    """Reads the files of a source one after the other."""

    def __init__(self, source: CsvSource, context: Context) -> None:
        self._source = source
        self._context = context
        self._pages = FilePages(source, context)

    def pages(self, position: Position) -> Iterator[Page]:
        """The pages from the position on. A file that is no longer the same is read from its start.

        One that cannot be read does not keep the others from it, but fails the run at the end.
        """
        assert self._source.file is not None
        cursor = CsvCursor.of(position.cursor)
        done = dict(position.kept.files) if position.kept else {}
        failures: list[ETLError] = []
        for name, path in find_files(self._source.file, self._context.base, self._context.roots).items():
            if name in done:
                continue
            try:
                for page in self._file(name, path, cursor, done):
                    done = page.kept.files if page.kept else done
                    yield replace(page, following=page.following or CsvCursor(name, "read").kept())
            except (WaitError, PostponedError):
                raise
            except ETLError as error:
                failure = error if name in error.message else error.within(name)
                self._context.reporter.warn(failure.code, failure.message)
                failures.append(failure)
        if failures:
            raise failures[0]
        yield Page(CsvCursor(None).kept(), [], None, kept=Kept(files=done))

    def _file(self, name: str, path: Path, cursor: CsvCursor | None, done: dict[str, FileMark]) -> Iterator[Page]:
        before = self._context.checkpoint.kept.files.get(name)
        begun = cursor if cursor is not None and cursor.name == name else None
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if self._source.mode == "append":
                grown = AppendedFile(name, file, status.st_size, self._pages, self._context)
                self._check_appendable(path)
                yield from grown.pages(begun, before, done)
                return
            start = CsvCursor(name, f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}")
            alive, is_same = self._context.reporter.alive, begun is not None and begun.is_in(start)
            digest = begun.digest if begun and is_same else digest_of(file, status.st_size, alive)
            after = Kept(files={**done, name: FileMark(digest, status.st_size)})
            if before is not None and before.digest == digest and not before.appending and begun is None:
                yield Page(replace(start, offset=status.st_size).kept(), [], None, kept=after)
                return
            start = replace(start, digest=digest)
            if is_plain(path, self._source.csv.encoding):
                yield from self._pages.pages(file, status.st_size, start, begun, Kept(files=done), after)
                return
        copies = PlainCopies(self._source, self._context)
        if not copies.path(digest).exists():
            copies.make(path, digest)
        yield from copies.pages(digest, start, begun, Kept(files=done), after)

    def _check_appendable(self, path: Path) -> None:
        if not is_plain(path, self._source.csv.encoding):
            kind = "compressed" if is_packed(path) else "wide-character"
            raise FormatError(f"a {kind} file cannot be read in mode append", code="not_appendable")


class AppendedFile:
    """A file that grows: what was added to it is read, or all of it when what was read before has changed."""

    def __init__(self, name: str, file: BinaryIO, size: int, pages: FilePages, context: Context) -> None:
        self._name = name
        self._file = file
        self._size = size
        self._pages = pages
        self._reporter = context.reporter

    def pages(self, begun: CsvCursor | None, before: FileMark | None, done: dict[str, FileMark]) -> Iterator[Page]:
        """The pages from where this run has begun to read it, or from where the run before ended."""
        during = Kept(files=done)
        if not self._has_whole_header():
            yield Page(CsvCursor(self._name).kept(), [], None, kept=during)
            return
        start = self._start(begun)
        resumed = begun if begun is not None and begun.is_in(start) else None
        if before is not None and resumed is None:
            if self._has_grown(before):
                resumed = replace(start, offset=before.offset, row=before.row)
            else:
                before = None
        last: Page | None = None
        for page in self._pages.pages(self._file, self._size, start, resumed, during, during):
            if last is not None:
                yield last
            last = page
        assert last is not None
        mark = self._mark(CsvCursor.of(last.cursor), before)
        yield replace(last, following=None, kept=Kept(files={**done, self._name: mark}))

    def _has_whole_header(self) -> bool:
        """False for a file that has only been opened to be written."""
        self._file.seek(0)
        start = self._file.read(SAMPLE)
        return b"\n" in start or b"\r" in start or self._size > SAMPLE

    def _start(self, begun: CsvCursor | None) -> CsvCursor:
        """What tells in mid-run that it is still the same file: its beginning, as it was at the start."""
        head = min(self._size, SAMPLE) if begun is None or begun.head is None else begun.head
        return CsvCursor(self._name, self._hash(head), head=head)

    def _mark(self, end: CsvCursor | None, before: FileMark | None) -> FileMark:
        assert end is not None
        if before is not None and before.offset == end.offset:
            return before
        return FileMark(self._hash(end.offset), end.offset, end.row, appending=True)

    def _has_grown(self, before: FileMark) -> bool:
        """True when a file begins with what was read before; else it was cut or replaced."""
        name = self._name
        if self._size < before.offset:
            self._reporter.warn("file_truncated", f"{name} is shorter than what was read of it; it is read anew")
            return False
        if self._hash(before.offset) != before.digest:
            self._reporter.warn("file_rewritten", f"{name} no longer begins as it did; it is read anew")
            return False
        return True

    def _hash(self, size: int) -> str:
        return digest_of(self._file, size, self._reporter.alive)
