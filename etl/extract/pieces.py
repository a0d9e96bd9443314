"""A JSON text in a file, cut into pieces that can be decoded one by one: what it takes is memory for one of them.

The list of records is cut between records; what is left without them, the frame, is decoded as a whole. Cutting only
counts brackets and strings: whether it is JSON the decoder says, of each piece and of the frame.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from etl import payload
from etl.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A piece holds at least this many bytes, if there are as many; a record larger than `_LARGE` is a piece of its own.
PIECE = 64 * 1024
_LARGE = 1024 * 1024
_LIST = ord("[")

# Nothing is tried twice: whatever the text is, the time that these take grows with its length alone.
# Before Python 3.11.5 a possessive group that gives up in the middle of what it repeats goes on from there, not from
# where that began. So a group is possessive only where it can do so at the end of the text alone, and no match follows;
# the others never need to give anything back.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRING_TO_THE_END = rb'[^"\\]*+(?:\\.[^"\\]*+)*(\\?)\Z'
_PLAIN = rb'[^"\[\]{}]*+'
_LEAF = rb"[\[{]" + _PLAIN + rb"(?:" + _STRING + _PLAIN + rb")*+[\]}]"
# Text up to a bracket (a container without others counts as one), to a string that goes on, or to the end.
_STEP = re.compile(
    rb"(?:" + _PLAIN + _STRING + rb")*(" + _PLAIN + rb")(?:"
    rb"(" + _LEAF + rb')|([\[{])|([\]}])|"' + _STRING_TO_THE_END + rb"|\Z)",
    re.DOTALL,
)
# Which group came last.
_TEXT, _LEAF_SEEN, _OPENED, _CLOSED, _STRING_OPEN = range(1, 6)
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*(?:(")|(\\?)\Z)', re.DOTALL)
# A key, another string, a list without containers, a bracket, a string that is cut off.
_OUTER = re.compile(
    rb"(" + _STRING + rb")([ \t\r\n]*+:)?|(\[" + _PLAIN + rb"(?:" + _STRING + _PLAIN + rb")*+\])|([\[{])|([\]}])|\"",
    re.DOTALL,
)


@dataclass(frozen=True)
class Outline:
    """Where the records are: pieces from and to a byte, and the frame around them with an empty list."""

    pieces: list[tuple[int, int]]
    frame: bytes


def outline(file: BinaryIO, place: tuple[str, ...], limit: int, alive: Callable[[], None]) -> Outline | None:
    """Cut a document; None when no list at the place begins in the first `limit` bytes.

    Raises:
        FormatError: it is cut off or nested too deep, or its frame is larger than the limit.
    """
    head = _head(file, place, limit, alive)
    if head is None:
        return None
    cutter = _Cutter(file, len(head), len(place) + 1)
    pieces = list(cutter.pieces(alive))
    file.seek(cutter.end)
    tail = file.read(limit + 1)
    if len(head) + len(tail) > limit:
        raise FormatError(f"what surrounds the records is larger than {limit} bytes", code="too_large")
    frame = head + tail
    if sum(1 for _ in _lists_at(frame, place)) > 1:
        raise FormatError("the answer holds its list of records twice", code="no_records")
    return Outline(pieces, frame)


def _head(file: BinaryIO, place: tuple[str, ...], limit: int, alive: Callable[[], None]) -> bytes | None:
    """The document up to the bracket that opens the list. Each time twice as much is looked at."""
    head = b""
    while len(head) < limit:
        file.seek(len(head))
        chunk = file.read(min(max(PIECE, len(head)), limit - len(head)))
        alive()
        if not chunk:
            return None
        head += chunk
        start = next(_lists_at(head, place), None)
        if start is not None:
            return head[: start + 1]
    return None


def _lists_at(text: bytes, place: tuple[str, ...]) -> Iterator[int]:
    """Where lists at this place begin in an object, by keys; the text may be cut off.

    Each open container is known by how many keys of the place led to it, -1 if others did.
    """
    opened: list[int] = []
    at = 0
    for step in _OUTER.finditer(text):
        string, key, leaf, opens, closes = step.groups()
        if key:
            at = _led_to(opened[-1] if opened else -1, string, place)
        elif leaf or opens:
            if text[step.start()] == _LIST and at == len(place):
                yield step.start()
            if opens:
                opened.append(at if opens == b"{" else -1)
                at = -1
        elif closes and opened:
            opened.pop()
        elif not string:
            return


def _led_to(keys: int, string: bytes, place: tuple[str, ...]) -> int:
    if not 0 <= keys < len(place):
        return -1
    found = payload.decode(string) if b"\\" in string else string[1:-1].decode("utf-8", "replace")
    return keys + 1 if found == place[keys] else -1


class _Cutter:
    """Reads a list up to its end, and says where it can be cut: after a container, or before a comma."""

    def __init__(self, file: BinaryIO, start: int, depth: int) -> None:
        self._file = file
        self._offset = start
        self._depth = self._outer = depth
        self._in_string = False
        # Where the piece begins, and the last place in it where it could end.
        self._start = self._last = start
        self.end = -1

    def pieces(self, alive: Callable[[], None]) -> Iterator[tuple[int, int]]:
        while self.end < 0:
            alive()
            begin = self._offset
            self._file.seek(begin)
            chunk = self._file.read(PIECE)
            self._offset += len(chunk)
            yield from self._cuts(chunk, begin, self._leave_string(chunk) if self._in_string else 0)
            if self._offset == begin:
                raise FormatError("not valid JSON: it ends within the list of records", code="bad_json")
        yield from self._may_end(self.end)
        if self.end > self._start:
            yield self._start, self.end

    def _leave_string(self, chunk: bytes) -> int:
        """Where a string that began before the chunk ends in it."""
        rest = _REST_OF_STRING.match(chunk)
        assert rest is not None
        self._in_string = rest[1] is None
        self._offset -= len(rest[2] or b"")
        return rest.end()

    def _cuts(self, chunk: bytes, begin: int, done: int) -> Iterator[tuple[int, int]]:
        for step in _STEP.finditer(chunk, done):
            kind = step.lastindex
            if kind == _LEAF_SEEN:
                self._check_depth(1)
            elif kind == _OPENED:
                self._depth += 1
                self._check_depth(0)
                continue
            elif kind == _CLOSED:
                if self._depth == self._outer:
                    self.end = begin + step.end() - 1
                    return
                self._depth -= 1
            elif kind == _STRING_OPEN:
                # An escape over the edge of a chunk is read again with what it escapes.
                self._in_string = True
                self._offset -= len(step[_STRING_OPEN])
            is_between = kind in {_TEXT, _STRING_OPEN}
            place = chunk.rfind(b",", step.start(_TEXT), step.end(_TEXT)) if is_between else step.end()
            if self._depth == self._outer and place >= 0:
                yield from self._may_end(begin + place)

    def _check_depth(self, more: int) -> None:
        if self._depth + more > payload.MAX_DEPTH:
            raise FormatError(f"nested deeper than {payload.MAX_DEPTH} levels", code="too_deep")

    def _may_end(self, place: int) -> Iterator[tuple[int, int]]:
        """A piece can end here; it does so when it is large enough, or when what came before is to stand alone."""
        if place - self._last > _LARGE and self._last > self._start:
            yield self._start, self._last
            self._start = self._last
        if place - self._start >= PIECE:
            yield self._start, place
            self._start = place
        self._last = max(self._last, place)
