"""What can be declared about a source. These types are the validation: an unknown key or a bad value is refused.

A source document (YAML or JSON) becomes an `ApiSource`, `CsvSource` or `RssSource` through `parse`. Durations are text
such as `30m`; secrets are named `${NAME}` and never resolved here.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import UNSET, Meta, Struct, UnsetType

from etl import payload
from etl.duration import PATTERN, seconds
from etl.errors import ConfigError
from etl.paths import path

Name = Annotated[str, Meta(pattern="^[a-z0-9_]{1,100}$")]
Duration = Annotated[str, Meta(pattern=PATTERN, description="a number and a unit: 500ms, 30s, 30m, 1h, 7d")]
Url = Annotated[
    str,
    Meta(
        pattern=r"^(https?://[^/@]+|\$\{[A-Za-z_][A-Za-z0-9_]*\})(/.*)?$",
        description="http or https, without user info; may start with ${NAME}",
    ),
]
Scalar = str | int | float | bool

_SECRET = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

# What decides how a record is mapped: a change makes a new mapping version.
MAPPING_KEYS = ("type", "map", "identity", "timezone", "dates")
# Settings that a resume position does not depend on.
_POLICY_KEYS = ("enabled", "schedule", "timeout", "max_rejected", "identity_change", "map", "dates", "timezone")


class Model(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all declared things."""


class Schedule(Model, frozen=True):
    """When a source is pulled: every so often, or by a cron line in a time zone."""

    every: Duration | None = None
    cron: str | None = None
    timezone: str = "UTC"
    jitter: Duration = "0s"

    def __post_init__(self) -> None:
        if (self.every is None) == (self.cron is None):
            raise ValueError("exactly one of `every` and `cron` is needed")
        if self.every is not None and seconds(self.every) < 1:
            raise ValueError("`every` must be at least 1s")
        zone(self.timezone)
        if self.cron is not None:
            check_cron(self.cron)


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


Auth = HeaderAuth | QueryAuth | BearerAuth | BasicAuth


class Request(Model, frozen=True):
    """The request that gives the first page."""

    url: Url
    params: dict[str, Scalar] = {}
    headers: dict[str, str] = {}
    auth: Auth | None = None


class NoPaging(Model, frozen=True, tag_field="style", tag="none"):
    """One request gives all."""


class PagePaging(Model, frozen=True, tag_field="style", tag="page"):
    """`?page=1`, `?page=2`, … until a page is empty."""

    param: str = "page"
    start: int = 1
    max_pages: Annotated[int, Meta(ge=1)] = 1000


class OffsetPaging(Model, frozen=True, tag_field="style", tag="offset"):
    """`?offset=0`, `?offset=N`, … until a page is empty."""

    param: str = "offset"
    start: int = 0
    limit_param: str = "limit"
    limit: Annotated[int, Meta(ge=1)] = 100
    max_pages: Annotated[int, Meta(ge=1)] = 1000


class CursorPaging(Model, frozen=True, tag_field="style", tag="cursor"):
    """The body names the value that leads to the next page, at the JMESPath `next`."""

    next: str
    param: str = "cursor"
    max_pages: Annotated[int, Meta(ge=1)] = 1000

    def __post_init__(self) -> None:
        check_path(self.next, "next")


class NextUrlPaging(Model, frozen=True, tag_field="style", tag="next_url"):
    """The body holds the address of the next page, at the JMESPath `next`."""

    next: str = "next"
    max_pages: Annotated[int, Meta(ge=1)] = 1000

    def __post_init__(self) -> None:
        check_path(self.next, "next")


class LinkPaging(Model, frozen=True, tag_field="style", tag="link_header"):
    """The `Link` header holds the address of the next page, with `rel="next"`."""

    max_pages: Annotated[int, Meta(ge=1)] = 1000


Paging = NoPaging | PagePaging | OffsetPaging | CursorPaging | NextUrlPaging | LinkPaging


class Incremental(Model, frozen=True):
    """Ask only for what changed: the highest `field` seen, less `lookback`, goes out as `param`."""

    field: str
    param: str
    lookback: Duration = "0s"

    def __post_init__(self) -> None:
        check_path(self.field, "field")


class Dialect(Model, frozen=True):
    """How a CSV file is written."""

    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    quote: Annotated[str, Meta(min_length=1, max_length=1)] = '"'
    encoding: str = "utf-8"
    header: bool = True

    def __post_init__(self) -> None:
        try:
            "a".encode(self.encoding)
        except LookupError as error:
            raise ValueError(f"unknown encoding {self.encoding!r}") from error


class Source(Model, frozen=True, kw_only=True, tag_field="type"):
    """What all sources have in common."""

    name: Name
    enabled: bool = True
    schedule: Schedule | None = None
    timeout: Duration = "30s"
    map: dict[str, str] | None = None
    ignore: list[str] = []
    identity: Literal["external_id", "content"] | list[str] = "external_id"
    identity_change: bool = False
    timezone: str = "UTC"
    dates: list[str] = []
    max_rejected: Annotated[float, Meta(ge=0, le=100)] = 50

    def __post_init__(self) -> None:
        zone(self.timezone)
        for target, mapped in (self.map or {}).items():
            if target not in TARGETS:
                raise ValueError(f"`map.{target}` is not a field of an item; there are {', '.join(TARGETS)}")
            if not mapped:
                raise ValueError(f"`map.{target}` is empty")
        if self.identity == []:
            raise ValueError("`identity` is an empty list")
        for pattern in self.dates:
            datetime(2000, 1, 2, 3, 4, 5).strftime(pattern)  # noqa: DTZ001 -- only tries the pattern
        if seconds(self.timeout) < 0.1:
            raise ValueError("`timeout` must be at least 100ms")

    @property
    def kind(self) -> str:
        """`api`, `csv` or `rss`."""
        return str(self.__struct_config__.tag)


class ApiSource(Source, frozen=True, kw_only=True, tag_field="type", tag="api"):
    """A REST API that answers JSON."""

    request: Request
    records: str = "@"
    paginate: Paging = NoPaging()
    incremental: Incremental | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_path(self.records, "records")


class CsvSource(Source, frozen=True, kw_only=True, tag_field="type", tag="csv"):
    """A CSV file, on disk or by URL."""

    file: str | None = None
    request: Request | None = None
    mode: Literal["full"] = "full"
    csv: Dialect = Dialect()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.file is None) == (self.request is None):
            raise ValueError("exactly one of `file` and `request` is needed")


class RssSource(Source, frozen=True, kw_only=True, tag_field="type", tag="rss"):
    """An RSS or Atom feed."""

    request: Request


AnySource = ApiSource | CsvSource | RssSource

TARGETS = (
    "external_id",
    "title",
    "description",
    "category",
    "url",
    "image_url",
    "author",
    "amount",
    "quantity",
    "rating",
    "tags",
    "published_at",
)


class SourcesFile(Model, frozen=True):
    """`sources.yaml` as a whole; its sources are checked one by one, so that an error can name its source."""

    sources: list[dict[str, Any]]
    defaults: dict[str, Any] | UnsetType = UNSET


def parse(document: dict[str, Any]) -> AnySource:
    """Validate one source document.

    Raises:
        ConfigError: names the key that is wrong.
    """
    try:
        source: AnySource = msgspec.convert(document, type=AnySource)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(error)) from error
    return source


def dump(source: AnySource) -> dict[str, Any]:
    """The document of a source, defaults left out."""
    document = msgspec.to_builtins(source)
    assert isinstance(document, dict)
    return document


def secrets_of(source: AnySource) -> list[str]:
    """The names of the secrets a source refers to, in order of appearance."""
    return list(dict.fromkeys(_SECRET.findall(payload.encode(dump(source)).decode())))


def fill(text: str, secrets: dict[str, str]) -> str:
    """Put the secrets into a text that names them."""
    return _SECRET.sub(lambda match: secrets[match[1]], text)


def fingerprint(source: AnySource) -> str:
    """Changes when cursors and validators of this source lose their meaning."""
    document = {key: value for key, value in dump(source).items() if key not in _POLICY_KEYS}
    return payload.digest(payload.encode(document)).hex()


def mapping_of(document: dict[str, Any]) -> dict[str, Any]:
    """The part of a document that decides how its records are mapped."""
    return {key: document.get(key) for key in MAPPING_KEYS}


def identity_of(document: dict[str, Any]) -> dict[str, Any]:
    """The keys that decide what identifies the records of a document, and their values."""
    return {
        "type": document.get("type"),
        "identity": document.get("identity", "external_id"),
        # Unmapped, `id` is the first of the usual names.
        "map.external_id": (document.get("map") or {}).get("external_id", "id"),
        "records": document.get("records", "@"),
    }


def zone(name: str) -> ZoneInfo:
    """The time zone of this name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"`timezone`: unknown time zone {name!r}") from error


def check_path(text: str, key: str) -> None:
    """Refuse what is not JMESPath, naming the key."""
    try:
        path(text)
    except ValueError as error:
        raise ValueError(f"`{key}`: {error}") from error


def check_cron(line: str) -> None:
    """Refuse what is not a five-field cron line."""
    try:
        next(CronSim(line, datetime(2000, 1, 1)))  # noqa: DTZ001 -- only tries the line
    except CronSimError as error:
        raise ValueError(f"`cron`: {line!r} is not a cron line: {error}") from error
    except StopIteration as error:
        raise ValueError(f"`cron`: {line!r} names a date that never comes") from error


_PATTERNS = {
    "name": "lower-case letters, digits and _, at most 100",
    "url": "an http or https address without user and password",
}


def explain(error: msgspec.ValidationError) -> str:
    """The key first, then what is wrong with it."""
    text, _, path = str(error).partition(" - at `")
    key = path.rstrip("`").removeprefix("$").removeprefix(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text)
    if unknown:
        return f"unknown key `{key + '.' if key else ''}{unknown[1]}`"
    if text.startswith("Expected `str` matching regex"):
        return f"`{key}`: expected {_PATTERNS.get(key.rpartition('.')[2], 'a duration such as 30s, 30m, 1h or 7d')}"
    if key == "type" and text.startswith("Invalid value"):
        return f"`type`: {text}; there are api, csv and rss"
    missing = re.fullmatch(r"Object missing required field `(.*)`", text)
    if missing:
        return f"missing key `{key + '.' if key else ''}{missing[1]}`"
    return f"`{key}`: {text}" if key else text
