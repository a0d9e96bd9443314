"""Which files a source reads: one, all of a folder, or those that fit a pattern; regular ones in allowed folders."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from etl.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# What one source may read; their marks travel with every batch.
MAX_FILES = 1000
_CHUNK = 1024 * 1024
_PATTERN = frozenset("*?[")


def find_files(declared: str, base: Path, roots: Sequence[Path]) -> dict[str, Path]:
    """The files by name, in the order of their names. Hidden files of a folder are left out; it may hold none.

    Raises:
        ConfigError: outside of the allowed folders.
        FormatError: the file or the folder is not there, there are too many, or it is no regular file.
    """
    if _PATTERN & set(declared):
        found = _matching(declared, base)
    elif (base / declared).is_dir():
        found = [path for path in (base / declared).iterdir() if not path.name.startswith(".") and path.is_file()]
    else:
        return {declared: _checked(base / declared, declared, roots)}
    if not found and not _folder(declared, base).is_dir():
        raise FormatError(f"{declared}: there is no such folder", code="file_not_found")
    if len(found) > MAX_FILES:
        raise FormatError(f"{declared}: {len(found)} files are more than {MAX_FILES}", code="too_many_files")
    folder = _folder(declared, base)
    named = {_shown(path.relative_to(folder)): path for path in found}
    return {name: _checked(named[name], name, roots) for name in sorted(named)}


def open_file(path: Path, roots: Sequence[Path]) -> BinaryIO:
    """Open a file that was found. What has become a link since, or lies in what has, is not followed.

    Raises:
        FormatError: it is not there any more, or not as it was found.
    """
    root = next(root.resolve() for root in roots if path.is_relative_to(root.resolve()))
    *folders, name = path.relative_to(root).parts
    with contextlib.ExitStack() as stack:
        try:
            place = _descend(stack, str(root), None, os.O_DIRECTORY)
            for folder in folders:
                place = _descend(stack, folder, place, os.O_DIRECTORY | os.O_NOFOLLOW)
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
        except OSError as error:
            raise FormatError(f"it cannot be opened: {error.strerror}", code="file_not_found") from error
    file = os.fdopen(opened, "rb")
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        file.close()
        raise FormatError("it is not a regular file", code="not_a_file")
    return file


def _descend(stack: contextlib.ExitStack, folder: str, within: int | None, flags: int) -> int:
    place = os.open(folder, os.O_RDONLY | flags, dir_fd=within)
    stack.callback(os.close, place)
    return place


def check_place(declared: str, base: Path, roots: Sequence[Path]) -> None:
    """Refuse what lies outside of the allowed folders, whether it is there yet or not.

    Raises:
        ConfigError: it does.
    """
    _within(_folder(declared, base).resolve(), declared, roots)


def digest_of(file: BinaryIO, size: int, alive: Callable[[], None]) -> str:
    """The hash of the first `size` bytes of a file, as hexadecimal text."""
    return hash_of(file, size, alive).hexdigest()


def hash_of(file: BinaryIO, size: int, alive: Callable[[], None]) -> hashlib.blake2b:
    """The same, for more bytes to be added; `alive` is called on the way."""
    digest = hashlib.blake2b(digest_size=16)
    file.seek(0)
    left = size
    while left and (chunk := file.read(min(_CHUNK, left))):
        digest.update(chunk)
        left -= len(chunk)
        alive()
    return digest


def _shown(path: Path) -> str:
    """A name as text; bytes in it that are none are written as such."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _folder(declared: str, base: Path) -> Path:
    """The part of a path that holds no pattern."""
    folder = base
    for part in declared.split("/"):
        if _PATTERN & set(part):
            break
        folder = folder / (part or "/")
    return folder


def _matching(declared: str, base: Path) -> list[Path]:
    folder = _folder(declared, base)
    pattern = str(base / declared).removeprefix(str(folder)).lstrip("/")
    try:
        return [path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith(".")]
    except (ValueError, OSError) as error:
        raise ConfigError(f"`file`: {declared}: {error}", code="bad_pattern") from error


def _checked(path: Path, name: str, roots: Sequence[Path]) -> Path:
    """The file itself, with links followed."""
    resolved = path.resolve()
    _within(resolved, name, roots)
    try:
        mode = resolved.stat().st_mode
    except OSError as error:
        raise FormatError(f"{name}: {error.strerror}", code="file_not_found") from error
    if not stat.S_ISREG(mode):
        raise FormatError(f"{name} is not a regular file", code="not_a_file")
    return resolved


def _within(resolved: Path, name: str, roots: Sequence[Path]) -> None:
    if not any(resolved.is_relative_to(root.resolve()) for root in roots):
        raise ConfigError(f"`file`: {name} is not in a folder of CSV_ROOTS", code="file_not_allowed")
