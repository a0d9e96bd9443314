"""The JSON Schema of `sources.yaml`, made from the types that validate it: editors check and complete the file by it.

`python -m etl.declare.schema` writes it to `docs/sources.schema.json`. It knows keys, types, choices and patterns;
whether a path, a cron line, a time zone or an encoding makes sense is found out when the file is applied.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from etl.declare.backfill import Backfill
from etl.declare.catalog import DEFAULTABLE
from etl.declare.dialect import Dialect
from etl.declare.expect import Expectation, RejectLimit
from etl.declare.model import Model
from etl.declare.paging import CursorPaging, NextUrlPaging, OffsetPaging, Paged, PagePaging, Parametrised
from etl.declare.request import BasicAuth, BearerAuth, ClientCredentials, HeaderAuth, QueryAuth, Request
from etl.declare.source import (
    AnySource,
    ApiSource,
    CsvSource,
    Incremental,
    RssSource,
    Schedule,
    Source,
    SourcesFile,
)
from etl.declare.values import Numbers
from etl.item import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).resolve().parents[2] / "docs" / "sources.schema.json"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
BY_NAME = "Named as ${NAME}; the environment or .env has it"

# What each key is for. The types themselves say what its text looks like, and the tag of a type is described by it.
MEANING: dict[type[Model], dict[str, str]] = {
    SourcesFile: {
        "sources": "The sources; one that leaves the file is disabled",
        "defaults": "What holds for every source that does not say otherwise",
    },
    Source: {
        "name": "What the source is called; unique in the file",
        "tags": "Words to find it by, and to act on many at once",
        "enabled": "false: it has no schedule, and a run by hand is refused",
        "schedule": "When it is pulled; else as `defaults` say, else every ETL_INTERVAL",
        "timeout": "Total time of one HTTP attempt, at least 100ms; of a download of a CSV file, the longest silence",
        "rate": "How often its host may be asked; the strictest rate of all sources on a host holds for all of them",
        "honour_cache": "Leave out the slots in which the last answer is still fresh, or the feed rests",
        "where": "JMESPath over a record: those for which it is false are no records, and only counted",
        "map": "Field of an item: key of the record, or JMESPath into it; without it the usual names are recognised",
        "ignore": "Top-level keys of a record that do not make it changed",
        "identity": "What makes two records the same one: the mapped external_id, the content, or these keys or paths",
        "identity_change": "true: what identifies the records may change, and every item is stored again",
        "timezone": "The zone of times that name none, such as Europe/Berlin",
        "timezone_names": "Zones by the abbreviation that times have, for those with several meanings",
        "dates": "Formats of times, such as %d.%m.%Y; they win over the usual ones",
        "numbers": "How numbers are written, if not as 1234.5",
        "nulls": "Texts that mean: no value",
        "max_rejected": "Percentage of rejected records above which a run fails, or {records: how many}",
        "drift": "What becomes of records whose shape has changed: told of, quarantined, or the run fails",
        "expect_every": "How long nothing may have been read of it before it is late; else three of its slots",
        "expect_rows": "How many records a complete run meets: 900..1100, 900.. or ..1100; else as it was before",
        "alert_after": "Failed runs in a row, or how long it fails, before somebody is told; else the first is told of",
        "alert_rejects": "Open rejected records above which somebody is told; else 1000",
        "full_snapshot": "true: an item that a complete run does not meet any more is deleted",
        "max_deleted": "Percentage of missing items above which none is deleted, or {records: how many}",
        "expect": "Field of an item, or metadata.KEY: rules on its values, and what becomes of records that break them",
    },
    Expectation: {
        "required": "true: it has a value",
        "type": "Of metadata: what the value is",
        "min": "Its least value: a number, or of published_at a time",
        "max": "Its greatest value",
        "enum": "The values that there are",
        "pattern": "RE2 that is found in the text; write ^ and $ for all of it",
        "max_length": "Characters of a text, members of a list",
        "unique": "true: warn of values that stand in more than one item of the source",
        "action": "Of a record that breaks a rule: reject it, leave the value out (null), or fail the run",
        "actions": "The same for single rules",
    },
    RejectLimit: {"records": "The greatest number that there may be"},
    ApiSource: {
        "request": "The request for the first page",
        "records": "JMESPath to the list of records",
        "format": "json: one document; ndjson: a record on each line",
        "columns": "The records are lists of values, of these columns",
        "header": "true: the records are lists of values, and the first list has the names",
        "key_as": "The records are the values of an object, and their keys go into this field",
        "columnar": "true: an object of lists, each with the values of a column",
        "single": "true: one object is the record",
        "success": "JMESPath into the answer that has to be true; else it is tried again, as after a status of 500",
        "allow_missing": "true: an answer without the list has no records; else it fails the run",
        "paginate": "The way from one page to the next",
        "incremental": "Ask only for what has changed since the last run",
        "backfill": "How a range of the past is asked for, by `POST /backfills`",
    },
    CsvSource: {
        "file": "A file, a folder or a pattern such as exports/*.csv, in a folder of CSV_ROOTS",
        "request": "The request for a file by URL",
        "mode": "full: a file that has changed is read as a whole; append: only what was added to it",
        "csv": "How the file is written",
        "backfill": "How a range of the past is asked for, by `POST /backfills`",
    },
    Backfill: {
        "params": "Added to the query instead of those of the same names, with {from} and {to}",
        "body": "Sent instead of the body of the request",
        "window": "What is asked for at once",
        "format": "How times are written: as %Y-%m-%d, seconds or milliseconds; else ISO 8601",
    },
    RssSource: {
        "request": "The request for the feed",
        "entry_id": "What identifies an entry; auto: the guid, else the link, else a hash of what it says",
        "id_form": "How ids are taken: as they are, or resolved to addresses as older releases did, which sources keep",
    },
    Schedule: {
        "every": "Time between two runs, at least 1s, counted from midnight of 1970-01-01 in UTC",
        "cron": "Five fields: minute, hour, day of the month, month, day of the week",
        "timezone": "The zone of the cron line",
        "jitter": "Each run starts up to this much later than its slot",
    },
    Incremental: {
        "field": "JMESPath in a record to the time or number that grows with every change",
        "param": "The query parameter that takes the highest value seen; else it takes the place of {since}",
        "initial": "What {since} is in the first run; without it what holds {since} is left out",
        "lookback": "Ask from this much earlier",
        "ahead": "A time that lies further ahead of now is a mistake, and does not move the watermark",
        "missing": "What becomes of a record without the field: taken as any other, left out, or the run fails",
    },
    Numbers: {
        "decimal": "Before decimals",
        "thousands": "Between groups of digits; a space stands for any space, an apostrophe for the curved one too",
        "percent": "What 12.5 % is: 12.5 (number) or 0.125 (fraction); else it is refused",
    },
    Dialect: {
        "delimiter": "Between two fields; found out from the first rows by default",
        "quote": "Around fields that hold a delimiter or a line end",
        "escape": "Before a character that is meant as it is, such as \\ in exports of MySQL",
        "skip_space": "true: spaces after a delimiter are no part of the field",
        "encoding": "By default a byte order mark decides, else what the first 64 KiB are",
        "fallback_encoding": "That of lines which are not UTF-8; null: they are quarantined; nothing is guessed",
        "header": "false: the first row is data, and the columns are column_1, column_2, …",
        "skip_lines": "Lines to leave out before the header",
        "skip_footer": "Lines to leave out at the end; blank ones are not counted",
        "comment": "Lines that begin with it are left out",
        "ragged": "Rows without their last fields: filled up, or quarantined; by default filled up with a warning",
        "drop_empty_rows": "false: rows of empty fields are records",
    },
    Request: {
        "url": "Where to",
        "params": "Added to the query",
        "headers": "Sent along",
        "body": "Sent as JSON, which makes the request a POST; it must be one that only reads",
        "auth": "As whom",
    },
    HeaderAuth: {"name": "The header", "value": BY_NAME},
    QueryAuth: {"name": "The parameter", "value": BY_NAME},
    BearerAuth: {"token": BY_NAME},
    BasicAuth: {"username": "The user", "password": BY_NAME},
    ClientCredentials: {
        "token_url": "Where tokens are issued",
        "client_id": "The client's id",
        "client_secret": BY_NAME,
        "scope": "What the token is to be good for",
        "params": "Added to the token request, such as an audience",
        "send": "Where id and secret stand: in an HTTP basic header, or in the form",
    },
    Paged: {
        "more": "JMESPath into the answer: a false value ends the paging",
        "ends_on": "Statuses that say, after the first page, that there is none any more",
    },
    Parametrised: {"into": "Where the parameter goes; by default into the body if the request has one"},
    PagePaging: {
        "param": "The parameter that takes the number of the page; a dotted path in a body",
        "start": "The number of the first page",
    },
    OffsetPaging: {
        "param": "The parameter that takes the number of records to leave out; a dotted path in a body",
        "start": "The first offset",
        "limit_param": "The parameter that takes the size of a page; a dotted path in a body",
        "limit": "The size of a page",
        "short_page_ends": "true: a page with fewer records than the limit is the last",
    },
    CursorPaging: {
        "next": "JMESPath into the answer to the value that leads to the next page; without one the paging ends",
        "next_header": "The header that has the value",
        "param": "The parameter that takes the value; a dotted path in a body",
    },
    NextUrlPaging: {"next": "JMESPath into the answer to the address of the next page; without one the paging ends"},
}


def sources_schema() -> dict[str, Any]:
    """The schema of the whole file."""
    (_, entries), parts = msgspec.json.schema_components([SourcesFile, list[AnySource]])
    kinds = {kind.__name__: kind for kind in _below(Model)}
    for name, part in parts.items():
        _describe(part, kinds[name])
    for kind in (ApiSource, CsvSource, RssSource):
        _add_rules_of_sources(parts[kind.__name__]["properties"])
    parts["Schedule"] |= _exactly_one("every", "cron")
    parts["CursorPaging"] |= _exactly_one("next", "next_header")
    parts["CsvSource"] |= _exactly_one("file", "request") | _APPEND
    file = parts.pop("SourcesFile")
    properties = file["properties"]
    properties["sources"]["items"] = _flat(entries["items"])
    common = parts["ApiSource"]["properties"]
    properties["defaults"] |= {"properties": {key: common[key] for key in DEFAULTABLE}, "additionalProperties": False}
    return {"$schema": DRAFT, **file, "title": "sources.yaml", "$defs": parts}


def text() -> str:
    """The schema as it stands in the file."""
    return json.dumps(sources_schema(), indent=2, ensure_ascii=False) + "\n"


def _below(kind: type[Model]) -> Iterator[type[Model]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def _describe(part: dict[str, Any], kind: type[Model]) -> None:
    """Say what a type and its keys are for."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in (kind.__doc__ or "").split("\n\n")]
    part["description"] = "\n\n".join(paragraphs)
    for key, value in part["properties"].items():
        if key == kind.__struct_config__.tag_field:
            part["properties"][key] = {"description": paragraphs[0], "const": value["enum"][0]}
        else:
            part["properties"][key] = _described(_flat(value), _meaning(kind, key))


def _described(schema: dict[str, Any], meaning: str | None) -> dict[str, Any]:
    """The meaning of a key first, then what its text looks like, by the word of its type."""
    looks = [option.pop("description", None) for option in (schema, *schema.get("anyOf", ()))]
    return {"description": "; ".join(filter(None, (meaning, *looks))), **schema}


def _meaning(kind: type[Model], key: str) -> str | None:
    return next((MEANING[base][key] for base in kind.__mro__ if key in MEANING.get(base, ())), None)


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """One level of alternatives, without what is OpenAPI's, and without a default that says nothing."""
    left_out = {"discriminator"} | ({"default"} if schema.get("default", ...) is None else set())
    flat = {key: value for key, value in schema.items() if key not in left_out}
    if "anyOf" in flat:
        flat["anyOf"] = [inner for option in flat["anyOf"] for inner in option.get("anyOf", [option])]
    return flat


def _add_rules_of_sources(properties: dict[str, Any]) -> None:
    """The fields that `map` and `expect` may name, and an identity of at least one key."""
    fields = {field.name: {"description": field.meaning, "type": "string", "minLength": 1} for field in TARGETS}
    properties["map"]["anyOf"][0] |= {"properties": fields, "additionalProperties": False}
    properties["identity"]["anyOf"][1]["minItems"] = 1
    names = "|".join(field.name for field in TARGETS)
    properties["expect"]["propertyNames"] = {"pattern": rf"^({names}|metadata\..+)$"}


def _exactly_one(*keys: str) -> dict[str, Any]:
    return {"oneOf": [{"required": [key], "properties": {key: _GIVEN}} for key in keys]}


_GIVEN = {"not": {"type": "null"}}
_APPEND = {
    "if": {"required": ["mode"], "properties": {"mode": {"const": "append"}}},
    "then": {"required": ["file"], "properties": {"file": _GIVEN}},
}


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
