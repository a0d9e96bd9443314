"""A request with its secrets filled in, and what of it may be shown."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from etl import payload
from etl.declare.credentials import names_credential
from etl.declare.request import (
    SECRET,
    BasicAuth,
    BearerAuth,
    ClientCredentials,
    HeaderAuth,
    QueryAuth,
    fill,
    fill_all,
)
from etl.http.address import host_of, same_origin
from etl.secrets import SHORTEST, TOKEN, hide, holds_secret

if TYPE_CHECKING:
    from etl.declare.request import Request

# Headers that say who asks, whatever is written in them.
# A shorter value of a parameter, such as `true`, would be found in any text.
_LONG = 6
_SENSITIVE = re.compile(r"auth|cookie|key|token|secret|passw|session|signature", re.IGNORECASE)
# What every server may be told.
_HARMLESS = re.compile(r"accept(-.*)?|user-agent|content-type|cache-control", re.IGNORECASE)


@dataclass(frozen=True)
class Grant:
    """How to get an OAuth2 token: where, and with what."""

    url: str
    shown: str
    client_id: str
    client_secret: str = field(repr=False)
    params: tuple[tuple[str, str], ...]
    in_body: bool


@dataclass(frozen=True)
class PreparedRequest:
    """A request with its secrets filled in; `shown` is its address as it was declared, for logs and errors.

    `body` is sent as JSON, `form` as a form; with either the request is a POST. `interval` is the time between two
    requests that the source has declared, in seconds; `secrets` are the names and values of those filled in.
    """

    url: str
    shown: str
    params: tuple[tuple[str, str], ...] = ()
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    secret_headers: dict[str, str] = field(default_factory=dict, repr=False)
    secret_params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: dict[str, Any] | None = field(default=None, repr=False)
    form: tuple[tuple[str, str], ...] | None = field(default=None, repr=False)
    grant: Grant | None = None
    interval: float = 0.0
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def host(self) -> str:
        """What breakers and budgets know its host by."""
        return host_of(self.url)

    @property
    def is_post(self) -> bool:
        """True when the request has a body."""
        return self.body is not None or self.form is not None

    @property
    def has_secrets(self) -> bool:
        """True when the request carries something that must stay with its origin."""
        return bool(self.secret_headers or self.secret_params or self.grant or "${" in self.shown)

    @property
    def digest(self) -> str:
        """Tells requests apart: the answer to another one says nothing about this one."""
        asked = [self.url, self.params, self.headers, self.body]
        return payload.digest(payload.encode(asked)).hex()

    def headers_for(self, url: str) -> dict[str, str]:
        """What is sent along to an address: all to our origin, to another one nothing that could say who asks."""
        if same_origin(url, self.url):
            return {**self.headers, **self.secret_headers}
        if urlsplit(url).hostname == urlsplit(self.url).hostname:
            return {name: value for name, value in self.headers.items() if not _SENSITIVE.search(name)}
        return {name: value for name, value in self.headers.items() if _HARMLESS.fullmatch(name)}

    def at(self, url: str) -> PreparedRequest:
        """The same request at another address of the same origin; its query is the one in the address."""
        return replace(self, url=url, params=())

    @property
    def confidential(self) -> dict[str, str]:
        """What must not be shown, by a name that may be: secrets, and what says as whom we ask."""
        literal = {name: value for name, value in self.headers.items() if _SENSITIVE.search(name)}
        asked = (*self.params, *parse_qsl(urlsplit(self.url).query))
        literal |= {name: str(value) for name, value in asked if names_credential(name) and len(str(value)) >= _LONG}
        parts = {**literal, **self.secret_headers, **dict(self.secret_params)}
        if self.grant:
            parts |= {"client_secret": self.grant.client_secret}
        # Without the scheme of an Authorization header.
        words = {f"{name} ": value.partition(" ")[2] for name, value in parts.items() if value.count(" ") == 1}
        return {**parts, **words, **dict(self.secrets)}

    def without_secrets(self, url: str) -> str:
        """An address that a server gave, less the secret parameters it echoes; they are added again anyway.

        Other secrets in it have their names in their place; `reveal` puts them back.
        """
        names = {name for name, _ in self.secret_params}
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        left = [pair for pair in pairs if pair[0] not in names and hide(pair[1]) != TOKEN]
        return self.conceal(url if left == pairs else urlunsplit(parts._replace(query=urlencode(left))))

    def conceal(self, text: str) -> str:
        """A text with the names of the secrets that it holds in their place."""
        for name, value in self.secrets:
            for written in (value, quote(value, safe="")):
                text = text.replace(written, "${" + name + "}")
        return text

    def reveal(self, text: str, *, is_url: bool = True) -> str:
        """What was concealed."""
        values = dict(self.secrets)

        def value_of(match: re.Match[str]) -> str:
            value = values.get(match[1], match[0])
            return quote(value, safe="") if is_url and match.start() and match[1] in values else value

        return SECRET.sub(value_of, text)

    def base(self, url: str) -> str:
        """What relative links in the body of an address start from; it holds no query and no secret."""
        parts = urlsplit(url)
        path = "/" if self._path_is_secret or holds_secret(parts.path) else parts.path
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))

    @property
    def _path_is_secret(self) -> bool:
        """Whether the declared path names a secret, or one stands for an address with a path."""
        leading = SECRET.match(self.shown)
        return "${" in self.shown.removeprefix("${") or bool(leading and leading[1] in dict(self.secrets))


def target_of(request: Request, secrets: dict[str, str], interval: float = 0.0) -> PreparedRequest:
    """A declared request with the secrets it names. What holds a secret is kept apart from what does not."""
    hidden = {name: value for name, value in secrets.items() if len(value) >= SHORTEST and not _is_origin(value)}
    headers, secret_headers = _split(request.headers, secrets)
    written = {name: _written(value) for name, value in request.params.items()}
    url, in_url = _without_secret_query(request.url)
    params, secret_params = _split({**in_url, **written}, secrets)
    auth = request.auth
    if isinstance(auth, HeaderAuth):
        secret_headers[auth.name] = fill(auth.value, secrets)
    elif isinstance(auth, BearerAuth):
        secret_headers["Authorization"] = "Bearer " + fill(auth.token, secrets)
    elif isinstance(auth, BasicAuth):
        secret_headers["Authorization"] = basic(fill(auth.username, secrets), fill(auth.password, secrets))
    elif isinstance(auth, QueryAuth):
        secret_params[auth.name] = fill(auth.value, secrets)
    return PreparedRequest(
        url=fill(url, secrets),
        shown=request.url.partition("?")[0],
        params=tuple(params.items()),
        headers=headers,
        secret_headers=secret_headers,
        secret_params=tuple(secret_params.items()),
        body=None if request.body is None else fill_all(request.body, secrets),
        grant=_grant(auth, secrets) if isinstance(auth, ClientCredentials) else None,
        interval=interval,
        secrets=tuple(sorted(hidden.items(), key=lambda secret: -len(secret[1]))),
    )


def _is_origin(value: str) -> bool:
    """Whether a value is where a service is, and no more."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and not (parts.path.strip("/") or parts.query or "@" in parts.netloc)


def _without_secret_query(url: str) -> tuple[str, dict[str, str]]:
    """A declared address less the query parameters that name a secret, and those."""
    address, mark, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    secret = {name: value for name, value in pairs if "${" in value}
    if not secret:
        return url, {}
    return address + mark + urlencode([pair for pair in pairs if pair[0] not in secret]), secret


def basic(username: str, password: str) -> str:
    """The value of an `Authorization` header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _grant(auth: ClientCredentials, secrets: dict[str, str]) -> Grant:
    params = {name: fill(value, secrets) for name, value in auth.params.items()}
    if auth.scope is not None:
        params["scope"] = fill(auth.scope, secrets)
    return Grant(
        url=fill(auth.token_url, secrets),
        shown=auth.token_url.partition("?")[0],
        client_id=fill(auth.client_id, secrets),
        client_secret=fill(auth.client_secret, secrets),
        params=tuple(params.items()),
        in_body=auth.send == "body",
    )


def _split(values: dict[str, str], secrets: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    plain = {name: value for name, value in values.items() if fill(value, secrets) == value}
    secret = {name: fill(value, secrets) for name, value in values.items() if name not in plain}
    return plain, secret


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
