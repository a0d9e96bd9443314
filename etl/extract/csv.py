"""CSV files, on disk or by URL, with flat memory.

What comes by URL, is compressed or in a wide encoding becomes a local plain copy first, so that every slice can go on
at a byte offset.
"""

from __future__ import annotations

import codecs
import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from etl.duration import seconds
from etl.errors import ETLError, FormatError, PostponedError, WaitError
from etl.files.archive import is_ascii_compatible, is_packed, is_plain, make_plain
from etl.files.dialect import SAMPLE, find_delimiter
from etl.files.find import digest_of, find_files
from etl.files.rows import Format, Rows, numbered, read_header
from etl.records import FileMark, Kept, Page, Validator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etl.extract.context import Context
    from etl.http.target import Target
    from etl.records import Cursor, Position
    from etl.source import CsvSource


class CsvExtractor:
    """Reads files one after the other.

    A cursor is `{name, file, offset, row, digest}`: the file, what tells that it is still the same, the bytes and rows
    before the page, and the hash of the whole. Of a download it also holds the `validator`.
    """

    def __init__(self, source: CsvSource, target: Target | None, context: Context) -> None:
        """`target` is the source's request, None for files."""
        self._source = source
        self._target = target
        self._context = context

    def pages(self, position: Position) -> Iterator[Page]:
        """The pages from the position on. A file that is no longer the same is read from its start."""
        if self._target is not None:
            yield from self._download(self._target, position)
        else:
            yield from self._files(position)

    # By URL.

    def _download(self, target: Target, position: Position) -> Iterator[Page]:
        """By way of a local copy, known by the hash of what was sent; slices elsewhere fetch it anew."""
        context, cursor = self._context, position.cursor
        if cursor is not None and self._copy_of(cursor["file"]).exists():
            digest, kept = cursor["file"], Kept(validator=msgspec.convert(cursor["validator"], Validator))
        else:
            timeout = seconds(self._source.timeout)
            # Part of what came before may be stored already: then nothing is `unchanged`.
            known = context.known if cursor is None else None
            part = context.scratch.with_suffix(".part")
            answer = context.http.download(target, timeout, part, position.tries, known)
            with _temporary(part):
                is_known = cursor is None and context.is_known(target, answer)
                if not is_known:
                    self._make_plain(part, self._copy_of(answer.digest))
            context.report.answered(answer.fresh, answer.moved_to)
            digest, kept = answer.digest, context.kept(target, answer)
            if is_known:
                yield Page({"name": ""}, [], None, size=answer.size, kept=kept)
                return
        start = {"name": "", "file": digest, "validator": msgspec.to_builtins(kept.validator)}
        yield from self._read_copy(self._copy_of(digest), start, cursor, Kept(), kept)

    def _copy_of(self, digest: str) -> Path:
        scratch = self._context.scratch
        return scratch.with_name(f"{scratch.name}-{digest}")

    def _read_copy(self, copy: Path, start: Cursor, cursor: Cursor | None, during: Kept, after: Kept) -> Iterator[Page]:
        with copy.open("rb") as file:
            yield from self._read(file, os.fstat(file.fileno()).st_size, start, cursor, during, after)
        copy.unlink(missing_ok=True)

    # On disk.

    def _files(self, position: Position) -> Iterator[Page]:
        """All files; one that cannot be read does not keep the others from it, but fails the run at the end."""
        assert self._source.file is not None
        done = dict(position.kept.files) if position.kept else {}
        failures: list[ETLError] = []
        pages = 0
        for name, path in find_files(self._source.file, self._context.base, self._context.roots).items():
            if name in done:
                continue
            try:
                for page in self._file(name, path, position, done):
                    pages += 1
                    done = page.kept.files if page.kept else done
                    yield msgspec.structs.replace(page, following=page.following or {"name": name, "file": "read"})
            except (WaitError, PostponedError):
                raise
            except ETLError as error:
                failure = error if name in error.message else error.within(name)
                self._context.report.warn(failure.code, failure.message)
                failures.append(failure)
        if failures:
            raise failures[0]
        yield Page({"name": None}, [], None, kept=Kept(files=done))

    def _file(self, name: str, path: Path, position: Position, done: dict[str, FileMark]) -> Iterator[Page]:
        before = self._context.checkpoint.kept.files.get(name)
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            size, mark = status.st_size, f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
            start, cursor = {"name": name, "file": mark}, position.cursor
            if self._source.mode == "append":
                self._check_appendable(path)
                yield from self._append(file, size, start, cursor, before, done)
                return
            begun = cursor is not None and cursor.get("name") == name
            resumed = begun and cursor is not None and cursor.get("file") == mark
            digest = cursor["digest"] if resumed and cursor else digest_of(file, size, self._context.report.alive)
            after = Kept(files={**done, name: FileMark(digest, size)})
            if before is not None and before.digest == digest and not before.appending and not begun:
                yield Page({**start, "offset": size, "row": 0}, [], None, kept=after)
                return
            start = {**start, "digest": digest}
            if is_plain(path, self._source.csv.encoding):
                yield from self._read(file, size, start, cursor, Kept(files=done), after)
                return
        # By way of a plain copy, which the slices of a run share.
        copy = self._copy_of(digest)
        if not copy.exists():
            self._make_plain(path, copy)
        yield from self._read_copy(copy, start, cursor, Kept(files=done), after)

    def _append(
        self,
        file: BinaryIO,
        size: int,
        start: Cursor,
        cursor: Cursor | None,
        before: FileMark | None,
        done: dict[str, FileMark],
    ) -> Iterator[Page]:
        """What was added to a file; all of it when what was read before has changed."""
        name, during = str(start["name"]), Kept(files=done)
        if not self._has_whole_header(file, size):
            yield Page(start, [], None, kept=during)
            return
        start = {**start, **self._head(file, size, name, cursor)}
        goes_on = cursor is not None and cursor.get("name") == name and cursor.get("file") == start["file"]
        if before is not None and not goes_on:
            if self._has_grown(file, size, before, name):
                cursor, goes_on = {**start, "offset": before.offset, "row": before.row}, True
            else:
                before = None
        last: Page | None = None
        for page in self._read(file, size, start, cursor if goes_on else None, during, during):
            if last is not None:
                yield last
            last = page
        assert last is not None
        mark = self._mark(file, last.cursor, before)
        yield msgspec.structs.replace(last, following=None, kept=Kept(files={**done, name: mark}))

    def _has_whole_header(self, file: BinaryIO, size: int) -> bool:
        """False for a file that has only been opened to be written."""
        file.seek(0)
        start = file.read(SAMPLE)
        return b"\n" in start or b"\r" in start or size > SAMPLE

    def _head(self, file: BinaryIO, size: int, name: str, cursor: Cursor | None) -> Cursor:
        """What tells in mid-run that a growing file is still the same one: its beginning, as it was at the start."""
        length = cursor["head"] if cursor is not None and cursor.get("name") == name else min(size, SAMPLE)
        return {"head": length, "file": digest_of(file, length, self._context.report.alive)}

    def _mark(self, file: BinaryIO, end: Cursor, before: FileMark | None) -> FileMark:
        if before is not None and before.offset == end["offset"]:
            return before
        digest = digest_of(file, end["offset"], self._context.report.alive)
        return FileMark(digest, end["offset"], end["row"], appending=True)

    def _has_grown(self, file: BinaryIO, size: int, before: FileMark, name: str) -> bool:
        """True when a file begins with what was read before; else it was cut or replaced."""
        if size < before.offset:
            self._context.report.warn("file_truncated", f"{name} is shorter than what was read of it; it is read anew")
            return False
        if digest_of(file, before.offset, self._context.report.alive) != before.digest:
            self._context.report.warn("file_rewritten", f"{name} no longer begins as it did; it is read anew")
            return False
        return True

    def _check_appendable(self, path: Path) -> None:
        if not is_plain(path, self._source.csv.encoding):
            kind = "compressed" if is_packed(path) else "wide-character"
            raise FormatError(f"a {kind} file cannot be read in mode append", code="not_appendable")

    def _make_plain(self, path: Path, copy: Path) -> None:
        """A plain copy, whole or not at all. What is plain already need not be copied if it is ours."""
        if is_plain(path, self._source.csv.encoding) and path.parent == copy.parent:
            path.replace(copy)
            return
        with _temporary(copy.with_suffix(".unpacked")) as part:
            with part.open("wb") as file:
                make_plain(path, file, self._source.csv.encoding, self._context.report.alive)
            part.replace(copy)

    # Both.

    def _read(
        self, file: BinaryIO, size: int, start: Cursor, cursor: Cursor | None, during: Kept, after: Kept
    ) -> Iterator[Page]:
        """The pages of one file. The last one has none following, and `after` is kept."""
        form = self._format(file)
        offset = 3 if _starts_with(file, codecs.BOM_UTF8) else 0
        columns, offset = self._columns(file, form, offset)
        rows = Rows(file, size, form, columns, growing=self._source.mode == "append")
        at = {**start, "offset": offset, "row": 0}
        if cursor is not None and cursor.get("name") == start["name"] and cursor.get("file") == start["file"]:
            at = {**start, "offset": cursor["offset"], "row": cursor["row"]}
        fallbacks = 0
        for stretch in rows.stretches(at["offset"], at["row"]):
            self._context.report.alive()
            fallbacks += stretch.fallbacks
            following = {**start, "offset": stretch.offset, "row": stretch.row}
            page_size = stretch.offset - at["offset"]
            yield Page(at, stretch.records, following, str(start["file"]), page_size, kept=during)
            at = following
        if fallbacks:
            message = f"{fallbacks} lines are not {form.encoding} and were read as {form.fallback}"
            self._context.report.warn("fallback_encoding", message)
        yield Page(at, [], None, str(start["file"]), kept=after)

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


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A file that is gone afterwards, unless it has another name by then."""
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _starts_with(file: BinaryIO, mark: bytes) -> bool:
    file.seek(0)
    return file.read(len(mark)) == mark
