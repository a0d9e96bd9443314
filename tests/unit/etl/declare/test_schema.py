"""The JSON Schema of the sources file: as generated, and of one mind with the code that validates."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from config.settings import PROJECT
from etl.declare.catalog import DEFAULTABLE, load_catalog
from etl.declare.schema import FILE, sources_schema, text
from etl.declare.source import parse
from etl.errors import ConfigError
from etl.item import TARGETS

SCHEMA = sources_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

API: dict[str, Any] = {"name": "a", "type": "api", "request": {"url": "https://x/y"}}
CSV: dict[str, Any] = {"name": "a", "type": "csv", "file": "x.csv"}
RSS: dict[str, Any] = {"name": "a", "type": "rss", "request": {"url": "${BASE}/feed"}}

COMMON: dict[str, Any] = {
    "tags": ["finance"],
    "enabled": False,
    "schedule": {"every": "30m", "timezone": "UTC", "jitter": "60s"},
    "timeout": "500ms",
    "rate": "10/m",
    "honour_cache": False,
    "where": "a != 'b'",
    "map": {"external_id": "sku", "title": "a.b"},
    "ignore": ["seen"],
    "identity": ["a", "b"],
    "identity_change": True,
    "timezone": "Europe/Berlin",
    "timezone_names": {"IST": "Asia/Kolkata"},
    "dates": ["%d.%m.%Y"],
    "numbers": {"decimal": ",", "thousands": " ", "percent": "fraction"},
    "nulls": ["N/A"],
    "max_rejected": 12.5,
    "drift": "fail",
    "expect_every": "2h",
    "expect_rows": "1..9",
    "alert_after": "2h",
    "alert_rejects": 200,
    "max_deleted": {"records": 3},
    "expect": {
        "title": {"required": True, "max_length": 200, "pattern": "^[A-Z]", "actions": {"pattern": "null"}},
        "amount": {"min": 0, "max": 1e6, "action": "fail"},
        "category": {"enum": ["a", "b"], "unique": True},
        "metadata.stock": {"type": "number"},
    },
}
TOKEN = {
    "kind": "oauth2_client_credentials",
    "token_url": "https://x/token",
    "client_id": "i",
    "client_secret": "${S}",
    "scope": "read",
    "params": {"audience": "x"},
    "send": "body",
}
REQUEST: dict[str, Any] = {
    "url": "https://x/y?z=1",
    "params": {"a": 1, "b": "x", "c": 1.5, "d": True},
    "headers": {"Accept": "application/json"},
    "body": {"query": {"x": [1]}},
}
PAGED = {"max_pages": 3, "more": "meta.more", "ends_on": [400, 404]}
PARAMETRISED = {**PAGED, "into": "body", "param": "p"}
INCREMENTAL = {"field": "at", "param": "since", "lookback": "1h", "ahead": "2d", "missing": "fail"}
DIALECT = {
    "delimiter": ";",
    "quote": "'",
    "escape": "\\",
    "skip_space": True,
    "encoding": "cp1252",
    "header": False,
    "skip_lines": 3,
    "comment": "#",
    "ragged": "pad",
    "drop_empty_rows": False,
}

FULL: list[dict[str, Any]] = [
    {**API, **COMMON, "records": "items", "allow_missing": True, "request": REQUEST, "incremental": INCREMENTAL},
    {**API, "schedule": {"cron": "0 6 * * *"}, "identity": "content"},
    {**API, "format": "json", "columns": ["a"], "success": "ok"},
    *({**API, **shape} for shape in ({"header": True}, {"key_as": "id"}, {"columnar": True}, {"single": True})),
    {**API, "format": "ndjson"},
    {**API, "backfill": {"params": {"a": "{from}"}, "body": {"b": ["{to}"]}, "window": "6h", "format": "seconds"}},
    {**CSV, "file": None, "request": REQUEST, "backfill": {"params": {"a": "{from}"}}},
    {
        **API,
        "request": {**REQUEST, "params": {"since": "gt {since}"}},
        "incremental": {"field": "at", "initial": "1970-01-01"},
    },
    *(
        {**API, "request": {**API["request"], "auth": auth}}
        for auth in (
            {"kind": "header", "name": "X-Key", "value": "${K}"},
            {"kind": "query", "name": "key", "value": "${K}"},
            {"kind": "bearer", "token": "${K}"},
            {"kind": "basic", "username": "u", "password": "${K}"},
            TOKEN,
        )
    ),
    *(
        {**API, "paginate": paginate}
        for paginate in (
            {"style": "none"},
            {"style": "page", **PARAMETRISED, "start": 0},
            {
                "style": "offset",
                **PARAMETRISED,
                "start": 5,
                "limit_param": "size",
                "limit": 10,
                "short_page_ends": True,
            },
            {"style": "cursor", "next_header": "X-Next"},
            {"style": "cursor", **PARAMETRISED, "next": "meta.next"},
            {"style": "next_url", **PAGED, "next": "links.next"},
            {"style": "link_header", **PAGED},
        )
    ),
    {**CSV, **COMMON, "mode": "append", "csv": DIALECT},
    {**CSV, "file": None, "request": REQUEST, "mode": "full", "csv": {"skip_footer": 2, "fallback_encoding": None}},
    {**RSS, **COMMON, "entry_id": "guid", "id_form": "resolved", "full_snapshot": True},
]

# What may stand there is decided by more than a pattern: paths, cron lines, zones, codecs, formats, and amounts.
BEYOND = {
    *("records", "more", "next", "field", "cron", "timezone", "encoding", "fallback_encoding", "dates"),
    *("expect_every", "expect_rows", "where", "success", "delimiter", "quote", "escape", "comment"),
    *("every", "timeout", "IST"),
}
# What of one key has to be of one mind with another one's.
BESIDE = {
    "param",
    "initial",
    "params",
    "since",
    "header",
    "key_as",
    "columnar",
    "single",
    "columns",
    "format",
    "records",
}
ODD: tuple[Any, ...] = (None, True, 3, -1, 1.5, "", "?", "30x", [], {}, ["x"], [1], {"x": 1}, {"title": "x"})


def accepted_by_schema(document: Any) -> bool:
    return bool(VALIDATOR.is_valid({"sources": [document]}))


def accepted_by_code(document: Any) -> bool:
    try:
        parse(document)
    except ConfigError:
        return False
    return True


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of a document, as a path."""
    for key, child in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from places(child, (*path, key))


def changed(document: Any, path: tuple[Any, ...], change: Any) -> Any:
    """A copy in which `change` was called with the object that holds a key, and the key."""
    result = copy.deepcopy(document)
    holder = result
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return result


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


def test_the_committed_file_is_the_generated_one() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "`python -m etl.declare.schema` writes it anew"


def test_it_is_a_schema_of_its_draft() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("draft/2020-12/schema")


def test_every_key_is_described_and_no_other_is_allowed() -> None:
    described = [node for node in nodes(SCHEMA) if isinstance(node.get("properties"), dict) and "title" in node]
    assert len(described) > 15
    for node in described:
        assert node["additionalProperties"] is False, node["title"]
        for key, value in node["properties"].items():
            assert value.get("description"), (node["title"], key)


def test_tags_are_constants() -> None:
    constants = {
        (key, node["properties"][key]["const"])
        for node in SCHEMA["$defs"].values()
        for key in ("type", "kind", "style")
        if "const" in node["properties"].get(key, ())
    }
    assert {value for key, value in constants if key == "type"} == {"api", "csv", "rss"}
    assert {value for key, value in constants if key == "kind"} >= {"header", "oauth2_client_credentials"}
    assert {value for key, value in constants if key == "style"} >= {"none", "link_header"}


def test_every_field_of_an_item_may_be_mapped() -> None:
    for kind in ("ApiSource", "CsvSource", "RssSource"):
        mapped = SCHEMA["$defs"][kind]["properties"]["map"]["anyOf"][0]["properties"]
        assert tuple(mapped) == tuple(field.name for field in TARGETS)


def test_the_shipped_file_fits_and_names_the_schema() -> None:
    shipped = (PROJECT / "sources.yaml").read_text(encoding="utf-8")
    assert shipped.splitlines()[0] == f"# yaml-language-server: $schema=./docs/{FILE.name}"
    assert list(VALIDATOR.iter_errors(yaml.safe_load(shipped))) == []


@pytest.mark.parametrize("document", FULL)
def test_good_sources_are_good_to_both(document: dict[str, Any]) -> None:
    assert accepted_by_code(document)
    assert accepted_by_schema(document)


def test_the_good_sources_hold_every_key() -> None:
    held = {path[-1] for document in FULL for path in places(document)}
    known = {key for node in SCHEMA["$defs"].values() for key in node["properties"]}
    assert known <= held


@pytest.mark.parametrize("document", FULL)
def test_both_judge_alike_what_is_missing_unknown_or_odd(document: dict[str, Any]) -> None:
    for path in places(document):
        variants = [
            changed(document, path, lambda holder, key: holder.pop(key)),
            changed(document, path, lambda holder, key: holder.update({key + "_": holder.pop(key)})),
            changed(document, path, lambda holder, key: holder.update({"unknown": 1})),
        ]
        variants += [
            changed(document, path, lambda holder, key, value=value: holder.update({key: value}))
            for value in ODD
            if path[-1] not in BEYOND or not isinstance(value, str | list)
        ]
        is_alone = path[-1] not in BESIDE and "expect" not in path[:-1] and "backfill" not in path
        for variant in variants if is_alone else ():
            assert accepted_by_code(variant) == accepted_by_schema(variant), variant


@pytest.mark.parametrize(
    "document",
    [
        3,
        {**CSV, "type": "xml"},
        {**CSV, "name": "A B"},
        {**CSV, "name": "x" * 101},
        {**CSV, "request": {"url": "http://x"}},
        {**CSV, "fil": "x"},
        {"name": "a", "type": "csv"},
        {"name": "a", "type": "csv", "request": {"url": "http://x"}, "mode": "append"},
        {**CSV, "entry_id": "guid"},
        {**CSV, "schedule": {}},
        {**CSV, "schedule": {"every": "1h", "cron": "0 6 * * *"}},
        {**CSV, "schedule": {"every": "1 hour"}},
        {**CSV, "rate": "0/m"},
        {**CSV, "map": {"titel": "x"}},
        {**CSV, "map": {"title": ""}},
        {**CSV, "identity": []},
        {**CSV, "max_rejected": 101},
        {**CSV, "csv": {"delimiter": "::"}},
        {**RSS, "request": {"url": "ftp://x"}},
        {**RSS, "request": {"url": "https://user@x/y"}},
        {**API, "request": {"url": "http://x", "auth": {"kind": "digest"}}},
        {**API, "request": {"url": "http://x", "auth": {"kind": "bearer", "value": "x"}}},
        {**API, "paginate": {"style": "page", "next": "x"}},
        {**API, "paginate": {"style": "cursor"}},
        {**API, "paginate": {"style": "offset", "limit": 0}},
        {**API, "paginate": {}},
    ],
)
def test_bad_sources_are_bad_to_both(document: Any) -> None:
    assert not accepted_by_schema(document)
    with pytest.raises(ConfigError):
        parse(document)


@pytest.mark.parametrize(
    ("file", "good"),
    [
        ({"sources": []}, True),
        ({"sources": [CSV], "defaults": {}}, True),
        ({"sources": [CSV], "defaults": {"schedule": {"every": "1h"}, "timeout": "9s", "timezone": "UTC"}}, True),
        ({"sources": [CSV], "defaults": {"max_rejected": 10}}, True),
        ({"sources": [CSV], "defaults": {"max_rejected": -1}}, False),
        ({"sources": [CSV], "defaults": {"timeout": "soon"}}, False),
        ({"sources": [CSV], "defaults": {"rate": "1/s"}}, False),
        ({"sources": [CSV], "defaults": None}, False),
        ({"sources": [CSV, 3]}, False),
        ({"sources": {"a": CSV}}, False),
        ({"sources": [CSV], "source": []}, False),
        ({"defaults": {}}, False),
        ([], False),
    ],
)
def test_whole_files_are_judged_alike(tmp_path: Path, file: Any, good: bool) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(file))
    assert VALIDATOR.is_valid(file) == good
    if good:
        load_catalog(path, "30m", lambda _: None)
    else:
        with pytest.raises(ConfigError):
            load_catalog(path, "30m", lambda _: None)


def test_the_defaults_are_those_that_may_be_set() -> None:
    assert tuple(SCHEMA["properties"]["defaults"]["properties"]) == DEFAULTABLE
