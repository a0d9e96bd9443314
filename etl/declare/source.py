"""What can be declared about a source. These types are the validation: an unknown key or a bad value is refused.

A source document (YAML or JSON) becomes an `ApiSource`, `CsvSource` or `RssSource` through `parse`. Durations are text
such as `30m`; secrets are named `${NAME}` and never resolved here.
"""

from __future__ import annotations

import itertools
import re
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from etl import payload
from etl.declare.backfill import Backfill  # noqa: TC001 -- msgspec reads the annotations
from etl.declare.complaints import explain
from etl.declare.dialect import Dialect
from etl.declare.duration import seconds
from etl.declare.expect import Expectation, RejectLimit, check_expectations, rows_of
from etl.declare.model import Duration, Model, Name, Rate, Tag, check_cron, check_path, check_tags, zone
from etl.declare.paging import LinkPaging, NextUrlPaging, NoPaging, Paging
from etl.declare.paths import complaint
from etl.declare.request import SECRET, Request
from etl.declare.values import Abbreviation, Numbers, Place  # noqa: TC001 -- msgspec reads the annotations
from etl.errors import ConfigError
from etl.item import TARGETS
from etl.times import Moment

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_TARGETS = tuple(field.name for field in TARGETS)
# The lease and the time limit of a task lie above it: seconds.
LONGEST_TIMEOUT = 600.0
# What decides how a record is mapped: a change makes a new mapping version.
MAPPING_KEYS = ("type", "map", "identity", "timezone", "timezone_names", "dates", "numbers", "nulls", "id_form")
# What decides which records fit: a change makes a new mapping version too, under which nothing counts as changed.
CONTRACT_KEYS = ("expect",)
# Settings that a resume position does not depend on.
_POLICY_KEYS = (
    *("tags", "enabled", "schedule", "timeout", "rate", "honour_cache", "max_rejected", "max_deleted"),
    *("identity_change", "expect", "drift", "expect_every", "expect_rows", "backfill", "alert_after", "alert_rejects"),
    *("map", "dates", "timezone", "timezone_names", "numbers", "nulls", "id_form"),
)


# What the highest value that was seen takes the place of, in a request.
SINCE = "{since}"


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


class Incremental(Model, frozen=True):
    """Ask only for what changed: the highest `field` seen, less `lookback`, goes out as `param`.

    Or it takes the place of `{since}` in the parameters or the body of the request; the first run asks from `initial`.
    `missing` says what becomes of a record without the field: it is taken as any other, left out, or it fails the run.
    """

    field: str
    param: str | None = None
    initial: str | None = None
    lookback: Duration = "0s"
    ahead: Duration = "1d"
    missing: Literal["include", "exclude", "fail"] = "include"

    def __post_init__(self) -> None:
        check_path(self.field, "field")


class Source(Model, frozen=True, kw_only=True, tag_field="type"):
    """What all sources have in common."""

    name: Name
    tags: list[Tag] = []
    enabled: bool = True
    schedule: Schedule | None = None
    timeout: Duration = "30s"
    rate: Rate | None = None
    honour_cache: bool = True
    where: str | None = None
    map: dict[str, str] | None = None
    ignore: list[str] = []
    identity: Literal["external_id", "content"] | list[str] = "external_id"
    identity_change: bool = False
    timezone: str = "UTC"
    timezone_names: dict[Abbreviation, Place] = {}
    dates: list[str] = []
    numbers: Numbers | None = None
    nulls: list[str] = []
    max_rejected: Annotated[float, Meta(ge=0, le=100)] | RejectLimit = 50
    full_snapshot: bool = False
    max_deleted: Annotated[float, Meta(ge=0, le=100)] | RejectLimit = 10
    expect: dict[str, Expectation] = {}
    drift: Literal["report", "quarantine", "fail"] = "report"
    expect_every: Duration | None = None
    expect_rows: str | None = None
    alert_after: Annotated[int, Meta(ge=1, le=1000)] | Duration | None = None
    alert_rejects: Annotated[int, Meta(ge=0, le=1_000_000_000)] | None = None

    def __post_init__(self) -> None:
        zone(self.timezone)
        check_tags(self.tags)
        for target, mapped in (self.map or {}).items():
            if target not in _TARGETS:
                raise ValueError(f"`map.{target}` is not a field of an item; there are {', '.join(_TARGETS)}")
            if not mapped:
                raise ValueError(f"`map.{target}` is empty")
        if self.where is not None:
            check_path(self.where, "where")
        if self.identity == []:
            raise ValueError("`identity` is an empty list")
        for name, place in self.timezone_names.items():
            zone(place, f"timezone_names.{name}")
        for pattern in self.dates:
            _check_format(pattern)
        self._check_expected()
        if not 0.1 <= seconds(self.timeout) <= LONGEST_TIMEOUT:
            raise ValueError("`timeout` must be between 100ms and 10m")

    def _check_expected(self) -> None:
        check_expectations(self.expect, times_of(self))
        if self.expect_rows is not None:
            rows_of(self.expect_rows)
        if self.expect_every is not None and seconds(self.expect_every) < 1:
            raise ValueError("`expect_every` must be at least 1s")

    @property
    def kind(self) -> str:
        """`api`, `csv` or `rss`."""
        return str(self.__struct_config__.tag)


class ApiSource(Source, frozen=True, kw_only=True, tag_field="type", tag="api"):
    """A REST API that answers JSON."""

    request: Request
    records: str = "@"
    format: Literal["json", "ndjson"] = "json"
    columns: list[str] | None = None
    header: bool = False
    key_as: str | None = None
    columnar: bool = False
    single: bool = False
    success: str | None = None
    allow_missing: bool = False
    paginate: Paging = NoPaging()
    incremental: Incremental | None = None
    backfill: Backfill | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_path(self.records, "records")
        if self.success is not None:
            check_path(self.success, "success")
        self._check_shape()
        self._check_since()
        if self.full_snapshot and self.backfill is not None:
            raise ValueError("`backfill`: with `full_snapshot` what is not in the source now is deleted")
        if self.full_snapshot and self.incremental is not None:
            raise ValueError("`full_snapshot`: with `incremental` only a part of the source is read")
        if isinstance(self.paginate, NextUrlPaging | LinkPaging) and "${" in self.request.url.partition("?")[0][2:]:
            raise ValueError("`request.url`: a secret in the path would be stored with the addresses of the next pages")

    def _check_shape(self) -> None:
        shapes = {"header": self.header, "key_as": self.key_as, "columnar": self.columnar, "single": self.single}
        given = [key for key, value in {"columns": self.columns, **shapes}.items() if value]
        if self.columns == []:
            raise ValueError("`columns` is an empty list")
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}`: the records have one shape")
        if self.format != "ndjson":
            return
        beside = [*given, *(["records"] if self.records != "@" else []), *(["success"] if self.success else [])]
        if isinstance(self.paginate, NextUrlPaging) or getattr(self.paginate, "next", None):
            beside.append("paginate.next")
        if getattr(self.paginate, "more", None):
            beside.append("paginate.more")
        if beside:
            raise ValueError(f"`{beside[0]}`: each line of `format: ndjson` is a record, and there is nothing else")

    def _check_since(self) -> None:
        if self.incremental is None:
            return
        written = payload.encode([self.request.params, self.request.body]).decode()
        if (SINCE in written) == (self.incremental.param is not None):
            raise ValueError(f"`incremental`: either `param`, or {SINCE} in `request.params` or `request.body`")
        if self.incremental.initial is not None and self.incremental.param is not None:
            raise ValueError(f"`incremental.initial` is for {SINCE}; with `param` the first run sends none")


class CsvSource(Source, frozen=True, kw_only=True, tag_field="type", tag="csv"):
    """CSV files on disk, or one by URL.

    `file` is a path, a folder or a pattern such as `exports/*.csv`. Mode `append` reads only what was added to a file
    since the last run.
    """

    file: str | None = None
    request: Request | None = None
    mode: Literal["full", "append"] = "full"
    csv: Dialect = Dialect()
    backfill: Backfill | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.file is None) == (self.request is None):
            raise ValueError("exactly one of `file` and `request` is needed")
        if self.mode == "append" and self.file is None:
            raise ValueError("`mode`: only a `file` can be read in mode append")
        if self.backfill is not None and (self.request is None or self.full_snapshot):
            raise ValueError("`backfill`: only of a `request`, and not with `full_snapshot`")
        if self.mode == "append" and self.full_snapshot:
            raise ValueError("`full_snapshot`: in mode append only what was added is read")
        if self.mode == "append" and self.csv.skip_footer:
            raise ValueError("`csv.skip_footer`: a file that grows, as in mode append, has no footer")


class RssSource(Source, frozen=True, kw_only=True, tag_field="type", tag="rss"):
    """An RSS or Atom feed.

    `entry_id` says what identifies an entry: its guid, its link, a hash of what it says, or the first of these that it
    has. `id_form` is how ids are taken: as they are, or made absolute addresses as releases before 1.0 did; a source
    keeps the form that it began with.
    """

    request: Request
    entry_id: Literal["auto", "guid", "link", "hash"] = "auto"
    id_form: Literal["plain", "resolved"] | None = None


AnySource = ApiSource | CsvSource | RssSource
# Orders of items have an index for each of them: a new one needs its own.
SOURCE_TYPES = tuple(str(kind.__struct_config__.tag) for kind in get_args(AnySource))


class SourcesFile(Model, frozen=True):
    """`sources.yaml` as a whole; its sources are checked one by one, so that an error can name its source."""

    sources: list[dict[str, Any]]
    defaults: dict[str, Any] | UnsetType = UNSET


def parse(document: dict[str, Any]) -> AnySource:
    """Validate one source document.

    Raises:
        ConfigError: names the key that is wrong.
    """
    if wrong := _unstorable(document, ""):
        raise ConfigError(wrong)
    try:
        source: AnySource = msgspec.convert(document, type=AnySource)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(error)) from error
    return source


def _unstorable(value: Any, path: str) -> str | None:
    """What no table can hold: NUL in a text or a key, and numbers without end."""
    if isinstance(value, str):
        return f"`{path}`: holds the character NUL" if "\0" in value else None
    if isinstance(value, float):
        return None if isfinite(value) else f"`{path}`: {value} is no number"
    if isinstance(value, dict):
        keys = (_unstorable(key, path or "the document") for key in value)
        found = (_unstorable(child, f"{path}.{key}" if path else str(key)) for key, child in value.items())
        return next(filter(None, itertools.chain(keys, found)), None)
    parts = value if isinstance(value, list) else ()
    return next(filter(None, (_unstorable(child, path) for child in parts)), None)


def dump(source: AnySource) -> dict[str, Any]:
    """The document of a source, defaults left out."""
    document = msgspec.to_builtins(source)
    assert isinstance(document, dict)
    return document


def secrets_of(source: AnySource) -> list[str]:
    """The names of the secrets that the requests of a source refer to; nowhere else are they filled in."""
    document = dump(source)
    written = payload.encode([document.get("request"), document.get("backfill")]).decode()
    return list(dict.fromkeys(SECRET.findall(written)))


def fingerprint(source: AnySource) -> str:
    """Changes when cursors and validators of this source lose their meaning."""
    document = {key: value for key, value in dump(source).items() if key not in _POLICY_KEYS}
    return payload.digest(payload.encode(document)).hex()


def mapping_of(document: dict[str, Any]) -> dict[str, Any]:
    """The part of a document that decides how its records are mapped."""
    return {key: document.get(key) for key in MAPPING_KEYS}


def contract_of(document: dict[str, Any]) -> dict[str, Any]:
    """The part of a document that decides which of its records fit."""
    return {key: document.get(key) for key in CONTRACT_KEYS}


def identity_of(document: dict[str, Any]) -> dict[str, Any]:
    """The keys that decide what identifies the records of a document, and their values."""
    return {
        "type": document.get("type"),
        "identity": document.get("identity", "external_id"),
        # Unmapped, `id` is the first of the usual names.
        "map.external_id": (document.get("map") or {}).get("external_id", "id"),
        "records": document.get("records", "@"),
        "entry_id": document.get("entry_id", "auto"),
    }


def doubts(source: AnySource) -> list[str]:
    """What of a valid source is probably not meant so. A key of a record may be written any way, so it is no error."""
    if not isinstance(source, ApiSource):
        return []
    named = [(f"map.{target}", text) for target, text in (source.map or {}).items()]
    named += [("identity", text) for text in source.identity] if isinstance(source.identity, list) else []
    found = ((key, complaint(text)) for key, text in named if not _PLAIN_KEY.fullmatch(text))
    return [f"`{key}`: {wrong}; it is taken for the name of a key" for key, wrong in found if wrong]


def times_of(source: Source) -> Moment:
    """How the times of a source are read."""
    names = {name.upper(): zone(place) for name, place in source.timezone_names.items()}
    return Moment(zone(source.timezone), tuple(source.dates), names)


def zone_of(source: Source) -> ZoneInfo:
    """The zone of times that name none."""
    return zone(source.timezone)


# A key with a name space, as `dc:title`, or with spaces.
_PLAIN_KEY = re.compile(r"[\w:/ -]+")


def _check_format(pattern: str) -> None:
    """Refuse what is not a format of dates: it must read what it writes."""
    moment = datetime(2000, 1, 1, 3, 4, 5)  # noqa: DTZ001 -- only tries the pattern
    given, pattern = pattern, pattern.removesuffix("%Z").rstrip()
    if "%Z" in pattern:
        raise ValueError(f"`dates`: {given!r}: the name of a zone, %Z, can only stand at the end")
    try:
        read = datetime.strptime(moment.strftime(pattern), pattern)  # noqa: DTZ007 -- the same
    except ValueError as error:
        raise ValueError(f"`dates`: {pattern!r} is not a format of dates: {error}") from error
    if read.date() != moment.date():
        raise ValueError(f"`dates`: {pattern!r} holds no date; one is written such as %d.%m.%Y")
