"""One logical call: an attempt, and after a failure that may pass more of them, with manners and deadlines."""

from __future__ import annotations

import io
import random
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urljoin

from etl import payload
from etl.errors import (
    FetchError,
    FormatError,
    Postponed,
    PostponedError,
    RateLimitError,
    RefusedError,
    ScratchError,
    WaitError,
)
from etl.files.find import hash_of
from etl.http.address import check_url, same_origin
from etl.http.body import Received, receive
from etl.http.download import DOWNLOAD_SECONDS, Arrivals, Part
from etl.http.failure import translated
from etl.http.freshness import freshness
from etl.http.status import PERMANENT, REDIRECTS, check_status, pause_asked
from etl.http.token import Tokens
from etl.http.transport import ConnectionLimits, make_session
from etl.runs.backoff import wait_before
from etl.runs.share import LEAST_RATE, QUICK_ANSWER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import requests

    from etl.hosts.limiter import Admission, HostLimiter
    from etl.http.target import PreparedRequest
    from etl.records import Validator
    from etl.reporter import Reporter

T = TypeVar("T")

USER_AGENT = "kasparro-etl/1.0 (+https://github.com/kasparro/etl)"
MAX_REDIRECTS = 5
MAX_BODY = 64 * 1024 * 1024
MAX_DOWNLOAD = 8 * 1024 * 1024 * 1024
# Only a source's own pace is slept through, if it is quicker than this: to give the worker back would take longer.
SHORT_PACE = 1.0
# A wait up to this is waited for by the run; a longer one ends it. A run that has stored something waits longer, since
# the next one would start anew and meet the same limit: most are by the hour.
LONGEST_WAIT = 900.0
LONGEST_WAIT_MIDWAY = 3900.0
# After these a download is not gone on with.
_OVER = (FetchError, RefusedError, FormatError, ScratchError, PostponedError)
# A probe keeps its place this much longer than its attempt may take.
PROBE_MARGIN = 10.0


@dataclass(frozen=True)
class FetchResult:
    """A complete response.

    `base` is where its relative links start from, `fresh` the seconds it stays fresh for, `moved_to` the address that
    permanent redirects led to. A 304 is `unchanged` and has no body.
    """

    base: str
    headers: dict[str, str]
    size: int = 0
    digest: str = ""
    fresh: float = 0.0
    moved_to: str | None = None
    unchanged: bool = False


@dataclass(frozen=True)
class Policy:
    """How hard to try, and whom to talk to.

    `slice_ends` is a reading of the monotonic clock.
    """

    max_retries: int
    private_hosts: tuple[str, ...]
    slice_ends: float


class HttpClient:
    """Makes one logical call at a time."""

    def __init__(
        self, policy: Policy, limiter: HostLimiter, reporter: Reporter, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """`limiter` is asked before each attempt, and told how each call ended."""
        self._policy = policy
        self._limiter = limiter
        self._reporter = reporter
        self._sleep = sleep
        self._guard = ConnectionLimits(policy.private_hosts)
        self._ends = 0.0
        self._tokens = Tokens(self)

    @cached_property
    def _session(self) -> requests.Session:
        """Made when it is needed: it weighs a megabyte, and a source of files has no use for it."""
        return make_session(self._guard)

    def get(
        self,
        target: PreparedRequest,
        timeout: float,
        tries: int = 0,
        known: Validator | None = None,
        *,
        limit: int = MAX_BODY,
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

        def read(response: requests.Response) -> Received:
            arrivals = Arrivals(self._guard, self._reporter, self._policy, self._ends, timeout, patient=False)
            return receive(response, file, limit, arrivals.take)

        return self._logical(Attempt(target, timeout, timeout, read, _of(target, known)), tries)

    def download(
        self, target: PreparedRequest, timeout: float, path: Path, tries: int = 0, known: Validator | None = None
    ) -> FetchResult:
        """Fetch a body into the file of this path, which may go on from where an earlier call ended.

        `timeout` is the limit of each silence in seconds. The file stays after a WaitError. Raises as `fetch` does.
        """
        part = Part(path, target)

        def read(response: requests.Response) -> Received:
            with path.open("r+b" if path.exists() else "w+b") as file:
                start = part.start(response, file)
                digest = hash_of(file, start, lambda: self._reporter.keep(timeout))
                arrivals = Arrivals(self._guard, self._reporter, self._policy, self._ends, timeout, patient=True)
                return receive(response, file, MAX_DOWNLOAD, arrivals.take, start, digest)

        attempt = Attempt(target, timeout, DOWNLOAD_SECONDS, read, _of(target, known), part)
        try:
            answer = self._logical(attempt, tries)
        except _OVER:
            # Any other error says nothing of the download; perhaps another process has gone on with it by now.
            part.remove()
            raise
        part.forget()
        return answer

    def _logical(self, attempt: Attempt, tries: int) -> FetchResult:
        return self._with_token(attempt, tries) if attempt.target.grant else self._call(attempt, tries)

    def _with_token(self, attempt: Attempt, tries: int) -> FetchResult:
        """Once more with a new token if the server does not take the one we had."""
        assert attempt.target.grant is not None
        try:
            return self._call(self._tokens.sign(attempt, tries), tries)
        except RefusedError as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
            self._tokens.forget(attempt.target.grant)
            return self._call(self._tokens.sign(attempt, tries), tries)

    def _call(self, attempt: Attempt, tries: int) -> FetchResult:
        host = attempt.target.host
        while True:
            admission = self._admit(attempt, tries)
            try:
                answer = self._attempt(attempt)
            except FetchError as error:
                tries = 1 if attempt.part and attempt.part.has_grown() else tries + 1
                self._after_failure(host, error, admission, tries)
            except BaseException:
                self._limiter.released(host)
                raise
            else:
                self._limiter.succeeded(host, admission)
                if wait := pause_asked(answer.headers):
                    self._limiter.pause(host, wait, "its rate limit is used up")
                return answer

    def _admit(self, attempt: Attempt, tries: int) -> Admission:
        """Wait until the host may be asked.

        Raises:
            WaitError, PostponedError: that is too long from now.
        """
        target = attempt.target
        while True:
            admission = self._limiter.admit(target.host, target.interval, attempt.lasts + PROBE_MARGIN)
            if admission.allowed:
                return admission
            if admission.broken:
                message = f"{target.host}: not asked for another {admission.wait:.0f} s; {admission.reason}"
                raise PostponedError(message, by=Postponed.BY_BREAKER, seconds=admission.wait)
            if admission.paced:
                paced = FetchError(f"{target.host}: its sources declare a rate", code="paced")
                if admission.wait > SHORT_PACE:
                    raise WaitError(paced.message, seconds=admission.wait, tries=tries, cause=paced)
                self._reporter.keep(admission.wait)
                self._sleep(admission.wait)
            else:
                limited = RateLimitError(f"{target.host}: {admission.reason}")
                self._pause(limited, tries, admission.wait)

    def _after_failure(self, host: str, error: FetchError, admission: Admission, tries: int) -> None:
        """Tell the limiter, and wait for the next try.

        Raises:
            FetchError: there is none.
            WaitError, PostponedError: it is too long from now.
        """
        limited = isinstance(error, RateLimitError)
        wait = wait_before(tries, random.random())  # noqa: S311 -- spread, not secrecy
        wait = max(wait, error.retry_after or 0.0)
        if limited:
            self._limiter.pause(host, wait, error.message)
        if admission.probe or tries > self._policy.max_retries:
            if limited:
                self._limiter.released(host)
            else:
                self._limiter.failed(host, error.message)
            if wait <= self._longest_wait():
                raise error
        self._pause(error, tries, wait)

    def _pause(self, error: FetchError, tries: int, wait: float) -> None:
        if wait > self._longest_wait():
            message = f"{error.message}; it asks to wait {wait:.0f} s"
            raise PostponedError(message, by=Postponed.BY_SERVER, seconds=wait) from error
        self._reporter.retrying(error, tries, wait)
        raise WaitError(error.message, seconds=wait, tries=tries, cause=error) from error

    def _longest_wait(self) -> float:
        return LONGEST_WAIT_MIDWAY if self._reporter.has_stored else LONGEST_WAIT

    def _attempt(self, attempt: Attempt) -> FetchResult:
        target = attempt.target
        pace, started = self._reporter.pace, time.monotonic()
        within = pace.answer_within(attempt.timeout)
        self._reporter.keep(within)
        self._ends = started + pace.attempt_within(attempt.timeout)
        self._guard.set(within)
        return translated(target.shown, started, lambda: self._follow(attempt))

    def _follow(self, attempt: Attempt) -> FetchResult:
        """Follow redirects by hand, so that secrets stay with their origin."""
        target, url, permanent = attempt.target, attempt.target.url, True
        started = time.monotonic()
        for _ in range(MAX_REDIRECTS + 1):
            with closing(self._send(attempt, url)) as response:
                if response.status_code not in REDIRECTS or "location" not in response.headers:
                    began = time.monotonic() - started
                    moved = permanent and url != target.url and "${" not in target.shown
                    answer = self._answer(attempt, response, target.without_secrets(url) if moved else None)
                    took = time.monotonic() - started - began
                    # A token's server is another one.
                    if target.form is None and (took < QUICK_ANSWER or answer.size > LEAST_RATE * took):
                        self._reporter.answered_after(began)
                    return answer
                url = self._next_hop(target, response)
                permanent = permanent and response.status_code in PERMANENT
        raise RefusedError(f"{target.shown}: more than {MAX_REDIRECTS} redirects", code="too_many_redirects")

    @staticmethod
    def _next_hop(target: PreparedRequest, response: requests.Response) -> str:
        url = urljoin(response.url, response.headers["location"])
        if target.is_post and not (response.status_code in {307, 308} and same_origin(url, target.url)):
            raise RefusedError(f"{target.shown}: a POST was redirected elsewhere", code="redirected_post")
        return url

    @staticmethod
    def _answer(attempt: Attempt, response: requests.Response, moved_to: str | None) -> FetchResult:
        target = attempt.target
        asked_part = attempt.part is not None and bool(attempt.part.size)
        if asked_part and response.status_code == 416 and attempt.part:
            attempt.part.forget()
            raise FetchError(f"{target.shown}: there is no more of it than an earlier part", code="bad_range")
        check_status(response, target.shown, conditional=attempt.known is not None, partial=asked_part)
        unchanged = response.status_code == 304
        received = Received(0, "") if unchanged else attempt.read(response)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return FetchResult(
            base=target.base(response.url),
            headers=headers,
            size=received.size,
            digest=received.digest,
            fresh=freshness(headers),
            moved_to=moved_to,
            unchanged=unchanged,
        )

    def _send(self, attempt: Attempt, url: str) -> requests.Response:
        target = attempt.target
        check_url(url, target.shown)
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **target.headers, **attempt.conditions}
        params = list(target.params) if url == target.url else []
        if target.body is not None:
            headers.setdefault("Content-Type", "application/json")
        if same_origin(url, target.url):
            headers |= target.secret_headers
            params += list(target.secret_params)
        return self._session.request(
            "POST" if target.is_post else "GET",
            url,
            params=params,
            headers=headers,
            data=_data(target),
            timeout=attempt.timeout,
            stream=True,
            allow_redirects=False,
        )


@dataclass(frozen=True)
class Attempt:
    """A request and what is done with its body. Its answer must begin within `timeout` and end when it `lasts`."""

    target: PreparedRequest
    timeout: float
    lasts: float
    read: Callable[[requests.Response], Received]
    known: Validator | None = None
    part: Part | None = None

    @property
    def conditions(self) -> dict[str, str]:
        """The headers that ask for the rest, or for a change only, byte for byte as the server gave their values."""
        if self.part is not None and self.part.size:
            return self.part.conditions
        if self.known is None:
            return {}
        given = {"If-None-Match": self.known.etag, "If-Modified-Since": self.known.last_modified}
        return {name: value for name, value in given.items() if value}

    def signed(self, authorization: str) -> Attempt:
        """The same with a token."""
        headers = {**self.target.secret_headers, "Authorization": authorization}
        return replace(self, target=replace(self.target, secret_headers=headers))


def _of(target: PreparedRequest, known: Validator | None) -> Validator | None:
    """What is known of an answer to this very request."""
    return known if known and known.request == target.digest else None


def _data(target: PreparedRequest) -> bytes | list[tuple[str, str]] | None:
    if target.body is not None:
        return payload.encode(target.body)
    return None if target.form is None else list(target.form)
