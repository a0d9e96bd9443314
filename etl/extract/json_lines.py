"""Answers with a JSON text on each line (NDJSON, JSON Lines), read line by line with flat memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from etl import payload
from etl.errors import FormatError
from etl.records import BadRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etl.records import Record, Records

# A line, as it is sent and once it is decoded: bytes.
_MAX_LINE = 16 * 1024 * 1024
_MAX_WEIGHT = 192 * 1024 * 1024
_SHOWN = 2000
_ALIVE_EVERY = 1000


class JsonLines:
    """A document that is all records; a line that is none costs itself."""

    def __init__(self, file: BinaryIO, alive: Callable[[], None]) -> None:
        """The file stays open while the records are read."""
        self._file = file
        self._alive = alive
        self._count = sum(1 for _ in self._lines())

    @property
    def records(self) -> Records:
        """The records in source order."""
        return self

    def find(self, _: str) -> Any:
        """There is nothing beside the records."""
        return None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Record]:
        for number, line in enumerate(self._lines(), 1):
            yield _record(line, number)

    def _lines(self) -> Iterator[bytes]:
        self._file.seek(0)
        number = 0
        while line := self._file.readline(_MAX_LINE + 1):
            number += 1
            if number % _ALIVE_EVERY == 1:
                self._alive()
            if len(line) > _MAX_LINE:
                raise FormatError(f"line {number} has more than {_MAX_LINE} bytes", code="too_large")
            if line := line.strip():
                yield line


def _record(line: bytes, number: int) -> Record:
    if payload.weight(line) > _MAX_WEIGHT:
        return _bad(line, "too_large", f"line {number} takes more than {_MAX_WEIGHT} bytes of memory")
    try:
        found = payload.decode(line)
    except FormatError as error:
        return _bad(line, "bad_json", f"line {number}: {error.message}")
    if isinstance(found, dict):
        return found
    return _bad(line, "not_an_object", f"line {number} is not a JSON object")


def _bad(line: bytes, rule: str, message: str) -> BadRecord:
    return BadRecord(line[:_SHOWN], "", rule, message, payload.digest(line))
