"""feedparser's own test feeds, through the process that parses ours. They are fetched by `make test`, not kept here."""

from __future__ import annotations

import os
import re
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from etl import payload
from etl.errors import FormatError, RecordError
from etl.feeds import parser as parser_module
from etl.feeds.parse import Feed, FeedJob
from etl.feeds.parser import FeedParser

ARCHIVE = Path(__file__).parents[2] / ".venv" / "suites" / f"feedparser-{version('feedparser')}.tar.gz"
# Folder -> its feeds.
SIZES = {"wellformed": 1739, "illformed": 19, "encoding": 219, "entities": 256}
CONTENT_TYPE = re.compile(rb"^Header:\s+Content-type:(.+)$", re.MULTILINE | re.IGNORECASE)
# Feeds about which feedparser expects something of an entry.
HAS_ENTRY = re.compile(rb"^Expect:.*entries\[0\]", re.MULTILINE)
OPEN_TAG = re.compile(rb"<[/!\[\w:]*\s*$")
SCRIPTED = ("javascript:", "vbscript:", "data:")

pytestmark = pytest.mark.skipif(
    not ARCHIVE.exists() and "MAKELEVEL" not in os.environ,
    reason=f"{ARCHIVE.name} is not in .venv/suites; `make .venv/suites` fetches it",
)


class Active(HTMLParser):
    """Collects what could run as a script."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "iframe", "object", "embed", "style", "base", "meta"}:
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or re.sub(r"[\s\0]", "", value or "").lower().startswith(SCRIPTED):
                self.found.append(f"{tag} {name}={value}")


def active(markup: str) -> list[str]:
    reader = Active()
    reader.feed(markup)
    reader.close()
    return reader.found


@pytest.fixture(scope="module")
def suite() -> dict[str, bytes]:
    """The feeds by folder and name."""
    with tarfile.open(ARCHIVE) as archive:
        files = {member.name.partition("/tests/")[2]: member for member in archive if member.name.endswith(".xml")}
        opened = {name: archive.extractfile(files[name]) for name in files if name.split("/")[0] in SIZES}
        return {name: file.read() for name, file in opened.items() if file}


@pytest.fixture(scope="module")
def outcomes(suite: dict[str, bytes]) -> Iterator[dict[str, Feed | FormatError]]:
    """What became of each feed, all of them parsed by one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser_module, "MAX_FEEDS", len(suite) + 1)
        parser = FeedParser()
        try:
            yield {name: outcome(parser, body) for name, body in suite.items()}
        finally:
            parser.close()


def outcome(parser: FeedParser, body: bytes) -> Feed | FormatError:
    found = CONTENT_TYPE.search(body)
    content_type = found[1].decode().strip() if found else ""
    try:
        return parser.parse(FeedJob(body, content_type, "http://base.test/feeds/", time.time(), "auto"), lambda: None)
    except FormatError as error:
        return error


@pytest.fixture(scope="module")
def records(outcomes: dict[str, Feed | FormatError]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, entry) for name, feed in outcomes.items() if isinstance(feed, Feed) for entry in feed.entries]


def refused(outcomes: dict[str, Feed | FormatError], code: str) -> set[str]:
    return {name for name, each in outcomes.items() if isinstance(each, FormatError) and each.code == code}


def test_the_suite_is_whole(suite: dict[str, bytes]) -> None:
    folders = [name.split("/")[0] for name in suite]
    assert {folder: folders.count(folder) for folder in SIZES} == SIZES


def test_only_what_is_cut_off_or_no_feed_is_refused(
    suite: dict[str, bytes], outcomes: dict[str, Feed | FormatError]
) -> None:
    """So none crashed its process, or kept it busy for too long."""
    cut_off = {name for name, body in suite.items() if OPEN_TAG.search(body)}
    # CDF is a format of 1997 that feedparser no longer tells from other XML.
    no_feeds = {name for name, body in suite.items() if b"<CHANNEL" in body} | {"illformed/rss_empty_document.xml"}
    assert refused(outcomes, "truncated_feed") == cut_off
    assert refused(outcomes, "not_a_feed") == no_feeds
    assert sum(isinstance(each, FormatError) for each in outcomes.values()) == len(cut_off | no_feeds)


def test_entries_are_found(suite: dict[str, bytes], outcomes: dict[str, Feed | FormatError]) -> None:
    found = {name for name, feed in outcomes.items() if isinstance(feed, Feed) and feed.entries}
    assert sum(name.startswith("wellformed/") for name in found) >= 1150
    expected = {name for name, body in suite.items() if HAS_ENTRY.search(body) and isinstance(outcomes[name], Feed)}
    assert expected - found == set()


def test_no_entry_is_bad(outcomes: dict[str, Feed | FormatError]) -> None:
    assert [name for name, feed in outcomes.items() if isinstance(feed, Feed) and feed.bad] == []


def test_links_lead_to_the_web(records: list[tuple[str, dict[str, Any]]]) -> None:
    links = [
        (name, link)
        for name, record in records
        for link in [
            record.get("link"),
            record.get("image_url"),
            *(each["url"] for each in record.get("enclosures", [])),
        ]
        if link
    ]
    assert len(links) > 100
    assert [(name, link) for name, link in links if not re.match("https?://", link)] == []


def test_markup_cannot_run(records: list[tuple[str, dict[str, Any]]]) -> None:
    texts = [
        (name, record[field])
        for name, record in records
        for field in ("title", "description", "content")
        if field in record
    ]
    assert sum("<" in text for _, text in texts) > 200
    assert [(name, found) for name, text in texts if (found := active(text))] == []


def test_dates_are_plausible(records: list[tuple[str, dict[str, Any]]]) -> None:
    moments = [
        (name, datetime.fromisoformat(record[field]))
        for name, record in records
        for field in ("published", "updated")
        if field in record
    ]
    assert len(moments) > 50
    latest = datetime.now(UTC) + timedelta(days=2)
    assert [
        (name, moment) for name, moment in moments if not datetime(1990, 1, 1, tzinfo=UTC) <= moment <= latest
    ] == []


def test_records_are_stored_or_rejected(records: list[tuple[str, dict[str, Any]]]) -> None:
    for _, record in records:
        with suppress(RecordError):
            assert payload.encode(record)
