"""A declared HTTP request: where to, with what, and as whom. Secrets are named `${NAME}` and never resolved here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from etl.declare.model import Model, Scalar, Url

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_address(url: str, key: str) -> None:
    """Refuse what no client can call, such as a host with one bracket, or a port that there is not."""
    try:
        _ = urlsplit(url).port if "$" not in url.partition("://")[2].partition("/")[0] else None
    except ValueError as error:
        raise ValueError(f"`{key}`: {url!r} is no address: {error}") from error


SECRET = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class HeaderAuth(Model, frozen=True, tag_field="kind", tag="header"):
    """A key in a request header."""

    name: str
    value: str


class QueryAuth(Model, frozen=True, tag_field="kind", tag="query"):
    """A key in the query string."""

    name: str
    value: str


class BearerAuth(Model, frozen=True, tag_field="kind", tag="bearer"):
    """`Authorization: Bearer …`."""

    token: str


class BasicAuth(Model, frozen=True, tag_field="kind", tag="basic"):
    """HTTP basic authentication."""

    username: str
    password: str


class ClientCredentials(Model, frozen=True, tag_field="kind", tag="oauth2_client_credentials"):
    """An OAuth2 token, got with a client id and secret, and renewed before it expires.

    `params` go into the token request, such as an `audience`; `send` says where the client's id and secret stand.
    """

    token_url: Url
    client_id: str
    client_secret: str
    scope: str | None = None
    params: dict[str, str] = {}
    send: Literal["header", "body"] = "header"

    def __post_init__(self) -> None:
        check_address(self.token_url, "auth.token_url")


Auth = HeaderAuth | QueryAuth | BearerAuth | BasicAuth | ClientCredentials


class Request(Model, frozen=True):
    """The request that gives the first page. With a `body` it is a POST of JSON, which must only read."""

    url: Url
    params: dict[str, Scalar] = {}
    headers: dict[str, str] = {}
    body: dict[str, Any] | None = None
    auth: Auth | None = None

    def __post_init__(self) -> None:
        check_address(self.url, "request.url")


def fill(text: str, secrets: Mapping[str, str]) -> str:
    """Put the secrets into a text that names them."""
    return SECRET.sub(lambda match: secrets[match[1]], text)


def fill_all(value: Any, secrets: dict[str, str]) -> Any:
    """Put the secrets into every text of a document."""
    if isinstance(value, str):
        return fill(value, secrets)
    if isinstance(value, dict):
        return {key: fill_all(child, secrets) for key, child in value.items()}
    return [fill_all(child, secrets) for child in value] if isinstance(value, list) else value
