"""What each pool process of a worker is at, in memory that all of them share: written there, read by the watchdog.

A process says what it holds, and by when it will look again whether it still does. One that is late computes, or hangs.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from billiard.process import current_process

if TYPE_CHECKING:
    from collections.abc import Iterator

# The pool has at most so many processes.
MAX_PROCESSES = 256
RUN, BATCH = 1, 2
# Process id, kind, the key of the row, its token, when it was taken and by when the process looks again.
_SLOT = struct.Struct("<qq16sqdd")
_FREE = b"\0" * _SLOT.size


@dataclass(frozen=True)
class Held:
    """A claim that a process works on. Times are of the monotonic clock, which all processes of a machine share."""

    place: int
    process_id: int
    kind: int
    key: UUID
    token: int
    since: float
    looks_by: float

    @property
    def claim(self) -> tuple[int, UUID, int]:
        """What tells it from any other claim of any other process."""
        return self.process_id, self.key, self.token

    @property
    def batch_id(self) -> int:
        """The key of a batch."""
        return self.key.int


class Board:
    """The claims of all processes. It has to be made before they are forked."""

    def __init__(self) -> None:
        # The second half holds what processes held that have died, and whose place another one has by now.
        self._memory = mmap.mmap(-1, 2 * MAX_PROCESSES * _SLOT.size)

    def hold(self, kind: int, key: UUID, token: int, seconds: float) -> None:
        """This process holds a claim, and looks at it again within so many seconds."""
        now = time.monotonic()
        self._write(_SLOT.pack(os.getpid(), kind, key.bytes, token, now, now + seconds))

    def look(self, seconds: float) -> None:
        """This process has looked, and does so again within so many seconds."""
        place = _place()
        struct.pack_into("<d", self._memory, (place + 1) * _SLOT.size - 8, time.monotonic() + seconds)

    def free(self) -> None:
        """This process holds nothing any more."""
        self._write(_FREE)

    def take_place(self) -> None:
        """This process begins, in a place where another one may have died."""
        left = self._read(_place())
        if left != _FREE:
            self._write(left, _place() + MAX_PROCESSES)
            self._write(_FREE)

    def clear(self, held: Held) -> None:
        """Forget what a process held that is gone, unless another one has its place by now."""
        if self._read(held.place)[:8] == struct.pack("<q", held.process_id):
            self._write(_FREE, held.place)

    def held(self) -> Iterator[Held]:
        """All claims. One that is being written at this moment is left out."""
        for place in range(2 * MAX_PROCESSES):
            first, again = self._read(place), self._read(place)
            process_id, kind, key, token, since, looks_by = _SLOT.unpack(first)
            if process_id and first[:-8] == again[:-8]:
                yield Held(place, process_id, kind, UUID(bytes=key), token, since, looks_by)

    def _read(self, place: int) -> bytes:
        return self._memory[place * _SLOT.size : (place + 1) * _SLOT.size]

    def _write(self, slot: bytes, place: int | None = None) -> None:
        place = _place() if place is None else place
        self._memory[place * _SLOT.size : (place + 1) * _SLOT.size] = slot


def _place() -> int:
    """The number of this process in its pool; the first place where there is no pool."""
    return int(getattr(current_process(), "index", 0) or 0) % MAX_PROCESSES


BOARD = Board()
