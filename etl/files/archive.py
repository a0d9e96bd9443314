"""Packed and wide files made plain: gzip, bzip2 and zip by what they are, not by name; UTF-16 and UTF-32 as UTF-8."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import os
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from etl.errors import FormatError
from etl.files.encoding import wide_encoding
from etl.files.space import Copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_UNPACKED = 16 * 1024 * 1024 * 1024
# Text packs well, but not this well; small files may do as they like.
MAX_RATIO = 1000
RATIO_FROM = 64 * 1024 * 1024
# A zip of one file has a short directory; it is read at once, and each entry takes ten times its bytes: bytes.
MAX_DIRECTORY = 2 * 1024 * 1024
_CHUNK = 1024 * 1024
# What tells what a file is: bytes.
_START = 4096
# LZMA reserves as much memory as the file says.
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2})
_GZIP, _BZIP2, _ZIP = b"\x1f\x8b", b"BZh", b"PK\x03\x04"
# The longer marks first: that of UTF-32 begins like that of UTF-16.
_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def is_packed(file: BinaryIO) -> bool:
    """True for a compressed file."""
    return _start(file).startswith((_GZIP, _BZIP2, _ZIP))


def is_plain(file: BinaryIO, encoding: str | None) -> bool:
    """True when lines can be read from the file as it is, at any offset."""
    return not is_packed(file) and _wide_encoding(_start(file), encoding) is None


def make_plain(file: BinaryIO, plain: BinaryIO, encoding: str | None, alive: Callable[[], None]) -> None:
    """Unpack and transcode a file.

    Raises:
        FormatError: it is damaged, holds several files, or swells beyond measure.
        ScratchError: there is no room for it.
    """
    copy = Copy(plain)
    with _unpacked(file, alive) as packed:
        chunks = _limited(packed, os.fstat(file.fileno()).st_size, alive)
        first = next(chunks, b"")
        wide = _wide_encoding(first, encoding)
        if wide is None:
            copy.write(first)
            copy.writelines(chunks)
        else:
            _transcode(first, chunks, copy, wide)


def is_ascii_compatible(encoding: str) -> bool:
    """True when a line end is one byte, and no other character holds that byte."""
    return "a\n".encode(encoding) == b"a\n"


def _start(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(_START)


def _wide_encoding(start: bytes, encoding: str | None) -> str | None:
    """The encoding that a file has to be transcoded from, None when it can stay as it is."""
    if encoding is None or codecs.lookup(encoding).name == "utf-8":
        return next((name for mark, name in _WIDE if start.startswith(mark)), None) or wide_encoding(start[:_START])
    return None if is_ascii_compatible(encoding) else encoding


def _transcode(first: bytes, chunks: Iterator[bytes], plain: Copy, encoding: str) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        plain.write(decoder.decode(first).encode())
        plain.writelines(decoder.decode(chunk).encode() for chunk in chunks)
        plain.write(decoder.decode(b"", final=True).encode())
    except UnicodeError as error:
        raise FormatError(f"the file is not valid {encoding}", code="bad_encoding") from error


class _Watched(io.BufferedReader):
    """A packed file that gives a sign of life at each read, whether anything comes out of it or not."""

    def __init__(self, file: BinaryIO, alive: Callable[[], None]) -> None:
        # Through the descriptor: the file's own buffer would hide where it stands.
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        super().__init__(io.FileIO(os.dup(file.fileno())))
        self._alive = alive

    def read(self, size: int | None = -1, /) -> bytes:
        self._alive()
        if size is not None and size > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"its directory is larger than {MAX_DIRECTORY} bytes")
        return super().read(size)


@contextlib.contextmanager
def _unpacked(packed: BinaryIO, alive: Callable[[], None]) -> Iterator[IO[bytes]]:
    start = _start(packed)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_Watched(packed, alive))
        try:
            if start.startswith(_GZIP):
                yield cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=file)))
            elif start.startswith(_BZIP2):
                yield cast("IO[bytes]", stack.enter_context(bz2.BZ2File(file)))
            elif start.startswith(_ZIP):
                yield stack.enter_context(_only_member(stack.enter_context(zipfile.ZipFile(file))))
            else:
                yield file
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
            raise FormatError(f"the compressed file is damaged: {error}", code="bad_archive") from error


def _only_member(archive: zipfile.ZipFile) -> IO[bytes]:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise FormatError(f"the zip holds {len(members)} files; exactly one is expected", code="bad_archive")
    if members[0].compress_type not in _METHODS:
        raise FormatError("the zip is packed by a method that may take any amount of memory", code="bad_archive")
    return archive.open(members[0])


def _limited(packed: IO[bytes], packed_size: int, alive: Callable[[], None]) -> Iterator[bytes]:
    """A file in chunks; refuses to unpack without end."""
    size = 0
    while chunk := packed.read(_CHUNK):
        size += len(chunk)
        if size > MAX_UNPACKED or (size > RATIO_FROM and size > MAX_RATIO * packed_size):
            raise FormatError(f"unpacks to more than {size} bytes", code="too_large")
        alive()
        yield chunk
