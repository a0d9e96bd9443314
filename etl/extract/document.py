"""A JSON answer: small ones are decoded whole, large ones read record by record from a file, with flat memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import ijson

from etl import payload
from etl.errors import FormatError, RefusedError
from etl.paths import path
from etl.records import BadRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from etl.records import Record, Records
    from etl.source import ApiSource

# Above this size a document is streamed, if its paths are plain: bytes.
STREAM_OVER = 1024 * 1024
# What cannot be streamed must fit into memory.
MAX_WHOLE = 64 * 1024 * 1024

_PLAIN = re.compile(r"@|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
# Half of a surrogate pair: the streaming parser would quietly turn it into a question mark.
_HALF_PAIR = re.compile(rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..\\u[dD])[c-fC-F]..)")
_SCAN_CHUNK = 1024 * 1024
_OVERLAP = 12
_SHOWN = 2000


class Document(Protocol):
    """An answer with its records, and what else was looked for."""

    @property
    def records(self) -> Records:
        """The records in source order; an entry that is no object is a bad record."""

    def find(self, text: str) -> Any:
        """What a path leads to, None for nothing."""


def open_document(
    file: BinaryIO, size: int, source: ApiSource, others: Sequence[str], alive: Callable[[], None]
) -> Document:
    """Read an answer.

    Args:
        file: the body; it must stay open while the records are read.
        size: the number of its bytes.
        source: says where the records are, and whether they may be missing.
        others: the other paths that will be asked for.
        alive: called now and then.

    Raises:
        FormatError: not JSON, or the path does not lead to a list.
        RefusedError: too large to be read with these paths.
    """
    records = source.records
    file.seek(0)
    if size > STREAM_OVER and all(_PLAIN.fullmatch(each) for each in (records, *others)) and _can_stream(file, alive):
        survey = _survey(file, records, others, alive)
        if survey.is_plain:
            return _Streamed(file, records, survey, allow_missing=source.allow_missing)
    if size > MAX_WHOLE:
        raise RefusedError(
            f"the answer is larger than {MAX_WHOLE} bytes and cannot be read in pieces with these paths",
            code="too_large",
        )
    file.seek(0)
    return _Whole(payload.decode(file.read()), records, allow_missing=source.allow_missing)


class _Whole:
    """A document in memory."""

    def __init__(self, body: Any, records: str, *, allow_missing: bool) -> None:
        self._body = body
        try:
            found = path(records).search(body)
        except ValueError as error:
            raise FormatError(f"`records` does not fit the answer: {error}", code="no_records") from error
        if found is None and allow_missing:
            found = []
        if not isinstance(found, list):
            raise _not_a_list(records, found)
        self.records = list(map(_checked, found))

    def find(self, text: str) -> Any:
        try:
            return path(text).search(self._body)
        except ValueError as error:
            raise FormatError(f"`{text}` does not fit the answer: {error}", code="bad_page") from error


class _Streamed:
    """A document in a file: surveyed once, so that nothing of a broken one is taken, then read as asked for."""

    def __init__(self, file: BinaryIO, records: str, survey: _Survey, *, allow_missing: bool) -> None:
        self._file = file
        self._prefix = "item" if records == "@" else f"{records}.item"
        if survey.count is None and (survey.seen is not None or not allow_missing):
            raise _not_a_list(records, survey.seen)
        self._count = survey.count or 0
        self._found = survey.found

    @property
    def records(self) -> Records:
        return self

    def find(self, text: str) -> Any:
        return self._found.get(text)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Record]:
        self._file.seek(0)
        return map(_checked, ijson.items(self._file, self._prefix) if self._count else ())


class _Survey:
    """Walks through the events of a document: counts the records, keeps what is wanted, watches the depth."""

    def __init__(self, records: tuple[str, ...], wanted: dict[tuple[str, ...], str]) -> None:
        self._records = records
        self._wanted = wanted
        self._shallow = max([len(records), *map(len, wanted)]) + 1
        self._path: list[str] = []
        self._depth = 0
        self._inside = False
        self.count: int | None = None
        self.seen: Any = None
        self.found: dict[str, Any] = {}
        # False for a key that is empty or has a dot, which could be taken for a path, and where a list is asked for.
        self.is_plain = True

    def take(self, event: str, value: Any) -> None:
        if event == "map_key":
            if self._depth <= self._shallow:
                self._path[self._depth - 1 :] = [value]
                self.is_plain = self.is_plain and value != "" and "." not in value
        elif event in {"end_map", "end_array"}:
            self._depth -= 1
            del self._path[self._depth :]
            self._inside = self._inside and self._depth > len(self._records)
        else:
            self._value(event, value)

    def _value(self, event: str, value: Any) -> None:
        if self._inside and self._depth == len(self._records) + 1:
            assert self.count is not None
            self.count += 1
        elif not self._inside and self._depth <= self._shallow:
            self._notice(event, value)
        if event in {"start_map", "start_array"}:
            self._depth += 1
            if self._depth > payload.MAX_DEPTH:
                raise FormatError(f"nested deeper than {payload.MAX_DEPTH} levels", code="too_deep")
            if self._depth <= self._shallow:
                self._path[self._depth - 1 :] = ["[]"]

    def _notice(self, event: str, value: Any) -> None:
        place = tuple(self._path[: self._depth])
        if place == self._records:
            if self.seen is not None:
                raise FormatError("the answer holds its list of records twice", code="no_records")
            self._inside, self.count = event == "start_array", 0 if event == "start_array" else None
            self.seen = {"start_map": {}, "start_array": []}.get(event, value)
        if place in self._wanted:
            self.found[self._wanted[place]] = value
            self.is_plain = self.is_plain and not event.startswith("start_")


def _survey(file: BinaryIO, records: str, others: Sequence[str], alive: Callable[[], None]) -> _Survey:
    wanted = {tuple(each.split(".")): each for each in others if each != "@"}
    survey = _Survey(() if records == "@" else tuple(records.split(".")), wanted)
    for number, (event, value) in enumerate(_events(file)):
        if number % 10_000 == 0:
            alive()
        survey.take(event, value)
    return survey


def _events(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    file.seek(0)
    try:
        yield from ijson.basic_parse(file)
    except (ijson.JSONError, ValueError, OverflowError) as error:
        file.seek(0)
        reason = str(error).splitlines()[0]
        raise FormatError(f"not valid JSON: {reason}; it starts with {file.read(80)!r}", code="bad_json") from error


def _can_stream(file: BinaryIO, alive: Callable[[], None]) -> bool:
    """False for encodings and escapes that the streaming parser does not read exactly."""
    start = file.read(4)
    return b"\0" not in start and start.isascii() and not _has_half_pair(file, alive)


def _has_half_pair(file: BinaryIO, alive: Callable[[], None]) -> bool:
    """Whether a surrogate stands alone. What lies near the edge of a chunk is judged with what surrounds it."""
    data = b""
    while chunk := file.read(_SCAN_CHUNK):
        alive()
        before, data = len(data), data + chunk
        edge = len(data) - _OVERLAP if len(chunk) == _SCAN_CHUNK else len(data)
        first = _OVERLAP if before else 0
        if any(first <= match.start() < edge for match in _HALF_PAIR.finditer(data)):
            return True
        data = data[-2 * _OVERLAP :]
    return False


def _not_a_list(records: str, found: Any) -> FormatError:
    kind = "nothing" if found is None else f"a {type(found).__name__}"
    return FormatError(f"expected a list of records at `{records}`, found {kind}", code="no_records")


def _checked(record: Any) -> Record:
    if isinstance(record, dict):
        return record
    return BadRecord(repr(record)[:_SHOWN].encode(), "", "not_an_object", "the record is not a JSON object")
