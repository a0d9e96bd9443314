"""What to write in a source, told from its first records and answers: a mapping, and a way to more pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from etl.item import EXTERNAL_ID, FIELDS, Kind
from etl.mapping import convert
from etl.mapping.getter import DOTTED
from etl.runs.reasons import unique_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from etl.item import Field

Record = dict[str, Any]
# How deep into a record keys are looked for.
_DEEPEST = 3
_LETTERS = re.compile(r"[^a-z0-9]+")
# Other names that fields are often given.
_ALSO: dict[str, tuple[str, ...]] = {
    "title": ("headline", "subject", "label", "bezeichnung", "titel", "nom"),
    "description": ("body", "text", "content", "abstract", "beschreibung"),
    "category": ("type", "kind", "group", "section", "kategorie"),
    "url": ("href", "website", "permalink", "weburl"),
    "image_url": ("image", "photo", "picture", "icon", "imageurl"),
    "author": ("creator", "by", "writer", "user", "owner"),
    "amount": ("preis", "value", "total", "currentprice"),
    "quantity": ("count", "units", "menge", "available"),
    "rating": ("score", "stars", "magnitude"),
    "tags": ("labels", "topics", "categories"),
    "published_at": ("created", "publishedat", "time", "timestamp", "updated", "updatedat", "lastupdated", "datum"),
}


def suggest_map(records: list[Record], read_time: Callable[[Any], Any]) -> dict[str, str]:
    """For fields of an item the keys or paths that probably hold them: their names fit, and all values can be read."""
    samples = _samples(records)
    found: dict[str, str] = {}
    if ids := unique_keys(records):
        found[EXTERNAL_ID.name] = next((key for key in ids if key in EXTERNAL_ID.usual), ids[0])
    for field in FIELDS:
        read = _readers(read_time)[field.kind]
        path = next((path for path in _named(field, samples) if _fits(samples[path], read)), None)
        if path is not None and path not in found.values():
            found[field.name] = path
    return found


def _samples(records: list[Record]) -> dict[str, list[Any]]:
    """The values that are there, by the paths to them."""
    found: dict[str, list[Any]] = {}
    for record in records:
        for path, value in _leaves(record, "", 1):
            found.setdefault(path, []).append(value)
    return found


def _leaves(record: Record, before: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        path = f"{before}.{key}" if before else key
        if isinstance(value, dict) and depth < _DEEPEST:
            yield from _leaves(value, path, depth + 1)
        elif value is not None and value != "" and (not before or DOTTED.fullmatch(path)):
            yield path, value


def _named(field: Field, samples: Mapping[str, Any]) -> Iterator[str]:
    """The paths that are called as the field is, those that end in its usual names first, and the shortest of them."""
    names = [_plain(name) for name in (field.name, *field.usual, *_ALSO.get(field.name, ()))]
    paths = sorted(samples, key=lambda path: (path.count("."), len(path)))
    for name in names:
        yield from (path for path in paths if _plain(path.rpartition(".")[2]) == name)


def _plain(name: str) -> str:
    return _LETTERS.sub("", name.lower())


def _readers(read_time: Callable[[Any], Any]) -> dict[Kind, Callable[[Any], Any]]:
    return {
        Kind.TEXT: convert.text,
        Kind.ADDRESS: convert.address,
        Kind.NUMBER: convert.number,
        Kind.TAGS: convert.tags,
        Kind.TIME: read_time,
    }


def _fits(values: list[Any], read: Callable[[Any], Any]) -> bool:
    try:
        return all(read(value) is not None for value in values)
    except ValueError:
        return False


def suggest_records(answer: Any) -> str | None:
    """The path to the longest list of objects in an answer, if there is one."""
    if isinstance(answer, list):
        return "@" if answer and isinstance(answer[0], dict) else None
    lists = (
        [(len(value), path) for path, value in _leaves(answer, "", 1) if _is_list_of_records(value)]
        if isinstance(answer, dict)
        else []
    )
    return max(lists)[1] if lists else None


def _is_list_of_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


_NEXT_URL = ("next", "next_url", "nextUrl", "next_page_url", "@odata.nextLink", "nextLink")
_CURSORS = ("next_cursor", "nextCursor", "next_page_token", "nextPageToken", "cursor", "continuation", "after")


def suggest_paging(headers: Mapping[str, str], answer: Any) -> dict[str, str] | None:
    """How the next page is probably come by: what an answer says of it, in its Link header or beside the records."""
    if re.search(r'rel="?next"?', headers.get("link", "")):
        return {"style": "link_header"}
    found = list(_leaves(answer, "", 1)) if isinstance(answer, dict) else []
    for path, value in found:
        name = path if path in _NEXT_URL else path.rpartition(".")[2]
        if name in _NEXT_URL and isinstance(value, str) and value.startswith(("http://", "https://", "/")):
            return {"style": "next_url", "next": path if DOTTED.fullmatch(path) or path.isidentifier() else f'"{path}"'}
    for path, value in found:
        if path.rpartition(".")[2] in _CURSORS and isinstance(value, str | int) and not isinstance(value, bool):
            return {"style": "cursor", "param": path.rpartition(".")[2].removeprefix("next_"), "next": path}
    return None
