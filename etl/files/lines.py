"""Decoded lines of a binary file, for csv.reader: bytes are counted, and lines can be given again."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE = 8 * 1024 * 1024
# A carriage return that stands alone ends a line too, as csv.reader expects.
_BARE_RETURN = re.compile(rb"(?<=\r)(?!\n)")


class Lines:
    """Lines from an offset on. `fallbacks` counts those that are not in the encoding but in the fallback."""

    def __init__(self, file: BinaryIO, offset: int, encoding: str, fallback: str | None) -> None:
        """A line that is in neither encoding raises UnicodeDecodeError."""
        file.seek(offset)
        self.offset = offset
        self.fallbacks = 0
        self._encoding = encoding
        self._fallback = fallback
        self._file = file
        self._taken: list[bytes] = []
        self._again: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else self._next_line()
        self.offset += len(line)
        self._taken.append(line)
        return self._decode(line)

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
        line = self._file.readline(MAX_LINE)
        if not line:
            raise StopIteration
        ending = 2 if line.endswith(b"\r\n") else 1
        if line.find(b"\r", 0, len(line) - ending) < 0:
            return line
        parts = [part for part in _BARE_RETURN.split(line) if part]
        if not line.endswith(b"\n") and len(line) == MAX_LINE and len(parts) > 1:
            self._file.seek(-len(parts.pop()), os.SEEK_CUR)
        self._again.extend(reversed(parts[1:]))
        return parts[0]
