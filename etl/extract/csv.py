"""CSV files, on disk or by URL, read row by row with flat memory.

A URL or a compressed file becomes a local plain copy first, so that every slice can go on at a byte offset.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import gzip
import os
import re
import stat
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import msgspec

from etl.errors import ConfigError, FormatError
from etl.records import BadRecord, Cursor, Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etl.extract.http import HttpClient, Target
    from etl.records import Position
    from etl.source import CsvSource

PAGE_ROWS = 1000
MAX_FIELD = 1024 * 1024
MAX_LINE = 8 * 1024 * 1024
MAX_UNPACKED = 16 * 1024 * 1024 * 1024
_COPY_CHUNK = 1024 * 1024
# A carriage return that stands alone ends a line too, as csv.reader expects.
_BARE_RETURN = re.compile(rb"(?<=\r)(?!\n)")

csv.field_size_limit(MAX_FIELD)


class CsvExtractor:
    """Reads a file in pages of 1,000 rows. A cursor is `{offset, row}`: bytes before the page, and rows before it."""

    def __init__(
        self,
        source: CsvSource,
        http: HttpClient,
        target: Target | None,
        scratch: Path,
        roots: tuple[Path, ...],
        base: Path,
    ) -> None:
        """`target` is the source's request, None for a file; the other arguments are those of `open_source`."""
        self._source = source
        self._http = http
        self._target = target
        self._scratch = scratch
        self._roots = roots
        self._base = base

    def pages(self, position: Position) -> Iterator[Page]:
        """The pages from the position on, or from the start when the file is no longer the same."""
        path = self._local(position)
        with path.open("rb") as file:
            validator = _identity(os.fstat(file.fileno()), is_copy=path == self._scratch)
            header, first = self._header(file)
            # The cursor names the file its offset belongs to; another file is read from its start.
            cursor = position.cursor
            if cursor is None or cursor.get("file") != validator:
                cursor = {"offset": first, "row": 0, "file": validator}
            yield from self._read(file, header, cursor, validator)
        if path == self._scratch:
            path.unlink(missing_ok=True)

    def _read(self, file: BinaryIO, header: list[str] | None, cursor: Cursor, validator: str) -> Iterator[Page]:
        lines = _Lines(file, cursor["offset"], self._source.csv.encoding)
        row, columns = cursor["row"], header
        start, records = cursor, list[dict[str, Any] | BadRecord]()
        for fields in self._rows(lines):
            if fields == []:
                continue
            row += 1
            if not isinstance(fields, BadRecord):
                columns = columns or [f"column_{number}" for number in range(1, len(fields) + 1)]
                records.append(_record(columns, fields, row, lines))
            else:
                records.append(msgspec.structs.replace(fields, message=f"row {row}: {fields.message}"))
            if len(records) >= PAGE_ROWS:
                following = {"offset": lines.offset, "row": row, "file": validator}
                yield Page(start, records, following, validator, lines.offset - start["offset"])
                start, records = following, []
        yield Page(start, records, None, validator, lines.offset - start["offset"])

    def _rows(self, lines: _Lines) -> Iterator[list[str] | BadRecord]:
        """Rows of fields. A row that cannot be read costs its first line only: the rest is read again."""
        reader = self._reader(lines)
        while True:
            lines.begin()
            try:
                yield next(reader)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                yield self._bad_row(lines, error)
                reader = self._reader(lines)

    def _bad_row(self, lines: _Lines, error: csv.Error | UnicodeDecodeError) -> BadRecord:
        raw, alone = lines.retry()
        if alone and isinstance(error, UnicodeDecodeError):
            return BadRecord(raw, "", "encoding", f"not valid {self._source.csv.encoding}: {error.reason}")
        reason = "a quote is not closed" if isinstance(error, UnicodeDecodeError) else error
        return BadRecord(raw, "", "csv", f"not a CSV row: {reason}")

    def _reader(self, lines: _Lines) -> Iterator[list[str]]:
        dialect = self._source.csv
        return csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)

    def _header(self, file: BinaryIO) -> tuple[list[str] | None, int]:
        """The column names, None when there are none yet, and the offset of the first row."""
        bom = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
        if not self._source.csv.header:
            return None, bom
        lines = _Lines(file, bom, self._source.csv.encoding)
        for fields in self._rows(lines):
            if isinstance(fields, BadRecord):
                raise FormatError(f"the header cannot be read: {fields.message}", code="bad_header")
            if any(name.strip() for name in fields):
                return column_names(fields), lines.offset
        raise FormatError("the file has no header", code="bad_header")

    def _local(self, position: Position) -> Path:
        """A plain file to read: the source's own, or a copy."""
        if self._target is None:
            path = self._allowed()
            return path if _plain(path, self._source.csv.encoding) else self._copy(path)
        if position.cursor is not None and self._scratch.exists():
            return self._scratch
        partial = self._scratch.with_suffix(".part")
        with partial.open("wb") as file:
            self._http.download(self._target, self._source.timeout, file, position.tries)
        return self._copy(partial, move=True)

    def _copy(self, path: Path, *, move: bool = False) -> Path:
        """Unpack and transcode into the scratch file, whole or not at all."""
        if not move and self._scratch.exists() and self._scratch.stat().st_mtime >= path.stat().st_mtime:
            return self._scratch
        if move and _plain(path, self._source.csv.encoding):
            return path.replace(self._scratch)
        unpacked = self._scratch.with_suffix(".unpacked")
        with _unpack(path) as packed, unpacked.open("wb") as file:
            _transcode(packed, file, self._source.csv.encoding)
        if move:
            path.unlink()
        return unpacked.replace(self._scratch)

    def _allowed(self) -> Path:
        """The file, if it is a regular file in one of the allowed folders."""
        assert self._source.file is not None
        path = (self._base / self._source.file).resolve()
        if not any(path.is_relative_to(root.resolve()) for root in self._roots):
            raise ConfigError(f"`file`: {self._source.file} is not in a folder of CSV_ROOTS", code="file_not_allowed")
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise FormatError(f"{self._source.file}: {error.strerror}", code="file_not_found") from error
        if not stat.S_ISREG(mode):
            raise FormatError(f"{self._source.file} is not a regular file", code="not_a_file")
        return path


class _Lines:
    """Decoded lines of a binary file, for csv.reader: counts bytes, and can give lines again."""

    def __init__(self, file: BinaryIO, offset: int, encoding: str) -> None:
        file.seek(offset)
        self.offset = offset
        # Other encodings were turned into UTF-8 on the way to the scratch file.
        self._encoding = encoding if _ascii_compatible(encoding) else "utf-8"
        self._file = file
        self._taken: list[bytes] = []
        self._again: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else self._next_line()
        self.offset += len(line)
        self._taken.append(line)
        return line.decode(self._encoding)

    def begin(self) -> None:
        """A new record starts here."""
        self._taken.clear()

    def taken(self) -> bytes:
        """The bytes of the current record."""
        return b"".join(self._taken)

    def retry(self) -> tuple[bytes, bool]:
        """Give up the first line of the current record, and read the others again; the line, and if it was alone."""
        first, *others = self._taken
        self._again.extend(reversed(others))
        self.offset -= sum(map(len, others))
        return first, not others

    def _next_line(self) -> bytes:
        line = self._file.readline(MAX_LINE)
        if not line:
            raise StopIteration
        if line.find(b"\r", 0, -2) < 0:
            return line
        parts = [part for part in _BARE_RETURN.split(line) if part]
        if not line.endswith(b"\n") and len(line) == MAX_LINE and len(parts) > 1:
            self._file.seek(-len(parts.pop()), os.SEEK_CUR)
        self._again.extend(reversed(parts[1:]))
        return parts[0]


def column_names(fields: list[str]) -> list[str]:
    """Header cells as unique names: trimmed, `column_N` for an empty one, `name_2` for a repeat."""
    names: list[str] = []
    for number, field in enumerate(fields, 1):
        name = base = field.strip() or f"column_{number}"
        repeat = 1
        while name in names:
            repeat += 1
            name = f"{base}_{repeat}"
        names.append(name)
    return names


def _record(columns: list[str], fields: list[str], row: int, lines: _Lines) -> dict[str, Any] | BadRecord:
    if len(fields) != len(columns):
        message = f"row {row}: {len(fields)} fields where the header has {len(columns)}"
        return BadRecord(lines.taken(), "", "columns", message)
    return dict(zip(columns, fields, strict=True))


def _identity(status: os.stat_result, *, is_copy: bool) -> str:
    """Tells whether a file is still the same: its size, and for an original the time it was written."""
    return f"{status.st_size}" if is_copy else f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _ascii_compatible(encoding: str) -> bool:
    return "a\n".encode(encoding) == b"a\n"


def _plain(path: Path, encoding: str) -> bool:
    with path.open("rb") as file:
        start = file.read(6)
    packed = start.startswith((b"\x1f\x8b", b"BZh", b"PK\x03\x04"))
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return not packed and not wide and _ascii_compatible(encoding)


@contextlib.contextmanager
def _unpack(path: Path) -> Iterator[IO[bytes]]:
    """Open a file by what it is, not by its name: gzip, bzip2, a zip with one member, or plain."""
    with path.open("rb") as file:
        start = file.read(4)
    with contextlib.ExitStack() as stack:
        try:
            if start.startswith(b"\x1f\x8b"):
                yield cast("IO[bytes]", stack.enter_context(gzip.open(path)))
            elif start.startswith(b"BZh"):
                yield cast("IO[bytes]", stack.enter_context(bz2.open(path)))
            elif start.startswith(b"PK\x03\x04"):
                yield stack.enter_context(_only_member(stack.enter_context(zipfile.ZipFile(path))))
            else:
                yield stack.enter_context(path.open("rb"))
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise FormatError(f"the compressed file is damaged: {error}", code="bad_archive") from error


def _only_member(archive: zipfile.ZipFile) -> IO[bytes]:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise FormatError(f"the zip holds {len(members)} files; exactly one is expected", code="bad_archive")
    return archive.open(members[0])


def _transcode(packed: IO[bytes], file: BinaryIO, encoding: str) -> None:
    """Copy; encodings in which a line end is not one byte become UTF-8."""
    start = packed.read(2)
    wide = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and codecs.lookup(encoding).name == "utf-8"
    if _ascii_compatible(encoding) and not wide:
        file.write(start)
        file.writelines(_capped(packed))
        return
    decoder = codecs.getincrementaldecoder("utf-16" if wide else encoding)()
    try:
        file.write(decoder.decode(start).encode())
        file.writelines(decoder.decode(chunk).encode() for chunk in _capped(packed))
        file.write(decoder.decode(b"", final=True).encode())
    except UnicodeDecodeError as error:
        raise FormatError(f"the file is not valid {encoding}: {error.reason}", code="bad_encoding") from error


def _capped(packed: IO[bytes]) -> Iterator[bytes]:
    """The rest of a file, in chunks; refuses to unpack without end."""
    size = 0
    while chunk := packed.read(_COPY_CHUNK):
        size += len(chunk)
        if size > MAX_UNPACKED:
            raise FormatError(f"unpacks to more than {MAX_UNPACKED} bytes", code="too_large")
        yield chunk
