"""Source documents that are sent: read, checked as a whole, and declared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from flask import request
from werkzeug.exceptions import UnsupportedMediaType

from config.settings import SettingError, is_own
from db.queries.declaring import apply_sources
from etl.declare.catalog import DEEPEST, read_catalog, read_foreign_yaml
from etl.declare.credentials import MISSING, literal_credentials
from etl.declare.duration import written
from etl.declare.revision import Author, Origin
from etl.declare.source import CsvSource, doubts, dump, parse, secrets_of
from etl.errors import ConfigError, StaleVersionError, VersionNeededError
from etl.files.find import check_place
from web.callers import caller
from web.errors import InvalidRequestError
from web.extensions import service
from web.writes import current

if TYPE_CHECKING:
    from config.settings import Settings
    from db.queries.declaring import Applied
    from etl.declare.catalog import Scheduled
    from etl.declare.source import AnySource

MOST_BYTES = 16 * 1024 * 1024
JSON, YAML = "application/json", "application/yaml"
_KINDS = {JSON: JSON, YAML: YAML, "application/x-yaml": YAML, "text/yaml": YAML, "text/x-yaml": YAML}
_KEY = re.compile(r"`([^`]+)`")


def author() -> Author:
    """Who declares sources by this request."""
    return Author(Origin.API, caller().name)


def read_many() -> list[Scheduled]:
    """The sources of a body: JSON or YAML of the form of the sources file.

    Raises:
        InvalidRequestError: names the source and the key.
    """
    kind = _KINDS.get(request.mimetype)
    if kind is None:
        raise UnsupportedMediaType(f"the body must be {JSON} or {YAML}, and say so")
    body = request.get_data(cache=True)
    try:
        document = read_foreign_yaml(body.decode(), "body") if kind == YAML else _json(body)
        return read_all(document)
    except UnicodeDecodeError as error:
        raise InvalidRequestError("body", "", "not UTF-8") from error
    except ConfigError as error:
        raise _invalid(error) from error


def read_one(name: str, document: dict[str, Any]) -> Scheduled:
    """One source by its document, which may leave its name out.

    Raises:
        InvalidRequestError: names the key.
    """
    if document.get("name", name) != name:
        raise InvalidRequestError("body", "name", f"the address names the source {name!r}")
    _check_depth(document)
    try:
        (item,) = read_all({"sources": [{"name": name, **document}]})
    except ConfigError as error:
        raise _invalid(error) from error
    return item


def read_all(document: Any) -> list[Scheduled]:
    """The sources of a document; nothing that only who runs the service may declare is in them.

    Raises:
        ConfigError: names the source and the key.
    """
    settings = service().settings
    items = read_catalog(document, "body", written(settings.etl_interval), lambda name: _secret(settings, name), is_own)
    for item in items:
        if complaint := _complaint(item.source, settings):
            raise ConfigError(f"source {item.source.name!r}: {complaint}")
    return items


def declare(items: list[Scheduled], **options: bool) -> Applied:
    """Declare sources in the transaction of this request.

    Raises:
        InvalidRequestError: one of them cannot be declared so.
        SourceOwnedError, SourceRemovalError: not now, or not here.
    """
    try:
        applied = apply_sources(current().connection, items, author(), **options)
    except ConfigError as error:
        raise _invalid(error) from error
    written = {*applied.created, *applied.changed}
    for item in items:
        lacking = [name for name in secrets_of(item.source) if name.startswith(f"{MISSING}_")]
        if lacking and item.source.name in written:
            message = f"source {item.source.name!r}: {lacking[0]} stands for a credential that was not shown"
            raise InvalidRequestError("body", item.source.name, message)
    return applied


def warnings_of(document: dict[str, Any]) -> list[str]:
    """What is odd about a source that there is."""
    written = [f"`{key}`: a credential is written here, and not shown" for key in literal_credentials(document)]
    return written + doubts(parse(document))


def merged(document: Any, patch: Any) -> Any:
    """A document with a merge patch applied (RFC 7396): null takes a key away, objects are merged."""
    if not isinstance(patch, dict):
        return patch
    base = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = merged(base.get(key), value)
    return base


def check_version(version: int) -> None:
    """Whether the version that is to be changed is the one that there is.

    Raises:
        VersionNeededError: the request does not say which it means.
        StaleVersionError: it is another one.
    """
    if not request.headers.get("If-Match"):
        raise VersionNeededError(f'say which version this changes: If-Match: "{version}", or * for any')
    if not request.if_match.contains(str(version)):
        raise StaleVersionError(f"the source is at version {version} now: read it again")


def _secret(settings: Settings, name: str) -> str | None:
    """What stands for a credential that was not shown may come back as it was."""
    if name.startswith(f"{MISSING}_"):
        return "not shown"
    try:
        return settings.secret(name)
    except SettingError as error:
        raise ConfigError(str(error), code="missing_secret") from error


def _complaint(source: AnySource, settings: Settings) -> str | None:
    if written := literal_credentials(dump(source)):
        return f"`{written[0]}`: a credential is written here; set it in the environment, and name it as ${{NAME}}"
    if isinstance(source, CsvSource) and source.file is not None:
        try:
            check_place(source.file, settings.sources_file.parent, settings.csv_roots)
        except ConfigError as error:
            return f"`file`: {error.message}"
    return None


def _json(body: bytes) -> Any:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ConfigError(f"body: not valid JSON: {error}") from error
    _check_depth(document)
    return document


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [child for one in level for child in _children(one)]
        if not level:
            return
    raise InvalidRequestError("body", "", f"nested deeper than {DEEPEST}")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _invalid(error: ConfigError) -> InvalidRequestError:
    found = _KEY.search(error.message)
    return InvalidRequestError("body", found[1] if found else "", error.message.removeprefix("body: "))
