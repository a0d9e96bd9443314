"""Bodies on their way in: watched while they come, and downloads that go on where they stopped."""

from __future__ import annotations

import math
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from etl.errors import FetchError, NoAnswerError, SliceOverError, WaitError
from etl.files.find import hash_of
from etl.http.body import Sink
from etl.http.limit import DOWNLOAD_SECONDS
from etl.runs.share import LEAST_RATE, RATE_WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import requests

    from etl.http.limit import TimeLimit
    from etl.http.target import PreparedRequest
    from etl.http.transport import ConnectionLimits
    from etl.reporter import Reporter

MAX_DOWNLOAD = 8 * 1024 * 1024 * 1024
RENEW_SECONDS = 2.0
# So much more of a download is a step forward: bytes.
STEP = int(LEAST_RATE * RATE_WINDOW)


class Arrivals:
    """Watches a body come in: moves the deadline, keeps the lease, and ends what comes in too slowly."""

    def __init__(
        self, guard: ConnectionLimits, reporter: Reporter, limit: TimeLimit, ends: float, slice_ends: float
    ) -> None:
        """`ends` is when an attempt with a total limit does; one that must move goes on from now."""
        now = time.monotonic()
        pace = reporter.pace
        self._guard = guard
        self._reporter = reporter
        self._slice_ends = slice_ends if limit.must_move else math.inf
        self._is_download = limit.must_move
        self._ends = now + limit.whole if limit.must_move else ends
        self._window_seconds = pace.rate_window
        self._must_move = limit.must_move or pace.must_move
        self._silence = min(limit.silence, self._window_seconds) if self._must_move else limit.silence
        self._renewed = self._window = now
        self._came = 0
        reporter.keep(self._silence)
        self._move_deadline(now)

    def take(self, size: int) -> None:
        """So many bytes have come in.

        Raises:
            FetchError: too few have, for too long.
            WaitError: the slice is over, and this download may not go on in it.
        """
        now = time.monotonic()
        self._came += size
        if self._is_download and now > self._ends:
            raise NoAnswerError(f"the download takes longer than {DOWNLOAD_SECONDS:.0f} s", code="too_slow")
        self._move_deadline(now)
        if self._must_move and now - self._window > self._window_seconds:
            self._check_rate(now)
        if now - self._renewed > RENEW_SECONDS:
            self._renewed = now
            self._reporter.keep(self._silence)
            self._check_slice(now)

    def _move_deadline(self, now: float) -> None:
        # A little more than is left, so that the end of a download is told by its name.
        self._guard.set(min(self._silence, self._ends - now + (1 if self._is_download else 0)))

    def _check_rate(self, now: float) -> None:
        rate = self._came / (now - self._window)
        if rate < LEAST_RATE:
            raise NoAnswerError(f"the body comes in at {rate:.0f} bytes a second", code="too_slow")
        self._window, self._came = now, 0

    def _check_slice(self, now: float) -> None:
        if now < self._slice_ends:
            return
        if not self._reporter.may_go_on():
            slow = SliceOverError("the download takes longer than a slice")
            raise WaitError(slow.message, seconds=1.0, tries=0, cause=slow)
        self._slice_ends = self._ends


class _Begun(msgspec.Struct, frozen=True):
    """What a part belongs to: the request, and the mark of the version that its server gave."""

    request: str
    etag: str


class Part:
    """A download that has come in as far as it has. It stays after an error, if the server can go on with it."""

    def __init__(self, path: Path, target: PreparedRequest, alive: Callable[[], None]) -> None:
        """`path` is where it is kept; what it belongs to is written beside it. `alive` is called in what takes long."""
        self._path = path
        self._alive = alive
        self._about = path.with_name(path.name + ".about")
        self._request = target.digest
        begun = self._read()
        self.etag = begun.etag if begun else ""
        self.size = self._before = path.stat().st_size if begun and path.exists() else 0

    @property
    def conditions(self) -> dict[str, str]:
        """The headers that ask for the rest, of the very same version."""
        if not self.size:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.etag, "Accept-Encoding": "identity"}

    @contextmanager
    def open(self, response: requests.Response) -> Iterator[Sink]:
        """Where the body of an answer goes.

        Raises:
            FetchError: it is another part than the one that was asked for.
        """
        with self._path.open("r+b" if self._path.exists() else "w+b") as file:
            start = self._start(response, file)
            yield Sink(file, MAX_DOWNLOAD, start, hash_of(file, start, self._alive))

    def _start(self, response: requests.Response, file: BinaryIO) -> int:
        """Where the body of an answer begins in the file; what is needed to go on with it is noted."""
        headers = response.headers
        if response.status_code == 206:
            if not self._is_the_rest(headers):
                self.forget()
                raise FetchError("the server sent another part than the one asked for", code="bad_range")
            return self.size
        # What is there is of another version: it goes before anything says that it is of this one.
        file.truncate(0)
        etag = headers.get("etag", "")
        is_strong = etag.startswith('"') and headers.get("accept-ranges", "").strip() == "bytes"
        if is_strong and "content-encoding" not in headers:
            self._about.write_bytes(msgspec.json.encode(_Begun(self._request, etag)))
        else:
            self.forget()
        self.size = 0
        return 0

    def has_grown(self) -> bool:
        """Whether it has come a step further than it was before, and stays."""
        return self._about.exists() and self._path.stat().st_size >= self._before + STEP

    def remove(self) -> None:
        """Nobody goes on with it."""
        self.forget()
        self._path.unlink(missing_ok=True)

    def _is_the_rest(self, headers: Mapping[str, str]) -> bool:
        """Whether a part of a body is all that is missing, of the same version."""
        found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", headers.get("content-range", ""))
        if not self.size or found is None or headers.get("etag", self.etag) != self.etag:
            return False
        first, last, total = map(int, found.groups())
        return first == self.size and last + 1 == total and "content-encoding" not in headers

    def forget(self) -> None:
        """Begin anew next time."""
        self._about.unlink(missing_ok=True)
        self.size = 0

    def _read(self) -> _Begun | None:
        try:
            begun = msgspec.json.decode(self._about.read_bytes(), type=_Begun)
        except (OSError, msgspec.MsgspecError):
            return None
        return begun if begun.request == self._request else None
