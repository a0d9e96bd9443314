"""One logical call: an attempt, and after a failure that may pass more of them, as its host allows."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from etl.errors import FetchError, Postponed, PostponedError, RateLimitError, WaitError
from etl.http.exchange import Exchange
from etl.http.status import pause_asked
from etl.http.transport import ConnectionLimits, make_session
from etl.runs.backoff import wait_before

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from etl.hosts.limiter import Admission, HostLimiter
    from etl.http.attempt import Attempt, FetchResult
    from etl.reporter import Reporter

# Only a source's own pace is slept through, if it is quicker than this: to give the worker back would take longer.
SHORT_PACE = 1.0
# A wait up to this is waited for by the run; a longer one ends it. A run that has stored something waits longer, since
# the next one would start anew and meet the same limit: most are by the hour.
LONGEST_WAIT = 900.0
LONGEST_WAIT_MIDWAY = 3900.0
# A probe keeps its place this much longer than its attempt may take.
PROBE_MARGIN = 10.0


@dataclass(frozen=True)
class Policy:
    """How hard to try, and whom to talk to.

    `slice_ends` is a reading of the monotonic clock.
    """

    max_retries: int
    private_hosts: tuple[str, ...]
    slice_ends: float


class Caller:
    """Makes one logical call at a time."""

    def __init__(
        self,
        policy: Policy,
        limiter: HostLimiter,
        reporter: Reporter,
        sleep: Callable[[float], None],
        connect: Callable[[ConnectionLimits], requests.Session] = make_session,
    ) -> None:
        """`limiter` is asked before each attempt, and told how each call ended; `connect` leads to the network."""
        self._connect = connect
        self._policy = policy
        self._limiter = limiter
        self._reporter = reporter
        self._sleep = sleep
        self._guard = ConnectionLimits(policy.private_hosts)

    @cached_property
    def _session(self) -> requests.Session:
        """Made when it is needed: it weighs a megabyte, and a source of files has no use for it."""
        return self._connect(self._guard)

    def call(self, attempt: Attempt, tries: int) -> FetchResult:
        """Try until there is an answer, after so many `tries` in earlier slices.

        Raises:
            FetchError: every try failed; the last failure.
            RefusedError, FormatError: trying again does not help.
            WaitError: the next try comes later; whoever waits for it holds no process.
            PostponedError: the host is not to be asked for now.
        """
        host = attempt.target.host
        while True:
            admission = self._admit(attempt, tries)
            try:
                answer = self._attempt(replace(attempt, number=tries + 1))
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
            admission = self._limiter.admit(target.host, target.interval, attempt.limit.whole + PROBE_MARGIN)
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

    def reject(self, host: str, error: FetchError, tries: int) -> NoReturn:
        """After an answer that says of itself that it is none, and so many tries before it.

        Raises:
            WaitError, PostponedError: the next try comes later.
            FetchError: there is none.
        """
        if tries >= self._policy.max_retries:
            self._limiter.failed(host, error.message)
            raise error
        self._pause(error, tries + 1, wait_before(tries + 1, random.random()))  # noqa: S311 -- spread, not secrecy

    def _pause(self, error: FetchError, tries: int, wait: float) -> NoReturn:
        if wait > self._longest_wait():
            message = f"{error.message}; it asks to wait {wait:.0f} s"
            raise PostponedError(message, by=Postponed.BY_SERVER, seconds=wait) from error
        self._reporter.retrying(error, tries, wait)
        raise WaitError(error.message, seconds=wait, tries=tries, cause=error) from error

    def _longest_wait(self) -> float:
        return LONGEST_WAIT_MIDWAY if self._reporter.has_stored else LONGEST_WAIT

    def _attempt(self, attempt: Attempt) -> FetchResult:
        return Exchange(attempt, self._session, self._guard, self._reporter, self._policy.slice_ends).answer()
