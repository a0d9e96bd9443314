"""Response bodies: decoded by ourselves, within limits, and never taken for whole when they were cut short.

The HTTP libraries hand out a truncated gzip body without an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from urllib3.exceptions import HTTPError

from etl.errors import ETLError, FetchError, RefusedError
from etl.files.space import Copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

CHUNK = 64 * 1024
# A body may swell to this many times its size on the wire; small ones may do as they like.
MAX_RATIO = 200
RATIO_FROM = 10 * 1024 * 1024
# Of an answer that is none: bytes that are looked at, and characters that are shown.
MOST_SAID = 64 * 1024
_SHOWN = 200
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}


@dataclass(frozen=True)
class Received:
    """A body that came in whole: its decoded size and the hash of it, as hexadecimal text."""

    size: int
    digest: str


@dataclass(frozen=True)
class Sink:
    """Where a decoded body goes: into a file, after the first `start` bytes, of which `digest` is the hash.

    `limit` is how many bytes there may be, on the wire and decoded. What else the file holds is cut off.
    """

    file: BinaryIO
    limit: int
    start: int = 0
    digest: hashlib.blake2b = field(default_factory=lambda: hashlib.blake2b(digest_size=16))


def receive(response: requests.Response, sink: Sink, take: Callable[[int], None]) -> Received:
    """Decode the body of an answer into a file; `take` is called at each arrival, with its bytes.

    Raises:
        RefusedError: larger than the limit, or a bomb.
        FetchError: cut short, or damaged.
        ScratchError: there is no room for it.
    """
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > sink.limit:
        raise _too_large(sink.limit)
    counter, copy = _Counter(sink.limit, sink.start), Copy(sink.file)
    sink.file.seek(sink.start)
    sink.file.truncate()
    for part in _decoded(response, counter, take):
        counter.decoded(len(part))
        sink.digest.update(part)
        copy.write(part)
    return Received(counter.size, sink.digest.hexdigest())


def first_words(response: requests.Response) -> str:
    """What an answer says of why it is none, if that is text or JSON that has come in; shortened, in one line."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind.endswith("json") or kind == "text/plain"):
        return ""
    with contextlib.suppress(ETLError, OSError, HTTPError):
        body = next(_decoded(response, _Counter(MOST_SAID, 0), lambda _: None), b"")
        return " ".join(body.decode("utf-8", "replace").split())[:_SHOWN]
    return ""


class _Counter:
    def __init__(self, limit: int, start: int) -> None:
        self._limit = limit
        self._wire = self.size = start

    def wire(self, count: int) -> None:
        self._wire += count
        if self._wire > self._limit:
            raise _too_large(self._limit)

    def decoded(self, count: int) -> None:
        self.size += count
        if self.size > self._limit:
            raise _too_large(self._limit)
        if self.size > RATIO_FROM and self.size > MAX_RATIO * self._wire:
            raise RefusedError(f"the body swells to more than {MAX_RATIO} times its size", code="bomb")


def _too_large(limit: int) -> RefusedError:
    return RefusedError(f"the body is larger than {limit} bytes", code="too_large")


def _decoded(response: requests.Response, counter: _Counter, take: Callable[[int], None]) -> Iterator[bytes]:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    chunks = _arrivals(response, counter, take)
    if encoding in {"", "identity", "none"}:
        yield from chunks
    elif encoding in _WINDOW:
        yield from _inflate(chunks, _WINDOW[encoding])
    else:
        raise RefusedError(f"the body is encoded as {encoding[:40]!r}, which was not asked for", code="bad_encoding")


def _arrivals(response: requests.Response, counter: _Counter, take: Callable[[int], None]) -> Iterator[bytes]:
    """The body as it comes in: `read1` hands back each arrival, so nothing waits for a buffer to fill."""
    while chunk := response.raw.read1(CHUNK, decode_content=False):
        counter.wire(len(chunk))
        take(len(chunk))
        yield chunk
    if getattr(response.raw, "length_remaining", None):
        raise FetchError("the body was cut short", code="truncated")


def _inflate(chunks: Iterator[bytes], window: int) -> Iterator[bytes]:
    """Decompress in small steps; every member has to be whole, and padding with zeros may follow."""
    inflater = zlib.decompressobj(window)
    started = False
    try:
        for chunk in chunks:
            data = chunk
            while data:
                if inflater.eof:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    inflater = zlib.decompressobj(window)
                if not started and window == _WINDOW["deflate"] and data[0] & 0x0F != 8:
                    inflater = zlib.decompressobj(-window)
                started = True
                yield inflater.decompress(data, CHUNK)
                while inflater.unconsumed_tail:
                    yield inflater.decompress(inflater.unconsumed_tail, CHUNK)
                data = inflater.unused_data
    except zlib.error as error:
        raise FetchError("the body cannot be decompressed", code="bad_encoding") from error
    if started and not inflater.eof:
        yield inflater.flush()
    if started and not inflater.eof:
        raise FetchError("the compressed body was cut short", code="truncated")
