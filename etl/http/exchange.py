"""One attempt: a request, its redirects, and the body of the answer."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin

from etl import payload
from etl.errors import ETLError, FetchError, RefusedError
from etl.http.address import check_url, same_origin
from etl.http.attempt import FetchResult
from etl.http.body import Received, first_words, receive
from etl.http.download import Arrivals
from etl.http.failure import translated
from etl.http.freshness import freshness
from etl.http.status import PERMANENT, REDIRECTS, check_status
from etl.reporter import Asked
from etl.runs.share import LEAST_RATE, QUICK_ANSWER
from etl.secrets import hide, holds_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

    from etl.http.attempt import Attempt
    from etl.http.target import PreparedRequest
    from etl.http.transport import ConnectionLimits
    from etl.reporter import Reporter

USER_AGENT = "kasparro-etl/1.0 (+https://github.com/kasparro/etl)"
MAX_REDIRECTS = 5
# What of an address is kept on record: characters.
MAX_SHOWN = 2000


@dataclass
class _Noted:
    """What is known of a request so far."""

    status: int | None = None
    size: int = 0
    error: str | None = None


class Exchange:
    """Makes an attempt, once."""

    def __init__(
        self,
        attempt: Attempt,
        session: requests.Session,
        guard: ConnectionLimits,
        reporter: Reporter,
        slice_ends: float,
    ) -> None:
        """`session` obeys the guard; `slice_ends` is a reading of the monotonic clock."""
        self._attempt = attempt
        self._target = attempt.target
        self._session = session
        self._guard = guard
        self._reporter = reporter
        self._slice_ends = slice_ends
        self._started = time.monotonic()
        self._ends = self._started + reporter.pace.attempt_within(attempt.limit.silence)

    def answer(self) -> FetchResult:
        """The answer, with its body where the attempt wants it.

        Raises:
            FetchError: it may pass.
            RefusedError, FormatError: trying again does not help.
            WaitError: a download would outlast the slice, and may not.
        """
        within = self._reporter.pace.answer_within(self._attempt.limit.silence)
        self._reporter.keep(within)
        self._guard.set(within)
        return translated(self._target.shown, self._started, self._follow)

    def _follow(self) -> FetchResult:
        """Follow redirects by hand, so that secrets stay with their origin."""
        target, url, permanent = self._target, self._target.url, True
        started = time.monotonic()
        for _ in range(MAX_REDIRECTS + 1):
            with self._noted(url) as noted, closing(self._send(url)) as response:
                noted.status = response.status_code
                if response.status_code not in REDIRECTS or "location" not in response.headers:
                    began = time.monotonic() - started
                    moved = permanent and url != target.url and "${" not in target.shown
                    answer = self._take(response, self._settled(url) if moved else None)
                    noted.size = answer.size
                    took = time.monotonic() - started - began
                    # A token's server is another one.
                    if target.form is None and (took < QUICK_ANSWER or answer.size > LEAST_RATE * took):
                        self._reporter.answered_after(began)
                    return answer
                url = self._next_hop(response)
                permanent = permanent and response.status_code in PERMANENT
        raise RefusedError(f"more than {MAX_REDIRECTS} redirects", code="too_many_redirects")

    @contextmanager
    def _noted(self, url: str) -> Iterator[_Noted]:
        """A request that is reported, however it ends."""
        noted, at, started = _Noted(), time.time(), time.monotonic()
        try:
            yield noted
        except Exception as error:
            noted.error = error.code if isinstance(error, ETLError) else type(error).__name__
            raise
        finally:
            asked = Asked(
                at=at,
                method="POST" if self._target.is_post else "GET",
                url=_storable(hide(self._shown(url)))[:MAX_SHOWN],
                status=noted.status,
                bytes=noted.size,
                seconds=round(time.monotonic() - started, 3),
                attempt=self._attempt.number,
                error=noted.error,
            )
            self._reporter.asked(asked)

    def _shown(self, url: str) -> str:
        """An address without secrets, with the parameters that are sent.

        Of one that a server has led to, which may echo secrets in any form, no more than where it is.
        """
        target = self._target
        if url != target.url:
            return target.base(url)
        address, query = target.without_secrets(url), urlencode(target.params)
        return f"{address}{'&' if '?' in address else '?'}{query}" if query else address

    def _settled(self, url: str) -> str | None:
        """Where the source has moved to; an address that holds a secret is not kept."""
        kept = self._target.without_secrets(url)
        return None if "${" in kept or holds_secret(kept) else kept

    def _next_hop(self, response: requests.Response) -> str:
        target = self._target
        url = urljoin(response.url, response.headers["location"])
        if target.is_post and not (response.status_code in {307, 308} and same_origin(url, target.url)):
            raise RefusedError("a POST was redirected elsewhere", code="redirected_post")
        return url

    def _take(self, response: requests.Response, moved_to: str | None) -> FetchResult:
        target, attempt = self._target, self._attempt
        asked_part = attempt.part is not None and bool(attempt.part.size)
        if asked_part and response.status_code == 416 and attempt.part:
            attempt.part.forget()
            raise FetchError("there is no more of it than an earlier part", code="bad_range")
        try:
            check_status(response, conditional=attempt.known is not None, partial=asked_part)
        except RefusedError as error:
            if not (said := first_words(response)):
                raise
            raise RefusedError(f"{error.message}: {said}", status=error.status, code=error.code) from error
        unchanged = response.status_code == 304
        received = Received(0, "") if unchanged else self._receive(response)
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

    def _receive(self, response: requests.Response) -> Received:
        with self._attempt.open(response) as sink:
            arrivals = Arrivals(self._guard, self._reporter, self._attempt.limit, self._ends, self._slice_ends)
            return receive(response, sink, arrivals.take)

    def _send(self, url: str) -> requests.Response:
        target, attempt = self._target, self._attempt
        check_url(url)
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **target.headers_for(url), **attempt.conditions}
        params = list(target.params) if url == target.url else []
        if target.body is not None:
            headers.setdefault("Content-Type", "application/json")
        if same_origin(url, target.url):
            params += list(target.secret_params)
        return self._session.request(
            "POST" if target.is_post else "GET",
            url,
            params=params,
            headers=headers,
            data=_data(target),
            timeout=attempt.limit.silence,
            stream=True,
            allow_redirects=False,
        )


def _storable(address: str) -> str:
    """Without what no text of PostgreSQL's can have, which a redirect may."""
    return address.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _data(target: PreparedRequest) -> bytes | list[tuple[str, str]] | None:
    if target.body is not None:
        return payload.encode(target.body)
    return None if target.form is None else list(target.form)
