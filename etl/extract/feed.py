"""RSS and Atom feeds: one request, one page."""

from __future__ import annotations

import hashlib
import io
from calendar import timegm
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import feedparser

from etl.errors import FormatError
from etl.records import Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.extract.http import Answer, HttpClient, Target
    from etl.records import Position
    from etl.source import RssSource

# Feed dates outside of these years come from broken clocks and junk text.
_FIRST_YEAR, _LAST_YEAR = 1990, 2100


class FeedExtractor:
    """Reads a whole feed as one page."""

    def __init__(self, source: RssSource, http: HttpClient, target: Target) -> None:
        """`target` is the source's request with its secrets."""
        self._source = source
        self._http = http
        self._target = target

    def pages(self, position: Position) -> Iterator[Page]:
        """The one page of the feed, oldest entry first, so that the newest of a repeated id wins."""
        answer = self._http.get(self._target, self._source.timeout, position.tries)
        entries = [record_of(entry, answer.base) for entry in reversed(parse(answer).entries)]
        validator = hashlib.blake2b(answer.body, digest_size=16).hexdigest()
        yield Page({"at": None}, list(entries), None, validator, len(answer.body))


def parse(answer: Answer) -> Any:
    """Parse a feed.

    Raises:
        FormatError: this is no feed, or it was cut off.
    """
    # No base address: feedparser would make ids depend on where the feed was fetched from.
    headers = {name: answer.headers[name] for name in ("content-type",) if name in answer.headers}
    # Always through BytesIO: given bytes or text, feedparser may open a file or an address that the body names.
    feed = feedparser.parse(io.BytesIO(answer.body), response_headers=headers)
    if not feed.get("version"):
        raise FormatError(f"not a feed; it starts with {answer.body[:80]!r}", code="not_a_feed")
    if feed.bozo and not _closed(answer.body):
        raise FormatError("the feed is cut off before its end", code="truncated_feed")
    return feed


def record_of(entry: Any, base: str) -> dict[str, Any]:
    """An entry as a flat record under the usual names; absent fields are left out, links resolved from `base`."""
    content = entry.get("content") or [{}]
    terms = [tag["term"] for tag in entry.get("tags", []) if tag.get("term")]
    record = {
        "id": entry.get("id") or entry.get("link") or _content_id(entry),
        "title": entry.get("title"),
        "description": entry.get("summary") or content[0].get("value"),
        "content": content[0].get("value"),
        "link": _resolved(entry.get("link"), base),
        "author": entry.get("author"),
        "published": _moment(entry, "published") or _moment(entry, "updated"),
        "published_text": entry.get("published") if "published" in entry else None,
        "updated": _moment(entry, "updated"),
        "category": terms[0] if terms else None,
        "tags": terms or None,
        "image_url": _resolved(_image(entry), base),
        "point": entry.get("where", {}).get("coordinates") if isinstance(entry.get("where"), dict) else None,
    }
    return {name: value for name, value in record.items() if value not in (None, "")}


def _resolved(link: str | None, base: str) -> str | None:
    try:
        return urljoin(base, link) if link else None
    except ValueError:
        return link


def _content_id(entry: Any) -> str:
    """An id for an entry that has neither id nor link."""
    text = f"{entry.get('title', '')}\n{entry.get('published', '')}"
    return "hash:" + hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _moment(entry: Any, name: str) -> str | None:
    # `in` first: feedparser answers a missing `updated` with `published`.
    parsed = entry[f"{name}_parsed"] if f"{name}_parsed" in entry else None  # noqa: SIM401 -- see above
    if parsed is None or not _FIRST_YEAR <= parsed.tm_year <= _LAST_YEAR:
        return None
    return datetime.fromtimestamp(timegm(parsed), UTC).isoformat().replace("+00:00", "Z")


def _image(entry: Any) -> str | None:
    candidates = list(entry.get("media_thumbnail", [])) + [
        link for link in entry.get("links", []) if str(link.get("type", "")).startswith("image/")
    ]
    return next((found for item in candidates if (found := item.get("url") or item.get("href"))), None)


def _closed(body: bytes) -> bool:
    """True when the last thing in a feed is its closing tag."""
    return body.rstrip(b" \t\r\n\x00").lower().endswith((b"</rss>", b"</feed>", b"</rdf:rdf>", b"-->"))
