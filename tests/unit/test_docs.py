"""The documentation of sources: every key is in it, and its examples are good ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import Struct, inspect

from config.settings import PROJECT
from etl.declare.catalog import load_catalog
from etl.declare.source import AnySource, SourcesFile, parse
from etl.errors import ConfigError

TEXT = (PROJECT / "docs/sources.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
CODE = "\n".join([*EXAMPLES, *re.findall(r"`([^`\n]+)`", PROSE)])
# What an example that shows only some keys is added to.
BARE = (
    {"name": "a", "type": "csv", "file": "a.csv"},
    {"name": "a", "type": "api", "request": {"url": "https://example.com"}},
)


def structs(info: inspect.Type) -> Iterator[inspect.StructType]:
    """The structs that a type is made of."""
    if isinstance(info, inspect.StructType):
        yield info
        for field in info.fields:
            yield from structs(field.type)
    for part in (*getattr(info, "types", ()), *filter(None, [getattr(info, "item_type", None)])):
        yield from structs(part)


KINDS = {info.cls: info for kind in (SourcesFile, AnySource) for info in structs(inspect.type_info(kind))}
FIELDS = sorted({(kind.__name__, name) for kind in KINDS for name in kind.__struct_fields__})


def origin(kind: type[Struct], name: str) -> tuple[str, str]:
    """The struct that a field comes from, and the field."""
    bases = [base for base in kind.__mro__ if issubclass(base, Struct) and base is not Struct]
    return [base.__name__ for base in bases if name in base.__struct_fields__][-1], name


def shown(value: Any, document: Any) -> Iterator[tuple[str, str]]:
    """The fields that a document sets."""
    if not isinstance(value, Struct):
        return
    for name in value.__struct_fields__:
        if name in document:
            yield origin(type(value), name)
            yield from shown(getattr(value, name), document[name])


def documents(example: str) -> list[dict[str, Any]]:
    """The sources of an example, as far as it goes."""
    read = yaml.safe_load(example)
    return read.get("sources") or [read]


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """A whole source with what an example shows."""
    if "name" in document:
        return document
    for bare in BARE:
        try:
            parse({**bare, **document})
        except ConfigError:
            continue
        return {**bare, **document}
    raise AssertionError(f"fits no source: {document}")


def test_the_types_are_found() -> None:
    assert len(KINDS) > 15
    assert ("OffsetPaging", "short_page_ends") in FIELDS
    assert ("ClientCredentials", "send") in FIELDS


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_every_key_is_named(kind: str, name: str) -> None:
    assert re.search(rf"\b{name}\b", CODE), f"`{name}` of {kind}"


def test_every_tag_is_named() -> None:
    tags = {(info.tag_field, info.tag) for info in KINDS.values() if info.tag_field}
    assert len(tags) == 14
    missing = [tag for field, tag in tags if not re.search(rf"`{tag}`|\b{field}: {tag}\b", TEXT)]
    assert missing == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_good(example: str, tmp_path: Path) -> None:
    sources = [completed(document) for document in documents(example)]
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump({"sources": sources}) if "sources:" not in example else example, encoding="utf-8")
    load_catalog(path, "30m", lambda name: name)


def test_every_key_is_in_an_example() -> None:
    sources = [completed(document) for example in EXAMPLES for document in documents(example)]
    found = {field for source in sources for field in shown(parse(source), source)}
    files = [yaml.safe_load(example) for example in EXAMPLES]
    found |= {field for file in files if "sources" in file for field in shown(msgspec.convert(file, SourcesFile), file)}
    assert {origin(kind, name) for kind in KINDS for name in kind.__struct_fields__} - found == set()
