"""HTTP as extractors use it: bodies in memory or in files, with tokens where a source needs them."""

from __future__ import annotations

import io
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from etl.errors import FetchError, FormatError, PostponedError, RefusedError, ScratchError
from etl.http.attempt import Attempt, into
from etl.http.call import Caller
from etl.http.download import MAX_DOWNLOAD, Part
from etl.http.limit import TimeLimit
from etl.http.token import Tokens
from etl.http.transport import make_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import requests

    from etl.hosts.limiter import HostLimiter
    from etl.http.attempt import FetchResult
    from etl.http.call import Policy
    from etl.http.target import PreparedRequest
    from etl.http.transport import ConnectionLimits
    from etl.records import Validator
    from etl.reporter import Reporter

MAX_IN_MEMORY = 64 * 1024 * 1024
# After these a download is not gone on with.
_OVER = (FetchError, RefusedError, FormatError, ScratchError, PostponedError)


class HttpClient:
    """Makes one logical call at a time."""

    def __init__(
        self,
        policy: Policy,
        limiter: HostLimiter,
        reporter: Reporter,
        *,
        sleep: Callable[[float], None] = time.sleep,
        connect: Callable[[ConnectionLimits], requests.Session] = make_session,
    ) -> None:
        """`limiter` is asked before each attempt, and told how each call ended; `connect` leads to the network."""
        self._reporter = reporter
        self._caller = Caller(policy, limiter, reporter, sleep, connect)
        self._tokens = Tokens(self._caller)

    def get(
        self,
        target: PreparedRequest,
        timeout: float,
        tries: int = 0,
        known: Validator | None = None,
        *,
        limit: int = MAX_IN_MEMORY,
    ) -> tuple[FetchResult, bytes]:
        """Fetch a body into memory within `timeout` seconds; empty when the answer is `unchanged`.

        `known` makes the request conditional. Raises as `fetch` does.
        """
        body = io.BytesIO()
        answer = self.fetch(target, timeout, body, tries, known, limit=limit)
        return answer, body.getvalue()

    def fetch(
        self,
        target: PreparedRequest,
        timeout: float,
        file: BinaryIO,
        tries: int = 0,
        known: Validator | None = None,
        *,
        limit: int = MAX_DOWNLOAD,
    ) -> FetchResult:
        """Fetch a body of at most `limit` bytes into a file, from its start, within `timeout` seconds.

        Raises:
            FetchError: every try failed; the last failure.
            RefusedError, FormatError: trying again does not help.
            WaitError: the next try comes later; whoever waits for it holds no process.
            PostponedError: the host is not to be asked for now.
        """
        attempt = Attempt(target, TimeLimit.total(timeout), into(file, limit), _of(target, known))
        return self.call(attempt, tries)

    def download(
        self, target: PreparedRequest, timeout: float, path: Path, tries: int = 0, known: Validator | None = None
    ) -> FetchResult:
        """Fetch a body into the file of this path, which may go on from where an earlier call ended.

        `timeout` is the limit of each silence in seconds. The file stays after a WaitError. Raises as `fetch` does.
        """
        part = Part(path, target, partial(self._reporter.keep, timeout))
        attempt = Attempt(target, TimeLimit.per_silence(timeout), part.open, _of(target, known), part)
        try:
            answer = self.call(attempt, tries)
        except _OVER:
            # Any other error says nothing of the download; perhaps another process has gone on with it by now.
            part.remove()
            raise
        part.forget()
        return answer

    def reject(self, target: PreparedRequest, error: FetchError, tries: int) -> NoReturn:
        """An answer that came says that it is none: as if its status had said so.

        Raises:
            WaitError: the next try comes later.
            FetchError: every try failed.
        """
        self._caller.reject(target.host, error, tries)

    def call(self, attempt: Attempt, tries: int) -> FetchResult:
        """One logical call, with a token where it needs one; once more with a new one if the server wants another."""
        grant = attempt.target.grant
        if grant is None:
            return self._caller.call(attempt, tries)
        try:
            return self._caller.call(self._tokens.sign(attempt, tries), tries)
        except RefusedError as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
            self._tokens.forget(grant)
            return self._caller.call(self._tokens.sign(attempt, tries), tries)


def _of(target: PreparedRequest, known: Validator | None) -> Validator | None:
    """What is known of an answer to this very request."""
    return known if known and known.request == target.digest else None
