"""Sources made of a list of addresses: each is previewed, and what can be read is printed as YAML to be applied."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from config.settings import PROJECT
from etl.declare.listing import read_listing
from etl.errors import ConfigError
from etl.trial.child import run_preview
from worker.previewing import RECORDS, SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etl.declare.listing import Listed

MOST_BYTES = 16 * 1024 * 1024
AT_ONCE = 2
_ENDINGS = {".csv": "csv", ".tsv": "csv", ".json": "api", ".xml": "rss", ".rss": "rss", ".atom": "rss"}
_KINDS = ("rss", "api", "csv")


@dataclass(frozen=True)
class Tried:
    """An address with what a preview said of it: a document that can be read, or why there is none."""

    listed: Listed
    document: dict[str, Any] | None
    said: str


def import_list(path: Path) -> Iterator[str]:
    """The lines of a sources file with what a list names; what cannot be read stands there as a comment.

    Raises:
        ConfigError: the list cannot be read, or holds what is no address.
    """
    listed = read_listing(_text(path))
    yield f"# Made of {path.name}: {len(listed)} addresses. Nothing is applied yet.\nsources:"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number, tried in enumerate(pool.map(_try, listed), start=1):
            print(f"{number} of {len(listed)}: {tried.listed.url}: {tried.said}", file=sys.stderr)
            yield _lines(tried)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path}: larger than {MOST_BYTES // 2**20} MiB")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8") from error


def _try(listed: Listed) -> Tried:
    """The first kind of source that finds records there."""
    said = ""
    for kind in _kinds(listed):
        document = _document(listed, kind)
        told = run_preview(PROJECT, document, RECORDS, SECONDS, "--apart")
        error = told.get("error") or told.get("turned_away")
        found = len(told.get("records") or ())
        if error is None and found:
            return Tried(listed, _with_suggestions(document, told), f"{found} records as {kind}")
        said = said or (f"{error['code']}: {error['message']}" if error else "no record was found")
    return Tried(listed, None, said)


def _kinds(listed: Listed) -> tuple[str, ...]:
    if listed.is_feed:
        return ("rss",)
    path = urlsplit(listed.url).path.lower()
    likely = next((kind for ending, kind in _ENDINGS.items() if path.endswith(ending)), _KINDS[0])
    return tuple(dict.fromkeys((likely, *_KINDS)))


def _document(listed: Listed, kind: str) -> dict[str, Any]:
    document: dict[str, Any] = {"name": listed.name, "type": kind, "request": {"url": listed.url}}
    return document | ({"tags": list(listed.tags)} if listed.tags else {})


def _with_suggestions(document: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    if document["type"] == "rss" or not told.get("suggested_map"):
        return document
    return document | {"map": told["suggested_map"]}


def _lines(tried: Tried) -> str:
    about = " ".join(f"{tried.listed.title}: {tried.said}".split())
    if tried.document is None:
        return f"# {tried.listed.url}\n#   not read, {about.removeprefix(': ')[:300]}"
    written = yaml.safe_dump([tried.document], allow_unicode=True, sort_keys=False, width=1000).rstrip()
    return f"# {about.removeprefix(': ')[:300]}\n{written}"
