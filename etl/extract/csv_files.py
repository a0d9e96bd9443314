"""CSV on disk: files that are read whole when they have changed, and files that grow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from msgspec.structs import replace

from etl.errors import ETLError, FormatError, PostponedError, WaitError
from etl.extract.csv import CsvCursor, CsvPages, PlainCopies
from etl.files.archive import is_packed, is_plain
from etl.files.dialect import SAMPLE
from etl.files.find import digest_of, find_files, open_file
from etl.records import FileMark, Kept, Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etl.declare.source import CsvSource
    from etl.extract.context import Context
    from etl.records import Position
    from etl.reporter import Reporter


class CsvFiles:
    """Reads files one after the other."""

    def __init__(self, source: CsvSource, context: Context) -> None:
        self._source = source
        self._context = context
        self._pages = CsvPages(source, context)
        self._copies = PlainCopies(source, context)

    def pages(self, position: Position) -> Iterator[Page]:
        """The pages from the position on. A file that is no longer the same is read from its start.

        One that cannot be read does not keep the others from it, but fails the run at the end.
        """
        assert self._source.file is not None
        cursor = CsvCursor.of(position)
        done = dict(position.kept.files) if position.kept else {}
        failures: list[ETLError] = []
        known: set[bool] = set()
        found = find_files(self._source.file, self._context.base, self._context.roots)
        if not found:
            yield self._emptied(self._source.file, done)
            return
        is_anew = self._source.full_snapshot and not (cursor is None and self._are_known(found))
        for name, path in found.items():
            if name in done:
                continue
            begun = cursor if cursor is not None and cursor.name == name else None
            try:
                before = None if is_anew else self._context.checkpoint.kept.files.get(name)
                for page in self._file(name, path, begun, before, done):
                    known.add(page.known)
                    done = page.kept.files if page.kept else done
                    yield replace(page, following=page.following or CsvCursor(name=name, file="read"))
            except (WaitError, PostponedError):
                raise
            except ETLError as error:
                failure = error.within(name)
                self._context.reporter.warn(failure.code, failure.message)
                failures.append(failure)
        if failures:
            raise failures[0]
        # One has changed just now: the next run reads all, since only that is a snapshot.
        is_mixed = self._source.full_snapshot and len(known) > 1
        yield Page(CsvCursor(name=""), [], None, kept=Kept(files={} if is_mixed else done))

    def _are_known(self, found: dict[str, Path]) -> bool:
        """Whether these are the files that the run before has read, as they were: only all together are a snapshot."""
        known = self._context.checkpoint.kept.files
        return known.keys() == found.keys() and all(
            mark.digest == self._digest(found[name]) for name, mark in known.items()
        )

    def _digest(self, path: Path) -> str:
        with open_file(path, self._context.roots) as file:
            return digest_of(file, os.fstat(file.fileno()).st_size, self._context.reporter.alive)

    def _emptied(self, declared: str, done: dict[str, FileMark]) -> Page:
        """The page of a folder whose files are gone: what was read of them is kept in mind.

        Raises:
            FormatError: it never had any.
        """
        if not done and not self._context.was_read:
            raise FormatError(f"{declared}: there are no files", code="file_not_found")
        self._context.reporter.warn("no_files", f"{declared}: there are no files any more")
        kept = Kept(files={**self._context.checkpoint.kept.files, **done})
        return Page(CsvCursor(name=""), [], None, kept=kept, known=True)

    def _file(
        self, name: str, path: Path, begun: CsvCursor | None, before: FileMark | None, done: dict[str, FileMark]
    ) -> Iterator[Page]:
        """The pages of one file, which this run may have `begun`.

        `before` is what the last run has read of it, `done` are the files that this one has read.
        """
        with open_file(path, self._context.roots) as file:
            if self._source.mode == "append":
                _check_appendable(file, self._source.csv.encoding)
                grown = AppendedFile(name, file, self._pages, self._context.reporter)
                yield from grown.pages(begun, before, done)
                return
            start, size = _whole(name, file)
            resumed = begun if begun is not None and begun.is_in_file_of(start) else None
            digest = resumed.digest if resumed is not None else None
            digest = digest or digest_of(file, size, self._context.reporter.alive)
            during, after = Kept(files=done), Kept(files={**done, name: FileMark(digest, size)})
            if begun is None and before is not None and before.digest == digest and not before.appending:
                yield Page(replace(start, offset=size), [], None, kept=after, known=True)
                return
            start = replace(start, digest=digest)
            if is_plain(file, self._source.csv.encoding):
                yield from self._pages.pages(file, size, start, resumed, during, lambda _: after)
                return
            if not self._copies.has(digest):
                self._copies.make(file, digest)
        yield from self._copies.pages(digest, start, resumed, during, after)


class AppendedFile:
    """A file that grows: what was added to it is read, or all of it when what was read before has changed."""

    def __init__(self, name: str, file: BinaryIO, pages: CsvPages, reporter: Reporter) -> None:
        self._name = name
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._pages = pages
        self._reporter = reporter
        self._seen = SAMPLE

    def pages(self, begun: CsvCursor | None, before: FileMark | None, done: dict[str, FileMark]) -> Iterator[Page]:
        """The pages from where this run has `begun` it, or else from where the run `before` ended."""
        during = Kept(files=done)
        if not self._has_whole_header():
            yield Page(CsvCursor(name=self._name), [], None, kept=during)
            return
        if before is not None and not before.row:
            # Nothing was read but a header, which may have been a title.
            before = None
        start = self._start(begun)
        resumed = begun if begun is not None and begun.is_in_file_of(start) else None
        if resumed is not None:
            # As it was begun: by a release before this one without it.
            self._seen = resumed.seen or self._head(begun)
            start = replace(start, seen=resumed.seen)
        else:
            before = before if before is not None and self._has_grown(before) else None
            resumed = None if before is None else replace(start, offset=before.offset, row=before.row)
            self._seen = before.seen if before is not None and before.seen else self._head(None)
            start = replace(start, seen=self._seen)
        yield from self._pages.pages(
            self._file,
            self._size,
            start,
            resumed,
            during,
            lambda end: Kept(files={**done, self._name: self._mark(end, before)}),
            self._seen,
        )

    def _has_whole_header(self) -> bool:
        """False for a file that has only been opened to be written."""
        self._file.seek(0)
        start = self._file.read(SAMPLE)
        return b"\n" in start or b"\r" in start or self._size > SAMPLE

    def _start(self, begun: CsvCursor | None) -> CsvCursor:
        """What tells in mid-run that it is still the same file: its beginning, as it was at the start."""
        head = self._head(begun)
        return CsvCursor(name=self._name, file=self._hash(head), head=head)

    def _head(self, begun: CsvCursor | None) -> int:
        """How many bytes of its beginning there were when this run began to read it."""
        head = begun.head if begun is not None else None
        return min(self._size, SAMPLE) if head is None else head

    def _has_grown(self, before: FileMark) -> bool:
        """True when it begins with what was read before; else it was cut or replaced."""
        name = self._name
        if self._size < before.offset:
            self._reporter.warn("file_truncated", f"{name} is shorter than what was read of it; it is read anew")
            return False
        if self._hash(before.offset) != before.digest:
            self._reporter.warn("file_rewritten", f"{name} no longer begins as it did; it is read anew")
            return False
        return True

    def _mark(self, end: CsvCursor, before: FileMark | None) -> FileMark:
        if before is not None and before.offset == end.offset:
            return before
        return FileMark(self._hash(end.offset), end.offset, end.row, appending=True, seen=self._seen)

    def _hash(self, size: int) -> str:
        return digest_of(self._file, size, self._reporter.alive)


def _whole(name: str, file: BinaryIO) -> tuple[CsvCursor, int]:
    """What tells in mid-run that a file is still the same one, and its size in bytes."""
    status = os.fstat(file.fileno())
    return CsvCursor(name=name, file=f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"), status.st_size


def _check_appendable(file: BinaryIO, encoding: str | None) -> None:
    if not is_plain(file, encoding):
        kind = "compressed" if is_packed(file) else "wide-character"
        raise FormatError(f"a {kind} file cannot be read in mode append", code="not_appendable")
