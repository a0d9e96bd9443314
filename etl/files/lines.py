"""Decoded lines of a binary file, for csv.reader: bytes are counted, and lines can be given again."""

from __future__ import annotations

import contextlib
import csv
import os
import re
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE = 8 * 1024 * 1024
# A row may go on over several lines, of quoted fields: its bytes, and its lines.
MAX_ROW = 8 * 1024 * 1024
MAX_ROW_LINES = 100_000
# What may be read again because of rows that do not end: bytes. Then, as far as the last of them went, each line is a
# row, so that the time it takes stays in proportion to the file.
_MAX_AGAIN = 2 * 1024 * 1024
_BLOCK = 64 * 1024
# A carriage return that stands alone ends a line too, as csv.reader expects.
_BARE_RETURN = re.compile(rb"(?<=\r)(?!\n)")


class Lines:
    """Lines from an offset on. `fallbacks` counts those that are not in the encoding but in the fallback.

    Up to the offset `single_until` no row has a second line.
    """

    def __init__(self, file: BinaryIO, offset: int, encoding: str, fallback: str | None, single_until: int = 0) -> None:
        """A line that is in neither encoding raises UnicodeDecodeError, one too many for its row csv.Error."""
        file.seek(offset)
        self.offset = offset
        self.fallbacks = 0
        self.single_until = single_until
        self._encoding = encoding
        self._fallback = fallback
        self._file = file
        self._taken: list[bytes] = []
        self._again: list[bytes] = []
        self._row = self._read_again = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._taken and self.offset < self.single_until:
            raise csv.Error("unexpected end of line")
        if self._row > MAX_ROW or len(self._taken) > MAX_ROW_LINES:
            raise csv.Error(f"more than {MAX_ROW} bytes or {MAX_ROW_LINES} lines")
        line = self._again.pop() if self._again else self._next_line()
        self.offset += len(line)
        self._row += len(line)
        self._taken.append(line)
        return self._decode(line)

    def begin(self) -> None:
        """A new record starts here."""
        self._taken.clear()
        self._row = 0

    def taken(self) -> bytes:
        """The bytes of the current record."""
        return b"".join(self._taken)

    def peek(self, most: int) -> list[bytes]:
        """The next lines, at most so many, and not more than a row may have; they are still to be read."""
        ahead: list[bytes] = []
        with contextlib.suppress(StopIteration):
            while len(ahead) < most and sum(map(len, ahead)) < MAX_ROW:
                ahead.append(self._again.pop() if self._again else self._next_line())
        self._again.extend(reversed(ahead))
        return ahead

    def skip(self, count: int) -> None:
        """Take lines that were peeked at, as they are."""
        for _ in range(count):
            self._taken.append(line := self._again.pop())
            self.offset += len(line)

    def retry(self) -> tuple[bytes, bool]:
        """Give up the first line of the current record, and read the others again; the line, and if it was alone."""
        first, *others = self._taken
        self._again.extend(reversed(others))
        end, self.offset = self.offset, self.offset - sum(map(len, others))
        self._read_again += end - self.offset
        if self._read_again > _MAX_AGAIN:
            self.single_until = max(self.single_until, end)
        return first, not others

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode(self._encoding)
        except UnicodeDecodeError:
            if self._fallback is None:
                raise
            text = line.decode(self._fallback)
            self.fallbacks += 1
            return text

    def _next_line(self) -> bytes:
        line = self._file.readline(_BLOCK)
        while len(line) < MAX_LINE and not line.endswith(b"\n") and b"\r" not in line:
            more = self._file.readline(min(len(line), MAX_LINE - len(line)))
            if not more:
                break
            line += more
        if not line:
            raise StopIteration
        if line.endswith(b"\r"):
            line += self._line_feed()
        ending = 2 if line.endswith(b"\r\n") else 1
        return line if line.find(b"\r", 0, len(line) - ending) < 0 else self._first_of(line)

    def _line_feed(self) -> bytes:
        """What belongs to the carriage return just read."""
        after = self._file.read(1)
        if after and after != b"\n":
            self._file.seek(-1, os.SEEK_CUR)
        return after if after == b"\n" else b""

    def _first_of(self, block: bytes) -> bytes:
        """The first of several lines; what may be the beginning of another one is left to the next block."""
        parts = [part for part in _BARE_RETURN.split(block) if part]
        if not block.endswith((b"\n", b"\r")) and len(parts) > 1:
            self._file.seek(-len(parts.pop()), os.SEEK_CUR)
        self._again.extend(reversed(parts[1:]))
        return parts[0]
