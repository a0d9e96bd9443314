"""From the bytes of a feed to records. Runs in a process of its own: some feeds keep a parser busy for good."""

from __future__ import annotations

import codecs
import hashlib
import html
import io
import re
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit
from zoneinfo import ZoneInfo

import feedparser
import msgspec
import nh3

from etl.times import Moment

PARSE_SECONDS = 20
# What was published before this year has a broken clock, or a date that was misread.
EARLIEST = 1990
# Feed dates outside of this window come from broken clocks and junk text: seconds ahead of now.
MAX_AHEAD = 2 * 86_400
# What one entry, and all of a feed, may become: bytes. Links that are made absolute can take far more than the feed.
MAX_ENTRY = 16 * 1024 * 1024
MAX_PARSED = 48 * 1024 * 1024
MAX_ENTRIES = 100_000
# Characters of an entry that cannot be read which are kept.
_SHOWN = 2000
# Where the channel's own elements stand: bytes.
_HEAD = 64 * 1024
# Where the closing tag stands: bytes.
_TAIL = 4 * 1024
_PERIODS = {"hourly": 3600, "daily": 86_400, "weekly": 604_800, "monthly": 2_592_000, "yearly": 31_536_000}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SKIP = re.compile(rb"<skip(?:Hours|Days)>(.{0,4000}?)</skip(?:Hours|Days)>", re.IGNORECASE | re.DOTALL)
_CLOSING = re.compile(rb"</(?:[\w.-]+:)?(?:rss|feed|rdf)\s*>", re.IGNORECASE)
# Surrogates are D800 to DFFF, 55296 to 57343.
_HALF_PAIR = re.compile(
    rb"&#(?:[xX]0*+[dD][89a-fA-F][0-9a-fA-F]{2}|0*+5(?:529[6-9]|5[3-9]\d\d|6\d{3}|7[0-2]\d\d|73[0-3]\d|734[0-3]));?"
)
_BYTE_ORDER = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Where HTML sees a tag or a comment.
_MARK = re.compile(r"<(?:[a-zA-Z!]|/.)", re.DOTALL)

EntryId = Literal["auto", "guid", "link", "hash"]


class FeedJob(msgspec.Struct, frozen=True):
    """A feed to be parsed: its bytes, its content type, what relative links start from, and the time it is.

    `timezone`, `dates` and `timezone_names` are those of the source. It may take so many `seconds`.
    """

    body: bytes
    content_type: str
    base: str
    now: float
    entry_id: EntryId
    timezone: str = "UTC"
    dates: list[str] = []
    timezone_names: dict[str, str] = {}
    seconds: int = PARSE_SECONDS


class BadEntry(msgspec.Struct, frozen=True):
    """An entry that cannot be read, and the rule that it breaks."""

    raw: str
    message: str
    rule: str = "entry"


class Feed(msgspec.Struct, frozen=True):
    """What a feed says: its entries, newest last, and how often it wants to be asked.

    `interval` is the wait between two polls in seconds; `quiet_hours` (0 to 23) and `quiet_days` (0 is Monday) are the
    times in UTC in which it is not to be polled. `problem` names what is wrong with the feed as a whole.
    """

    entries: list[dict[str, Any]] = []
    bad: list[BadEntry] = []
    warnings: list[str] = []
    interval: float = 0.0
    quiet_hours: list[int] = []
    quiet_days: list[int] = []
    problem: tuple[str, str] | None = None


def parse(job: FeedJob) -> Feed:
    """Parse a feed. One that cannot be used comes back with its `problem`."""
    # No base address: feedparser would make ids depend on where the feed was fetched from. Always through BytesIO:
    # given bytes or text, feedparser may open a file or an address that the body names.
    # A byte order mark outranks what the server says (RFC 7303); feedparser has it the other way round.
    told = job.content_type and not job.body.startswith(_BYTE_ORDER)
    headers = {"content-type": job.content_type} if told else {}
    try:
        feed = _read(job.body, headers)
    except UnicodeEncodeError:
        # feedparser gives up at a reference to half a pair of surrogates, which is no character.
        feed = _read(_HALF_PAIR.sub(b"&#xFFFD;", job.body), headers)
    if not feed.get("version"):
        return Feed(problem=("not_a_feed", f"not a feed; it starts with {job.body[:80]!r}"))
    if not _is_well_formed(feed) and not _is_closed(job.body):
        return Feed(problem=("truncated_feed", "the feed is cut off before its end"))
    if len(feed.entries) > MAX_ENTRIES:
        return Feed(problem=("feed_too_costly", f"{len(feed.entries)} entries are more than {MAX_ENTRIES}"))
    reader = _Reader(job)
    entries = []
    for entry in reversed(feed.entries):
        entries.append(reader.read(entry))
        if reader.size > MAX_PARSED:
            return Feed(problem=("feed_too_costly", f"the entries have more than {MAX_PARSED} bytes in all"))
    quiet_hours, quiet_days = _quiet(job.body[:_HEAD])
    return Feed(
        entries=[entry for entry in entries if entry is not None],
        bad=reader.bad,
        warnings=[*_warnings(feed), *reader.warnings()],
        interval=_interval(feed.feed),
        quiet_hours=quiet_hours,
        quiet_days=quiet_days,
    )


def _read(body: bytes, headers: dict[str, str]) -> Any:
    # Markup is left as it is: `_clean` makes it safe and its links absolute, in a tenth of the time.
    return feedparser.parse(
        io.BytesIO(body), response_headers=headers, sanitize_html=False, resolve_relative_uris=False
    )


class _TooLargeError(ValueError):
    """An entry is larger than any may be."""


class _Reader:
    """Reads the entries of one feed; `size` is what they have become so far: bytes."""

    def __init__(self, job: FeedJob) -> None:
        self._job = job
        names = {name.upper(): ZoneInfo(place) for name, place in job.timezone_names.items()}
        self._read_time = Moment(ZoneInfo(job.timezone), tuple(job.dates), names)
        self._unread = _Tally()
        self._unlikely = _Tally()
        self.size = 0
        self.bad: list[BadEntry] = []

    def read(self, entry: Any) -> dict[str, Any] | None:
        try:
            record = self._record(entry)
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
        found = (
            (self._unread, "cannot be read (`dates` and `timezone_names` may say how)"),
            (self._unlikely, f"lie before {EARLIEST} or in the future"),
        )
        return [
            f"{tally.count} dates {wrong} and were left out, such as {tally.sample!r}"
            for tally, wrong in found
            if tally.count
        ]

    def _record(self, entry: Any) -> dict[str, Any]:
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
            "id": self._id(entry),
            "title": _text(entry.get("title")),
            "description": summary or content,
            "content": content,
            "link": self._web(entry.get("link")),
            "author": _text(entry.get("author")),
            "published": published or updated,
            "published_text": entry.get("published") if "published" in entry else None,
            "updated": updated,
            "category": terms[0] if terms else None,
            "tags": terms or None,
            "image_url": self._web(_image(entry)),
            "enclosures": self._enclosures(entry) or None,
            "point": place.get("coordinates") if isinstance(place, dict) else None,
        }
        return {name: value for name, value in record.items() if value not in (None, "")}

    def _id(self, entry: Any) -> str:
        policy, guid, link = self._job.entry_id, entry.get("id"), self._web(entry.get("link"))
        chosen = {"auto": guid or link, "guid": guid, "link": link, "hash": None}[policy]
        if chosen or policy in {"guid", "link"}:
            return str(chosen or "")
        text = f"{entry.get('title', '')}\n{entry.get('published', '')}"
        return "hash:" + hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()

    def _moment(self, entry: Any, name: str) -> str | None:
        # `in` first: feedparser answers a missing `updated` with `published`.
        written = entry[name] if name in entry else None  # noqa: SIM401 -- see above
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

    def _enclosures(self, entry: Any) -> list[dict[str, str]]:
        found = [(self._web(item.get("href")), item) for item in entry.get("enclosures", [])]
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


def _is_well_formed(feed: Any) -> bool:
    """Whether its XML is; feedparser also complains of what a server says about a feed."""
    harmless = feedparser.CharacterEncodingOverride | feedparser.NonXMLContentType
    return not feed.bozo or isinstance(feed.bozo_exception, harmless)


def _is_closed(body: bytes) -> bool:
    """True when a feed has its closing tag; what servers add after it does no harm. Wide characters are narrowed."""
    return _CLOSING.search(body[-_TAIL:].replace(b"\0", b"")) is not None


def _warnings(feed: Any) -> list[str]:
    """What is wrong with a feed that can be used all the same."""
    return [] if _is_well_formed(feed) else [f"the feed is not well-formed: {str(feed.bozo_exception)[:200]}"]


def _interval(channel: Any) -> float:
    """Seconds between polls, by `ttl` or the syndication module."""
    ttl = str(channel.get("ttl", "")).strip()
    minutes = float(ttl) if re.fullmatch(r"\d{1,6}", ttl) else 0.0
    period = _PERIODS.get(str(channel.get("sy_updateperiod", "")).strip().lower(), 0)
    frequency = str(channel.get("sy_updatefrequency", "1")).strip()
    times = int(frequency) if re.fullmatch(r"[1-9]\d{0,5}", frequency) else 1
    return max(minutes * 60, period / times)


def _quiet(head: bytes) -> tuple[list[int], list[int]]:
    """The quiet hours and days; feedparser keeps only the last of each."""
    text = b" ".join(_SKIP.findall(head)).decode("ascii", "replace").lower()
    hours = {int(hour) % 24 for hour in re.findall(r"<hour>\s*(\d{1,2})\s*</hour>", text)}
    days = {_DAYS.index(day) for day in re.findall(r"<day>\s*(\w+)\s*</day>", text) if day in _DAYS}
    # Always quiet was not meant.
    return sorted(hours) if len(hours) < 24 else [], sorted(days) if len(days) < 7 else []
