"""HTTP for all extractors: own retries, deadlines, size caps and redirects, and secrets that stay with their origin."""

from __future__ import annotations

import base64
import ipaddress
import random
import re
import socket
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import requests
import urllib3

from etl.backoff import wait_before
from etl.duration import seconds
from etl.errors import ETLError, FetchError, FormatError, RefusedError, WaitError
from etl.source import BasicAuth, BearerAuth, HeaderAuth, QueryAuth, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etl.source import Request

T = TypeVar("T")

USER_AGENT = "kasparro-etl/1.0 (+https://github.com/kasparro/etl)"
CHUNK = 64 * 1024
MAX_REDIRECTS = 5
CONNECT_SECONDS = 5.0
MAX_BODY = 64 * 1024 * 1024
MAX_DOWNLOAD = 8 * 1024 * 1024 * 1024
# A host that asks for a longer pause than this ends the run; a shorter one is waited for across slices.
LONGEST_WAIT = 900.0
# A download may take longer than an ordinary request as long as it moves; the lease is renewed on the way.
DOWNLOAD_SECONDS = 600.0
RENEW_SECONDS = 5.0

_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


@dataclass(frozen=True)
class Target:
    """A request with its secrets filled in; `shown` is its address as it was declared, for logs and errors."""

    url: str
    shown: str
    params: tuple[tuple[str, str], ...] = ()
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    secret_headers: dict[str, str] = field(default_factory=dict, repr=False)
    secret_params: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def at(self, url: str) -> Target:
        """The same request at another address of the same origin; its query is the one in the address."""
        return replace(self, url=url, params=())

    def without_secrets(self, url: str) -> str:
        """An address that a server gave, less the secret parameters it echoes; they are added again anyway."""
        names = {name for name, _ in self.secret_params}
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        if not names & {name for name, _ in pairs}:
            return url
        return urlunsplit(parts._replace(query=urlencode([pair for pair in pairs if pair[0] not in names])))

    def base(self, url: str) -> str:
        """What relative links in the body of an address start from; it holds no query and no secret."""
        parts = urlsplit(url)
        path = "/" if "${" in self.shown.removeprefix("${") else parts.path
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))


@dataclass(frozen=True)
class Answer:
    """A complete response: the base of its relative links, its headers and its decoded body."""

    base: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Policy:
    """How hard to try, and whom to talk to.

    `slice_ends` is a reading of the monotonic clock: no wait goes past it.
    """

    max_retries: int
    private_hosts: tuple[str, ...]
    slice_ends: float


class HttpClient:
    """Makes one logical call at a time: an attempt, and after a retryable failure more of them.

    `before_attempt(seconds)` is called before each attempt with the longest it may take; the caller renews its lease
    there. `on_retry(error, tries, seconds)` is called before each wait.
    """

    def __init__(
        self,
        policy: Policy,
        before_attempt: Callable[[float], None],
        on_retry: Callable[[ETLError, int, float], None],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Open a session that ignores proxies, netrc and cookies of the machine."""
        self._policy = policy
        self._before_attempt = before_attempt
        self._on_retry = on_retry
        self._sleep = sleep
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(_NoCookies())

    def get(self, target: Target, timeout: str, tries: int = 0) -> Answer:
        """Fetch a body of at most 64 MiB.

        Raises:
            FetchError: every try failed; the last failure.
            RefusedError, FormatError: trying again does not help.
            WaitError: the next try would come after the end of the slice.
        """
        return self._call(target, seconds(timeout), tries, self._read_body)

    def download(self, target: Target, timeout: str, file: BinaryIO, tries: int = 0) -> Answer:
        """Fetch a large body into a file, from its start; `timeout` limits each silence, not the whole."""

        def read(response: requests.Response, deadline: float) -> bytes:
            del deadline
            file.seek(0)
            file.truncate()
            self._pour(response, file, seconds(timeout))
            return b""

        return self._call(target, seconds(timeout), tries, read)

    def _call(
        self, target: Target, timeout: float, tries: int, read: Callable[[requests.Response, float], bytes]
    ) -> Answer:
        while True:
            try:
                return self._attempt(target, timeout, read)
            except FetchError as error:
                tries += 1
                if tries > self._policy.max_retries:
                    raise
                self._wait(error, tries)

    def _wait(self, error: FetchError, tries: int) -> None:
        wait = max(wait_before(tries, random.random()), error.retry_after or 0.0)  # noqa: S311 -- spread, not secrecy
        if wait > LONGEST_WAIT:
            raise RefusedError(f"{error.message}; it asks to wait {wait:.0f} s", code=error.code) from error
        self._on_retry(error, tries, wait)
        if time.monotonic() + wait > self._policy.slice_ends:
            raise WaitError(error.message, seconds=wait, tries=tries, cause=error) from error
        self._sleep(wait)

    def _attempt(self, target: Target, timeout: float, read: Callable[[requests.Response, float], bytes]) -> Answer:
        deadline = time.monotonic() + timeout
        self._before_attempt(timeout)
        origin = _origin(target.url)
        url = target.url
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(
                target, url, trusted=_origin(url) == origin, first=url == target.url, deadline=deadline
            )
            with closing(response):
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    url = urljoin(response.url, response.headers["location"])
                    continue
                _check_status(response, target.shown)
                body = _guard(target.shown, timeout, partial(read, response, deadline))
                return Answer(target.base(url), {k.lower(): v for k, v in response.headers.items()}, body)
        raise RefusedError(f"{target.shown}: more than {MAX_REDIRECTS} redirects", code="too_many_redirects")

    def _send(self, target: Target, url: str, *, trusted: bool, first: bool, deadline: float) -> requests.Response:
        self._check_address(url, target.shown)
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **target.headers}
        params = list(target.params) if first else []
        if trusted:
            headers |= target.secret_headers
            params += list(target.secret_params)
        left = max(0.1, deadline - time.monotonic())
        return _guard(
            target.shown,
            left,
            lambda: self._session.get(
                url,
                params=params,
                headers=headers,
                timeout=(min(CONNECT_SECONDS, left), left),
                stream=True,
                allow_redirects=False,
            ),
        )

    @staticmethod
    def _read_body(response: requests.Response, deadline: float) -> bytes:
        body = bytearray()
        for chunk in _chunks(response):
            _check_clock(deadline)
            body += chunk
            if len(body) > MAX_BODY:
                raise RefusedError(f"the body is larger than {MAX_BODY} bytes", code="too_large", limit=MAX_BODY)
        return bytes(body)

    def _pour(self, response: requests.Response, file: BinaryIO, timeout: float) -> None:
        size, started = 0, time.monotonic()
        renewed = started
        for chunk in _chunks(response):
            _check_clock(started + DOWNLOAD_SECONDS)
            if time.monotonic() - renewed > RENEW_SECONDS:
                renewed = time.monotonic()
                self._before_attempt(timeout)
            size += file.write(chunk)
            if size > MAX_DOWNLOAD:
                raise RefusedError(
                    f"the body is larger than {MAX_DOWNLOAD} bytes", code="too_large", limit=MAX_DOWNLOAD
                )

    def _check_address(self, url: str, shown: str) -> None:
        """Refuse what is not http(s), and addresses of private networks that are not allowed."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise RefusedError(f"{shown}: leads to an address that is not plain http or https", code="bad_url")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise FetchError(f"{shown}: cannot resolve {parts.hostname}", code="dns_failed") from error
        for *_, address in found:
            if not _allowed(str(address[0]), parts.hostname, port, self._policy.private_hosts):
                raise RefusedError(
                    f"{shown}: {parts.hostname} is on a private network; ALLOWED_PRIVATE_HOSTS can allow it, "
                    "which workers read when they start",
                    code="private_address",
                )


def target_of(request: Request, secrets: dict[str, str]) -> Target:
    """A declared request with the secrets it names. What holds a secret is kept apart from what does not."""
    headers, secret_headers = _split(request.headers, secrets)
    written = {name: _written(value) for name, value in request.params.items()}
    params, secret_params = _split(written, secrets)
    auth = request.auth
    if isinstance(auth, HeaderAuth):
        secret_headers[auth.name] = fill(auth.value, secrets)
    elif isinstance(auth, BearerAuth):
        secret_headers["Authorization"] = "Bearer " + fill(auth.token, secrets)
    elif isinstance(auth, BasicAuth):
        pair = f"{fill(auth.username, secrets)}:{fill(auth.password, secrets)}"
        secret_headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    elif isinstance(auth, QueryAuth):
        secret_params[auth.name] = fill(auth.value, secrets)
    url = fill(request.url, secrets)
    shown = request.url.partition("?")[0]
    return Target(url, shown, tuple(params.items()), headers, secret_headers, tuple(secret_params.items()))


def same_origin(url: str, other: str) -> bool:
    """True when two addresses share scheme, host and port."""
    return _origin(url) == _origin(other)


def _split(values: dict[str, str], secrets: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    plain = {name: value for name, value in values.items() if fill(value, secrets) == value}
    secret = {name: fill(value, secrets) for name, value in values.items() if name not in plain}
    return plain, secret


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _guard(shown: str, timeout: float, work: Callable[[], T]) -> T:
    """Turn what the libraries raise into our errors, without the address's query."""
    try:
        return work()
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, ValueError) as error:
        raise RefusedError(f"{shown}: not an address that can be fetched", code="bad_url") from error
    except requests.exceptions.SSLError as error:
        raise RefusedError(f"{shown}: the TLS certificate is not valid", code="tls_failed") from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
        raise FetchError(f"{shown}: no answer within {timeout:.1f} s", code="timeout") from error
    except urllib3.exceptions.DecodeError as error:
        raise FetchError(f"{shown}: the body cannot be decompressed", code="bad_encoding") from error
    except _NETWORK_ERRORS as error:
        raise FetchError(f"{shown}: {_reason(error)}", code="connection_failed") from error


def _reason(error: BaseException) -> str:
    """A short reason; the libraries' own texts carry whole addresses."""
    root: BaseException = error
    while (below := root.__cause__ or root.__context__) is not None:
        root = below
    return root.strerror or type(root).__name__ if isinstance(root, OSError) else type(root).__name__


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """The decoded body as it arrives: `read1` hands back each arrival, so the caller can watch the clock."""
    while chunk := response.raw.read1(CHUNK, decode_content=True):
        yield chunk
    _check_length(response)


def _check_clock(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError


def _check_length(response: requests.Response) -> None:
    """Notice a body that was cut short."""
    left = getattr(response.raw, "length_remaining", None)
    if left:
        raise urllib3.exceptions.IncompleteRead(response.raw.tell(), left)


def _check_status(response: requests.Response, shown: str) -> None:
    status = response.status_code
    if status == 200:
        return
    text = f"{shown}: answered {status} {response.reason or ''}".strip()
    limited = status == 403 and (
        "retry-after" in response.headers or response.headers.get("x-ratelimit-remaining", "").strip() == "0"
    )
    if status in _RETRYABLE or status >= 500 or limited:
        raise FetchError(text, code=f"http_{status}", retry_after=_retry_after(response))
    if 200 < status < 300:
        raise FormatError(f"{text}, which carries no data", code=f"http_{status}")
    raise RefusedError(text, code=f"http_{status}")


def _retry_after(response: requests.Response) -> float | None:
    """Seconds the server asks us to wait: a number, or a date relative to the server's own clock."""
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        until = parsedate_to_datetime(value)
        now = parsedate_to_datetime(response.headers.get("date", "")) if "date" in response.headers else None
        return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError):
        return None


def _allowed(address: str, host: str, port: int, private: tuple[str, ...]) -> bool:
    """True for a public address, or one that the operator has allowed by host, host:port or network."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if _public(ip):
        return True
    for entry in private:
        if entry in {host, f"{host}:{port}", str(ip), f"{ip}:{port}"}:
            return True
        if "/" in entry and ip in ipaddress.ip_network(entry, strict=False):
            return True
    return False


_NOT_PUBLIC = tuple(
    map(ipaddress.ip_network, ("100.64.0.0/10", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
)


def _public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


class _NoCookies(requests.cookies.cookielib.DefaultCookiePolicy):  # type: ignore[name-defined,misc]
    """Keeps nothing."""

    def set_ok(self, cookie: object, request: object) -> bool:
        """Refuse every cookie."""
        del cookie, request
        return False
