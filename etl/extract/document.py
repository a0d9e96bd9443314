"""A JSON answer: small ones are decoded whole, large ones read piece by piece from a file, with flat memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from etl import payload
from etl.declare.paths import is_true, path
from etl.errors import FetchError, FormatError, RefusedError
from etl.extract.json_lines import JsonLines
from etl.extract.pieces import outline
from etl.extract.shapes import is_list_of_objects, shaped
from etl.payload import digest
from etl.records import BadRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from etl.declare.source import ApiSource
    from etl.extract.pieces import Outline
    from etl.records import Record, Records

# Above this size a document is read in pieces, if its paths are plain: bytes.
STREAM_OVER = 1024 * 1024
# What cannot be must fit into memory, and so must each record: bytes as they are sent, and once they are decoded.
MAX_WHOLE = 16 * 1024 * 1024
MAX_PIECE = 16 * 1024 * 1024
MAX_WEIGHT = 192 * 1024 * 1024

_PLAIN = re.compile(r"@|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_SHOWN = 2000
# Characters of an answer that is none.
_REFUSAL = 300


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
        FetchError: it says of itself that it is none.
    """
    if source.format == "ndjson":
        return JsonLines(file, alive)
    streams = size > STREAM_OVER and is_list_of_objects(source)
    found = _outline(file, source.records, others, alive) if streams else None
    if found is not None:
        document = _Streamed(file, found, alive)
        _check_success(source, document.find)
        _check_list(source.records, document.find(source.records))
        return document
    if size > MAX_WHOLE:
        raise _not_whole(f"is larger than {MAX_WHOLE} bytes")
    file.seek(0)
    body = file.read()
    if payload.weight(body) > MAX_WEIGHT:
        raise _not_whole(f"would take more than {MAX_WEIGHT} bytes of memory")
    return _Whole(payload.decode(body), source)


def _outline(file: BinaryIO, records: str, others: Sequence[str], alive: Callable[[], None]) -> Outline | None:
    """The pieces of a large document; None when it has to be read whole."""
    file.seek(0)
    is_wide = b"\0" in file.read(4)
    if is_wide or not all(_PLAIN.fullmatch(each) for each in (records, *others)):
        return None
    # Without its records the document must still say what is asked for.
    if any(other == "@" or f"{records}.".startswith(f"{other}.") for other in others):
        return None
    return outline(file, () if records == "@" else tuple(records.split(".")), MAX_WHOLE, alive)


def _not_whole(reason: str) -> RefusedError:
    return RefusedError(f"the answer {reason} and cannot be read in pieces with these paths", code="too_large")


class _Whole:
    """A document in memory."""

    def __init__(self, body: Any, source: ApiSource) -> None:
        self._body = body
        _check_success(source, self.find)
        try:
            found = path(source.records).search(body)
        except ValueError as error:
            raise FormatError(f"`records` does not fit the answer: {error}", code="no_records") from error
        found = shaped(found, source)
        if found is None and source.allow_missing:
            found = []
        _check_list(source.records, found)
        self.records = list(map(_checked, found))

    def find(self, text: str) -> Any:
        try:
            return path(text).search(self._body)
        except ValueError as error:
            raise FormatError(f"`{text}` does not fit the answer: {error}", code="bad_page") from error


class _Streamed:
    """A document in a file: read through once, so that nothing of a broken one is taken, then read as asked for."""

    def __init__(self, file: BinaryIO, found: Outline, alive: Callable[[], None]) -> None:
        self._file = file
        self._pieces = found.pieces
        if payload.weight(found.frame) > MAX_WEIGHT:
            raise _not_whole(f"would take more than {MAX_WEIGHT} bytes of memory beside its records")
        self._frame = payload.decode(found.frame)
        self._alive = alive
        self._count = sum(1 for _ in self)

    @property
    def records(self) -> Records:
        return self

    def find(self, text: str) -> Any:
        return path(text).search(self._frame)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Record]:
        for number in range(len(self._pieces)):
            self._alive()
            yield from map(_checked, self._decoded(number))

    def _decoded(self, number: int) -> list[Any]:
        """The records of a piece. All but the first begin with the comma after those before."""
        start, end = self._pieces[number]
        self._file.seek(start)
        text = self._file.read(min(end - start, MAX_PIECE + 1))
        if len(text) > MAX_PIECE or payload.weight(text) > MAX_WEIGHT:
            if not text.lstrip(b", \t\r\n").startswith(b"{"):
                # Records that are no objects are not told apart: another may be hidden in it.
                raise FormatError(f"in the bytes {start} to {end}: a record is too large", code="too_large")
            return [_too_large(text, end - start)]
        try:
            records: list[Any] = payload.decode(b"[[]%b]" % text if number else b"[%b]" % text)
        except FormatError as error:
            raise FormatError(f"in the bytes {start} to {end}: {error.message}", code=error.code) from error
        if not records and len(self._pieces) > 1:
            raise FormatError("not valid JSON: the list of records begins with a comma", code="bad_json")
        return records[1:] if number else records


def _check_success(source: ApiSource, find: Callable[[str], Any]) -> None:
    """An answer that says of itself that it is none may come right later, as one with a status of 500 may."""
    if source.success is not None and not is_true(find(source.success)):
        message = f"answered, but `success` ({source.success}) does not hold: {str(find('@'))[:_REFUSAL]}"
        raise FetchError(message, code="answer_refused")


def _check_list(records: str, found: Any) -> None:
    if not isinstance(found, list):
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise FormatError(f"expected a list of records at `{records}`, found {kind}", code="no_records")


def _checked(record: Any) -> Record:
    if isinstance(record, (dict, BadRecord)):
        return record
    raw = repr(record).encode("utf-8", "replace")
    return BadRecord(raw[:_SHOWN], "", "not_an_object", "the record is not a JSON object", digest(raw))


def _too_large(text: bytes, size: int) -> BadRecord:
    message = f"the record has {size} bytes, which is more than can be read at once"
    return BadRecord(text[:_SHOWN].lstrip(b", \t\r\n"), "", "too_large", message, digest(text))
