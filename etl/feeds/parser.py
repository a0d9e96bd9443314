"""The way to the parsing process: started on first use, used again, replaced when a feed was too much for it."""

from __future__ import annotations

import atexit
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from etl.errors import FormatError
from etl.feeds.child import LENGTH, MAX_MESSAGE
from etl.feeds.parse import Feed, FeedJob

if TYPE_CHECKING:
    from collections.abc import Callable

# A process is replaced after this many feeds, against leaks in C libraries.
MAX_FEEDS = 500
_GRACE = 5.0
_TICK = 1.0
_CHUNK = 1024 * 1024
_PROJECT = Path(__file__).resolve().parent.parent.parent


class FeedParser:
    """One parsing process. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._feeds = 0
        self._decode = msgspec.msgpack.Decoder(Feed).decode

    def parse(self, job: FeedJob, alive: Callable[[], None]) -> Feed:
        """Parse a feed; `alive` is called every second.

        Raises:
            FormatError: it took too long or too much memory, or it is no usable feed.
        """
        deadline = time.monotonic() + job.seconds + _GRACE
        message = bytearray()
        msgspec.msgpack.Encoder().encode_into(job, message, LENGTH.size)
        LENGTH.pack_into(message, 0, len(message) - LENGTH.size)
        try:
            answer = self._exchange(message, deadline, alive)
        except BaseException:
            # The answer that nobody waits for any more must not be taken for that to the next feed.
            self.close()
            raise
        if answer is None:
            self.close()
            raise FormatError(
                f"the feed could not be parsed within {job.seconds} s and its share of memory", code="feed_too_costly"
            )
        feed = self._decode(answer)
        self._feeds += 1
        if self._feeds >= MAX_FEEDS:
            self.close()
        if feed.problem:
            raise FormatError(feed.problem[1], code=feed.problem[0])
        return feed

    def _exchange(self, message: bytearray, deadline: float, alive: Callable[[], None]) -> memoryview | None:
        """Send a message and read the answer; None when the process died, let the deadline pass or says too much."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        into, out = process.stdin.fileno(), process.stdout.fileno()
        unsent, received = memoryview(message), bytearray()
        while time.monotonic() < deadline:
            readable, writable, _ = select.select([out], [into] if unsent else [], [], _TICK)
            alive()
            try:
                if writable:
                    unsent = unsent[os.write(into, unsent[: select.PIPE_BUF]) :]
                if readable:
                    chunk = os.read(out, _CHUNK)
                    if not chunk:
                        return None
                    received += chunk
            except OSError:
                return None
            length = LENGTH.unpack_from(received)[0] if len(received) >= LENGTH.size else MAX_MESSAGE
            if length > MAX_MESSAGE:
                return None
            if len(received) >= LENGTH.size + length:
                return memoryview(received)[LENGTH.size :]
        return None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "etl.feeds.child"],
                cwd=_PROJECT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
            self._feeds = 0
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_parsers: dict[int, FeedParser] = {}


def parser() -> FeedParser:
    """The parser of this process; a forked child makes its own."""
    process_id = os.getpid()
    if process_id not in _parsers:
        _parsers.clear()
        _parsers[process_id] = FeedParser()
        atexit.register(_parsers[process_id].close)
    return _parsers[process_id]
