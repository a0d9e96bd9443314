"""How exports are packed: quickly rather than small."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_GZIP = 31


def _gzip() -> Any:
    return zlib.compressobj(1, zlib.DEFLATED, _GZIP)


def _zstd() -> Any:
    return zstandard.ZstdCompressor(level=1).compressobj()


# By the names that HTTP has for them.
PACKERS = {"zstd": _zstd, "gzip": _gzip}
_ENDINGS = {".zst": "zstd", ".gz": "gzip"}


def packed(text: Iterator[bytes], packing: str) -> Iterator[bytes]:
    """A text, packed while it comes."""
    packer = PACKERS[packing]()
    for part in text:
        if done := packer.compress(part):
            yield done
    yield packer.flush()


def packing_of(path: Path) -> str | None:
    """How a file of this name is packed; None for one that is not."""
    return _ENDINGS.get(path.suffix)


def packed_alone(text: bytes, packing: str | None) -> bytes:
    """A piece of a text, packed so that pieces can stand one after the other in a file."""
    if packing is None:
        return text
    packer = PACKERS[packing]()
    return cast("bytes", packer.compress(text) + packer.flush())


def unpacked(file: BinaryIO, packing: str | None) -> BinaryIO:
    """What a packed file holds, to be read."""
    if packing == "gzip":
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if packing == "zstd":
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return cast("BinaryIO", reader)
    return file
