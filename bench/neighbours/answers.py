"""What the servers answer: well, never, drop by drop, or with what costs more to read than to send."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]

_MEGABYTE = 1_000_000
# An answer that never ends ends with its client.
_FOR_EVER = 1e9
_JSON, _CSV, _ATOM = "application/json", "text/csv", "application/atom+xml"


async def send(writer: asyncio.StreamWriter, kind: str, pieces: Iterable[bytes], **headers: str) -> None:
    """The body is made while it is sent; the connection ends with it."""
    head = {"Content-Type": kind, **headers, "Connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    writer.write(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode())
    for piece in pieces:
        writer.write(piece)
        await writer.drain()


def pieces(kind: str, make: Callable[[], Iterable[bytes]], **headers: str) -> Answer:
    """The same at each request."""
    return lambda writer: send(writer, kind, make(), **headers)


def healthy(records: int = 20) -> Answer:
    """A few records, of which one changes with every third answer."""
    count = itertools.count()

    async def answer(writer: asyncio.StreamWriter) -> None:
        rows: list[dict[str, Any]] = [{"id": number, "name": f"thing {number}"} for number in range(records)]
        rows[0]["amount"] = next(count) // 3
        await send(writer, _JSON, [json.dumps(rows).encode()])

    return answer


async def silence(_: asyncio.StreamWriter) -> None:
    """Taken, and never answered."""
    await asyncio.sleep(_FOR_EVER)


async def silence_after_headers(writer: asyncio.StreamWriter) -> None:
    await send(writer, _JSON, [], **{"Content-Length": "1000"})
    await writer.drain()
    await asyncio.sleep(_FOR_EVER)


def dripping(kind: str, start: bytes, more: bytes, size: int) -> Answer:
    """So many bytes a second, without end."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        await send(writer, kind, [])
        text = itertools.chain(start, itertools.cycle(more))
        while True:
            writer.write(bytes(itertools.islice(text, size)))
            await writer.drain()
            await asyncio.sleep(1)

    return answer


dripping_json = dripping(_JSON, b"[", b'{"id": 1, "name": "a drop"}, ', 1)
dripping_csv = dripping(_CSV, b"id,name\n", b"1,a drop\n", 4)


def _long_integer() -> Iterable[bytes]:
    """An integer of 5,000 digits in an answer of 1.5 MB, which is read in pieces."""
    yield b'[{"id": 1, "amount": ' + b"1" * 5000 + b"}"
    yield b', {"id": 2, "name": "something of no interest"}' * (3 * _MEGABYTE // 2 // 47)
    yield b"]"


def _long_string() -> Iterable[bytes]:
    """One string of 270 MB."""
    yield b'[{"id": 1, "name": "'
    yield from itertools.repeat(b"x" * _MEGABYTE, 270)
    yield b'"}]'


def _equal_columns() -> Iterable[bytes]:
    yield b"id" + b",a" * 10_000 + b"\n"
    yield (b"1" + b",2" * 10_000 + b"\n") * 10


def _bare_returns() -> Iterable[bytes]:
    """Lines that end as on old Macs: 1.5 MB."""
    yield b"id,name\r"
    yield b"".join(b"%d,thing\r" % number for number in range(120_000))


def _long_names() -> Iterable[bytes]:
    """Eight column names of 1 MB, and rows of nine bytes that each become a record of 8 MB."""
    yield b",".join(b"%d" % number + b"n" * _MEGABYTE for number in range(8)) + b"\n"
    yield b"1,,,,,,,\n" * 777_000


def _long_base() -> Iterable[bytes]:
    """A feed of 128 KB in which each of many links is relative to an address of 64 KB."""
    base = b"http://127.0.0.1/" + b"b" * 64_000 + b"/"
    yield b'<feed xmlns="http://www.w3.org/2005/Atom"><title>a</title><entry xml:base="' + base + b'">'
    yield b"<id>1</id><title>a</title><updated>2026-01-01T00:00:00Z</updated>"
    yield b'<content type="html">' + b"&lt;a href=x&gt;" * 4000 + b"</content></entry></feed>"


long_integer = pieces(_JSON, _long_integer)
long_string = pieces(_JSON, _long_string)
link_header = pieces(_JSON, lambda: [b'[{"id": 1}]'], Link="<" * 65_000)
equal_columns = pieces(_CSV, _equal_columns)
bare_returns = pieces(_CSV, _bare_returns)
long_names = pieces(_CSV, _long_names)
long_base = pieces(_ATOM, _long_base)
