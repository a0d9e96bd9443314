"""Writing local copies, as long as the disk has room to spare: others need it as well, the database first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from etl.errors import ScratchError

if TYPE_CHECKING:
    from collections.abc import Iterable

# What stays free, whichever is more: bytes, and a share of the disk.
RESERVE = 1024 * 1024 * 1024
RESERVE_SHARE = 0.05
# How often to look: bytes.
EVERY = 16 * 1024 * 1024


class Copy:
    """A file being written; one in memory will do as well."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unseen = 0

    def write(self, data: bytes) -> None:
        """Write some bytes.

        Raises:
            ScratchError: they cannot be written, or would take the disk's last room.
        """
        try:
            self._file.write(data)
        except OSError as error:
            raise ScratchError(f"a local copy cannot be written: {error.strerror}") from error
        self._unseen += len(data)
        if self._unseen >= EVERY:
            self._unseen = 0
            self._look()

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Write them one after the other."""
        for chunk in chunks:
            self.write(chunk)

    def _look(self) -> None:
        try:
            disk = os.fstatvfs(self._file.fileno())
        except OSError:
            # It is in memory.
            return
        free, reserve = disk.f_bavail * disk.f_frsize, max(RESERVE, int(RESERVE_SHARE * disk.f_blocks * disk.f_frsize))
        if free < reserve:
            raise ScratchError(
                f"no room for a local copy: {free} bytes are free, {reserve} are to stay so", code="no_space"
            )
