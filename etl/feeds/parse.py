"""From the bytes of a feed to records. Runs in a process of its own: some feeds keep a parser busy for good."""

from __future__ import annotations

import codecs
import io
import re
from typing import TYPE_CHECKING, Any

import feedparser
import msgspec
from feedparser.mixin import _FeedParserMixin as Mixin
from msgspec.structs import replace

from etl.feeds.entry import BadEntry, EntryId, EntryReader, IdForm
from etl.feeds.json_feed import entry_of, read_json_feed

if TYPE_CHECKING:
    from collections.abc import Callable

PARSE_SECONDS = 20
# What all entries of a feed may become: bytes.
MAX_PARSED = 48 * 1024 * 1024
MAX_ENTRIES = 100_000
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


_LINKS = frozenset(Mixin.can_be_relative_uri) - {"id"}


class FeedJob(msgspec.Struct, frozen=True):
    """A feed to be parsed: its bytes, its content type, what relative links start from, and the time it is.

    Ids are taken as they are (`plain`), or as those of releases before were, made absolute (`resolved`).
    `timezone`, `dates` and `timezone_names` are those of the source. It may take so many `seconds`.
    """

    body: bytes
    content_type: str
    base: str
    now: float
    entry_id: EntryId
    id_form: IdForm = "plain"
    timezone: str = "UTC"
    dates: list[str] = []
    timezone_names: dict[str, str] = {}
    seconds: int = PARSE_SECONDS


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
    is_well_formed: bool = True


def parse(job: FeedJob) -> Feed:
    """Parse a feed. One that cannot be used comes back with its `problem`."""
    if _looks_like_json(job.body):
        return _parse_json(job)
    # No base address: feedparser would make ids depend on where the feed was fetched from. Always through BytesIO:
    # given bytes or text, feedparser may open a file or an address that the body names.
    # A byte order mark outranks what the server says (RFC 7303); feedparser has it the other way round.
    told = job.content_type and not job.body.startswith(_BYTE_ORDER)
    headers = {"content-type": job.content_type} if told else {}
    try:
        feed = _read(job.body, headers, job.id_form)
    except UnicodeEncodeError:
        # feedparser gives up at a reference to half a pair of surrogates, which is no character.
        feed = _read(_HALF_PAIR.sub(b"&#xFFFD;", job.body), headers, job.id_form)
    if not feed.get("version"):
        return Feed(problem=("not_a_feed", f"not a feed; it starts with {job.body[:80]!r}"))
    if not _is_well_formed(feed) and not _is_closed(job.body):
        return Feed(problem=("truncated_feed", "the feed is cut off before its end"))
    if len(feed.entries) > MAX_ENTRIES:
        return Feed(problem=("feed_too_costly", f"{len(feed.entries)} entries are more than {MAX_ENTRIES}"))
    quiet_hours, quiet_days = _quiet(job.body[:_HEAD])
    read = _entries(job, feed.entries)
    if read.problem:
        return read
    return replace(
        read,
        warnings=[*_warnings(feed), *read.warnings],
        is_well_formed=_is_well_formed(feed),
        interval=_interval(feed.feed),
        quiet_hours=quiet_hours,
        quiet_days=quiet_days,
    )


def _parse_json(job: FeedJob) -> Feed:
    try:
        entries = read_json_feed(job.body)
    except ValueError as error:
        return Feed(problem=("not_a_feed", str(error)))
    if len(entries) > MAX_ENTRIES:
        return Feed(problem=("feed_too_costly", f"{len(entries)} entries are more than {MAX_ENTRIES}"))
    return _entries(job, entries, entry_of)


def _looks_like_json(body: bytes) -> bool:
    return body[:_TAIL].removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")


def _entries(job: FeedJob, found: list[Any], prepare: Callable[[Any], dict[str, Any]] = dict) -> Feed:
    """The entries as records, the last one first."""
    reader = EntryReader(job, prepare)
    entries = []
    for entry in reversed(found):
        entries.append(reader.read(entry))
        if reader.size > MAX_PARSED:
            return Feed(problem=("feed_too_costly", f"the entries have more than {MAX_PARSED} bytes in all"))
    return Feed([entry for entry in entries if entry is not None], reader.bad, reader.warnings())


def _read(body: bytes, headers: dict[str, str], id_form: IdForm) -> Any:
    # A link may be relative; an id is one as it is. This process parses one feed at a time.
    Mixin.can_be_relative_uri = _LINKS | {"id"} if id_form == "resolved" else _LINKS
    # Markup is left as it is: `_clean` makes it safe and its links absolute, in a tenth of the time.
    return feedparser.parse(
        io.BytesIO(body), response_headers=headers, sanitize_html=False, resolve_relative_uris=False
    )


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
