"""From an entry as feedparser has it to a record."""

from __future__ import annotations

import hashlib
import html
import re
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urljoin, urlsplit
from zoneinfo import ZoneInfo

import msgspec
import nh3

from etl.times import Moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.feeds.parse import FeedJob

# What was published before this year has a broken clock, or a date that was misread.
EARLIEST = 1990
# Feed dates outside of this window come from broken clocks and junk text: seconds ahead of now.
MAX_AHEAD = 2 * 86_400
# What one entry may become: bytes. Links that are made absolute can take far more than the feed.
MAX_ENTRY = 16 * 1024 * 1024
# Characters of an entry that cannot be read which are kept.
_SHOWN = 2000
# Where HTML sees a tag or a comment.
_MARK = re.compile(r"<(?:[a-zA-Z!]|/.)", re.DOTALL)
# What of an entry stands elsewhere in its record, or says nothing of its own.
_TAKEN = frozenset(
    {
        *("id", "guidislink", "title", "summary", "content", "link", "links", "author", "authors", "tags", "where"),
        *("published", "updated", "xml_base"),
    }
)
_DEEPEST = 8

EntryId = Literal["auto", "guid", "link", "hash"]
IdForm = Literal["plain", "resolved"]


class BadEntry(msgspec.Struct, frozen=True):
    """An entry that cannot be read, and the rule that it breaks."""

    raw: str
    message: str
    rule: str = "entry"


class _TooLargeError(ValueError):
    """An entry is larger than any may be."""


class EntryReader:
    """Reads the entries of one feed; `size` is what they have become so far: bytes."""

    def __init__(self, job: FeedJob, prepare: Callable[[Any], dict[str, Any]] = dict) -> None:
        """The job says how ids and times are read; `prepare` gives an entry the shape of feedparser's."""
        self._prepare = prepare
        self._job = job
        names = {name.upper(): ZoneInfo(place) for name, place in job.timezone_names.items()}
        self._read_time = Moment(ZoneInfo(job.timezone), tuple(job.dates), names)
        self._unread = _Tally()
        self._unlikely = _Tally()
        self.size = 0
        self.bad: list[BadEntry] = []

    def read(self, entry: Any) -> dict[str, Any] | None:
        """The record of an entry, None for one that is bad."""
        try:
            # As a plain dictionary: feedparser's own answer for keys that they do not have, and take their time.
            record = self._record(self._prepare(entry))
            size = _size(record)
        except _TooLargeError as error:
            self._refuse(entry, str(error), "too_large")
            return None
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            self._refuse(entry, f"{type(error).__name__}: {error}", "entry")
            return None
        self.size += size
        return record

    def _refuse(self, entry: Any, message: str, rule: str) -> None:
        self.bad.append(BadEntry(_shown(entry), message[:_SHOWN], rule))
        self.size += _SHOWN

    def warnings(self) -> list[str]:
        """What was left out of the entries."""
        found = (
            (self._unread, "cannot be read (`dates` and `timezone_names` may say how)"),
            (self._unlikely, f"lie before {EARLIEST} or in the future"),
        )
        return [
            f"{tally.count} dates {wrong} and were left out, such as {tally.sample!r}"
            for tally, wrong in found
            if tally.count
        ]

    def _record(self, entry: dict[str, Any]) -> dict[str, Any]:
        detail, summary = (entry.get("content") or [{}])[0], entry.get("summary")
        content = self._clean(detail)
        # feedparser fills a missing summary with the content, but says nothing about it.
        is_copy = summary == detail.get("value")
        summary = content if is_copy else self._clean({**entry.get("summary_detail", {}), "value": summary})
        terms = [tag.get("term") for tag in entry.get("tags", []) if tag.get("term")]
        published = self._moment(entry, "published")
        updated = self._moment(entry, "updated")
        place = entry.get("where")
        record = {
            "id": None,
            "title": _text(entry.get("title")),
            "description": summary or content,
            "content": content,
            "link": self._web(entry.get("link")),
            "author": _text(entry.get("author")),
            "authors": _authors(entry.get("authors")),
            "published": published or updated,
            "published_text": entry.get("published"),
            "updated": updated,
            "category": terms[0] if terms else None,
            "tags": terms or None,
            "image_url": self._web(_image(entry)),
            "enclosures": self._enclosures(entry) or None,
            "point": place.get("coordinates") if isinstance(place, dict) else None,
            "extensions": _extensions(entry),
        }
        record["id"] = self._id(entry)
        return {name: value for name, value in record.items() if value not in (None, "")}

    def _id(self, entry: dict[str, Any]) -> str:
        policy, guid, link = self._job.entry_id, entry.get("id"), self._web(entry.get("link"))
        chosen = {"auto": guid or link, "guid": guid, "link": link, "hash": None}[policy]
        if chosen or policy in {"guid", "link"}:
            return str(chosen or "")
        text = f"{entry.get('title', '')}\n{entry.get('published', '')}".encode("utf-8", "replace")
        if self._job.id_form == "plain":
            # As the feed has it: what a record says depends on where from, when and how it was read.
            said = {name: value for name, value in entry.items() if not name.endswith("_parsed")}
            text = msgspec.json.encode(_plain(said, _DEEPEST), order="sorted")
        return "hash:" + hashlib.blake2b(text, digest_size=16).hexdigest()

    def _moment(self, entry: dict[str, Any], name: str) -> str | None:
        written = entry.get(name)
        try:
            moment = self._read_time(written)
        except ValueError:
            self._unread.add(written)
            return None
        if moment is None:
            return None
        if moment.year < EARLIEST or moment.timestamp() > self._job.now + MAX_AHEAD:
            self._unlikely.add(written)
            return None
        return moment.isoformat().replace("+00:00", "Z")

    def _web(self, link: str | None) -> str | None:
        """An absolute address, if it is one of the web: others could run as scripts where they are shown."""
        try:
            url = urljoin(self._job.base, link.strip()) if link else ""
            return url if urlsplit(url).scheme in {"http", "https"} else None
        except ValueError:
            return None

    def _clean(self, detail: dict[str, Any]) -> str | None:
        """HTML without scripts, with absolute links; plain text as it is. Its `base` is the `xml:base` it stands in."""
        markup: str | None = detail.get("value")
        if not markup or not (_MARK.search(markup) or "&" in markup):
            return markup
        base = self._web(detail.get("base"))
        # Each attribute may be a link.
        if len(base or self._job.base) * markup.count("=") > MAX_ENTRY:
            raise _TooLargeError(f"with absolute links the entry may have more than {MAX_ENTRY} bytes")
        try:
            return nh3.clean(markup, url_relative=("rewrite_with_base", base or self._job.base))
        except ValueError:
            # Not every address that Python takes apart is one.
            return nh3.clean(markup, url_relative=("rewrite_with_base", self._job.base))

    def _enclosures(self, entry: dict[str, Any]) -> list[dict[str, str]]:
        enclosed = [link for link in entry.get("links", []) if link.get("rel") == "enclosure"]
        found = [(self._web(item.get("href")), item) for item in enclosed]
        return [
            {"url": url, **{name: str(item[name]) for name in ("type", "length") if item.get(name)}}
            for url, item in found
            if url
        ]


class _Tally:
    """How many there are of something, and the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self.sample = ""

    def add(self, written: object) -> None:
        self.count += 1
        self.sample = self.sample or str(written)[:80]


def _size(record: dict[str, Any]) -> int:
    """How many bytes are sent of a record; what cannot be sent, as half a pair of surrogates, is no text."""
    size = len(msgspec.msgpack.encode(record))
    if size > MAX_ENTRY:
        raise _TooLargeError(f"the entry has {size} bytes, more than {MAX_ENTRY}")
    return size


def _shown(entry: Any) -> str:
    """The beginning of an entry that cannot be read, in a form that can be sent."""
    if not isinstance(entry, dict):
        return repr(entry)[:_SHOWN]
    return repr({name: value[:_SHOWN] if isinstance(value, str) else value for name, value in entry.items()})[:_SHOWN]


def _text(markup: str | None) -> str | None:
    """The words of a title, without tags. What would look like one if it were unescaped stays escaped."""
    if not markup:
        return markup
    escaped = nh3.clean(markup, tags=set()).strip() if _MARK.search(markup) else markup
    words = html.unescape(escaped)
    return escaped if _MARK.search(words) else words


def _image(entry: Any) -> str | None:
    candidates = list(entry.get("media_thumbnail", [])) + [
        link for link in entry.get("links", []) if str(link.get("type", "")).startswith("image/")
    ]
    return next((found for item in candidates if (found := item.get("url") or item.get("href"))), None)


def _authors(found: Any) -> list[dict[str, Any]] | None:
    """All authors, where there are several or more is known of one than its name."""
    people = [{key: str(value) for key, value in dict(one).items() if value} for one in found or [] if one]
    return people if len(people) > 1 or any(one.keys() - {"name"} for one in people) else None


def _extensions(entry: dict[str, Any]) -> dict[str, Any] | None:
    """What modules such as iTunes and Media RSS say of an entry, and links of other kinds, as they are."""
    found = {
        name: plain
        for name, value in entry.items()
        if name not in _TAKEN and not name.endswith(("_parsed", "_detail")) and (plain := _plain(value, _DEEPEST))
    }
    links = [link for link in entry.get("links", []) if link.get("rel") not in {"alternate", "enclosure"}]
    return found | ({"links": _plain(links, _DEEPEST)} if links else {}) or None


def _plain(value: Any, deepest: int) -> Any:
    """Texts, lists and objects as JSON has them, without what is empty."""
    if isinstance(value, str):
        return value
    if deepest and isinstance(value, dict):
        return {str(key): plain for key, inner in dict(value).items() if (plain := _plain(inner, deepest - 1))}
    if deepest and isinstance(value, (list, tuple)):
        return [plain for inner in value if (plain := _plain(inner, deepest - 1))]
    return None if value is None or value == "" else str(value)
