"""What a plain CSV file is, before its rows are read: its form, as declared or found out, and its header."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from etl.errors import FormatError
from etl.files.archive import is_ascii_compatible
from etl.files.dialect import SAMPLE, count_titles, find_delimiter, separator_line
from etl.files.encoding import DEFAULT, Encoding, find_encoding
from etl.files.form import Form
from etl.files.header import Header, count_columns, read_header

if TYPE_CHECKING:
    from etl.declare.dialect import Dialect

_FALLBACK = "cp1252"
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
# A footer, and a line above the table, have so many bytes at most.
_TAIL = 16 * 1024 * 1024


@dataclass(frozen=True)
class Opening:
    """The form of a file, its header, and where its data ends: bytes. `titles` counts the rows of title left out."""

    form: Form
    header: Header
    end: int
    titles: int = 0
    guessed: bool = False


def open_table(file: BinaryIO, size: int, declared: Dialect, seen: int = SAMPLE) -> Opening:
    """Find out how a file of `size` bytes is written by the first that are to be `seen`, where the source does not say.

    Raises:
        FormatError: it is no CSV, or has no header that can be read.
    """
    file.seek(0)
    sample = file.read(min(seen, size))
    start = len(codecs.BOM_UTF8) if sample.startswith(codecs.BOM_UTF8) else 0
    _refuse_others(sample[start:])
    encoding = _encoding(sample, declared)
    form = Form(
        delimiter=declared.delimiter or ",",
        quote=declared.quote,
        escape=declared.escape,
        skip_space=declared.skip_space,
        encoding=encoding.name,
        fallback=encoding.fallback,
        comment=declared.comment,
        ragged=declared.ragged,
        drop_empty=declared.drop_empty_rows,
    )
    named = separator_line(sample[start:])
    start += named[1] if named else 0
    start = _after_lines(file, start, declared.skip_lines or 0)
    file.seek(start)
    end = seen if seen < SAMPLE else start + SAMPLE
    text = file.read(max(min(end, size) - start, 0)).decode(form.encoding, "replace")
    if declared.delimiter is None:
        form = replace(form, delimiter=named[0] if named else find_delimiter(text, form))
    data_end = _before_lines(file, size, declared.skip_footer)
    titles = count_titles(text, form) if declared.header and declared.skip_lines is None else 0
    header = read_header(file, start, form, titles) if declared.header else count_columns(file, start, form)
    return Opening(form, header, max(data_end, header.offset), titles, encoding.guessed)


def _refuse_others(sample: bytes) -> None:
    start = sample.lstrip()[:20].lower()
    if start.startswith(_MARKUP):
        raise FormatError(f"the file is HTML or XML, not CSV; it starts with {sample.lstrip()[:80]!r}", code="not_csv")
    if start.startswith((b"{", b"[")) and len(sample) < SAMPLE:
        try:
            msgspec.json.decode(sample)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        raise FormatError(f"the file is JSON, not CSV; it starts with {sample.lstrip()[:80]!r}", code="not_csv")


def _encoding(sample: bytes, declared: Dialect) -> Encoding:
    if declared.encoding is not None:
        # Wide encodings were turned into UTF-8 on the way to the copy.
        return Encoding(declared.encoding if is_ascii_compatible(declared.encoding) else DEFAULT)
    if declared.fallback_encoding is not msgspec.UNSET:
        return Encoding(DEFAULT, declared.fallback_encoding)
    if sample.startswith(codecs.BOM_UTF8):
        return Encoding(DEFAULT, _FALLBACK)
    return find_encoding(sample, _FALLBACK)


def _after_lines(file: BinaryIO, offset: int, count: int) -> int:
    """The offset after so many lines."""
    file.seek(offset)
    for _ in range(count):
        offset += len(_line(file))
    return offset


def _line(file: BinaryIO) -> bytes:
    """A line with any of the usual ends."""
    place = file.tell()
    line = file.readline(_TAIL)
    if b"\r" in line[:-2] or (b"\r" in line and not line.endswith(b"\r\n")):
        line = line[: line.index(b"\r") + 1]
        file.seek(place + len(line))
    return line


def _before_lines(file: BinaryIO, size: int, count: int) -> int:
    """Where the last lines begin that are not blank."""
    if not count:
        return size
    tail = SAMPLE
    while tail <= _TAIL:
        begin = max(0, size - tail)
        file.seek(begin)
        lines = file.read(size - begin).splitlines(keepends=True)
        # The first one may be cut.
        footer = _last(lines if begin == 0 else lines[1:], count)
        if footer is not None or begin == 0:
            return size - (footer or 0)
        tail *= 2
    raise FormatError(f"the last {count} lines have more than {_TAIL} bytes", code="bad_footer")


def _last(lines: list[bytes], count: int) -> int | None:
    """The bytes of so many lines at the end, blank ones among them not counted; None if there are fewer."""
    size = 0
    for line in reversed(lines):
        size += len(line)
        count -= bool(line.strip())
        if not count:
            return size
    return None
