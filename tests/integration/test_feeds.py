"""Feeds, against a server of our own and through the process that parses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from etl.errors import FormatError, LeaseLostError
from etl.feeds.parse import MAX_ENTRIES, Feed, FeedJob
from etl.feeds.parser import FeedParser
from testkit.fake_server import FakeServer, Response
from testkit.reading import Recorder, read, records

RSS = b"""<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>
<item><guid>g1</guid><title>One &amp; only</title><link>http://x/1</link><description>d</description>
<pubDate>Tue, 06 Feb 2018 08:04:11 +0100</pubDate><category>c</category></item>
<item><title>No id</title><link>http://x/2</link></item><item><title>Nothing</title></item>
</channel></rss>"""
ATOM = b'<a:feed xmlns:a="http://www.w3.org/2005/Atom"><a:entry><a:id>urn:1</a:id></a:entry></a:feed>'
LAUGHS = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 12))

Parse = Callable[..., Feed]


@pytest.fixture(scope="module")
def parser() -> Iterator[FeedParser]:
    made = FeedParser()
    yield made
    made.close()


@pytest.fixture
def parse(parser: FeedParser) -> Parse:
    """Parses a feed; what is not said of it has a default."""

    def parsed(body: bytes, content_type: str = "application/xml", entry_id: Any = "auto", **more: Any) -> Feed:
        job = FeedJob(body, content_type, "http://base.test/dir/feed", time.time(), entry_id, **more)
        return parser.parse(job, lambda: None)

    return parsed


def rss(item: bytes, channel: bytes = b"") -> bytes:
    return b'<rss version="2.0"><channel>%s<item>%s</item></channel></rss>' % (channel, item)


def pid(parser: FeedParser) -> int:
    assert parser._process is not None
    return parser._process.pid


def test_feeds(fake_server: FakeServer, tmp_path: Path) -> None:
    url = fake_server.on("/f", Response(RSS, headers={"Content-Type": "application/rss+xml"}))
    found = records(read({"type": "rss", "request": {"url": url}}, Recorder().client(), tmp_path))
    assert found[2]["id"] == "g1"
    assert found[2]["title"] == "One & only"
    assert found[2]["published"] == "2018-02-06T07:04:11Z"
    assert found[2]["tags"] == ["c"]
    assert found[1]["id"] == "http://x/2"
    assert found[0]["id"].startswith("hash:")


@pytest.mark.parametrize("body", [b"<html><body>sign in</body></html>", b"", b"/etc/hostname", RSS[:300], RSS[:-20]])
def test_what_is_no_whole_feed_is_a_failure(fake_server: FakeServer, tmp_path: Path, body: bytes) -> None:
    url = fake_server.on("/f", Response(body))
    with pytest.raises(FormatError):
        read({"type": "rss", "request": {"url": url}}, Recorder().client(), tmp_path)


def test_the_extractor_passes_on_what_a_feed_says(fake_server: FakeServer, tmp_path: Path) -> None:
    channel = b"<ttl>90</ttl><skipHours><hour>3</hour></skipHours><skipDays><day>Sunday</day></skipDays>"
    url = fake_server.on("/f", Response(rss(b"<title>a & b</title>", channel)))
    recorder = Recorder()
    assert len(records(read({"type": "rss", "request": {"url": url}}, recorder.client(), tmp_path))) == 1
    assert recorder.quiet == ([3], [6], 5400.0)
    assert recorder.warnings == ["feed_warning"]


# What a feed may become.

LONG_BASE = b"http://x/" + b"p" * 60_000 + b"/"


def based(links: int, entries: int) -> bytes:
    entry = b'<entry xml:base="%s"><id>%d</id><content type="html">%s</content></entry>'
    markup = b'&lt;a href="r">x&lt;/a>' * links
    many = b"".join(entry % (LONG_BASE, number, markup) for number in range(entries))
    last = entry % (b"http://x/", entries, b'&lt;a href="r">x&lt;/a>')
    return b'<feed xmlns="http://www.w3.org/2005/Atom">%s%s</feed>' % (many, last)


def test_an_entry_whose_links_would_make_it_too_large_is_bad_and_the_others_are_not(parse: Parse) -> None:
    feed = parse(based(links=400, entries=2))
    assert [entry.rule for entry in feed.bad] == ["too_large", "too_large"]
    assert [entry["id"] for entry in feed.entries] == ["2"]
    assert 'href="http://x/r"' in feed.entries[0]["content"]


def test_a_feed_whose_links_would_make_it_too_large_is_refused(parse: Parse) -> None:
    with pytest.raises(FormatError, match="bytes in all") as refusal:
        parse(based(links=50, entries=20))
    assert refusal.value.code == "feed_too_costly"


def test_a_feed_of_too_many_entries_is_refused(parse: Parse) -> None:
    with pytest.raises(FormatError, match="entries") as refusal:
        parse(rss(b"</item><item>" * MAX_ENTRIES))
    assert refusal.value.code == "feed_too_costly"


def test_half_a_pair_of_surrogates_costs_nothing_but_itself(parse: Parse) -> None:
    feed = parse(rss(b"<guid>1</guid><title>a &#xD800; b &#56320;</title></item><item><guid>2</guid>"))
    assert {entry["id"]: entry.get("title") for entry in feed.entries} == {"1": "a \ufffd b \ufffd", "2": None}


def test_a_process_that_says_too_much_is_not_listened_to(parser: FeedParser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.feeds.parser.MAX_MESSAGE", 10)
    with pytest.raises(FormatError) as refusal:
        parser.parse(FeedJob(RSS, "", "http://x/", time.time(), "auto"), lambda: None)
    assert refusal.value.code == "feed_too_costly"
    assert parser._process is None


# The process.


def test_a_feed_that_takes_too_long_is_refused(parser: FeedParser, parse: Parse) -> None:
    parse(RSS)
    before, started = pid(parser), time.monotonic()
    with pytest.raises(FormatError, match="within 1 s") as refusal:
        parse(rss(b"<author>" + b"x" * 2**20 + b"</author>"), seconds=1)
    assert refusal.value.code == "feed_too_costly"
    assert time.monotonic() - started < 5
    assert len(parse(RSS).entries) == 3
    assert pid(parser) != before


@pytest.mark.parametrize(
    "markup",
    [b'<p style="' + b"a:b;" * 50_000 + b'">x</p>', b"<p " + b"x" * 200_000, b"<div>" * 50_000, b"<" * 200_000],
    ids=["style", "tag", "nested", "open"],
)
def test_costly_markup_does_not_hold_up_the_next_feed(parse: Parse, markup: bytes) -> None:
    started = time.monotonic()
    with suppress(FormatError):
        assert parse(rss(b"<description><![CDATA[" + markup + b"]]></description>"), seconds=2).entries
    assert time.monotonic() - started < 6
    assert len(parse(RSS).entries) == 3


def test_a_parser_that_stumbles_lives_on(parser: FeedParser, parse: Parse) -> None:
    parse(RSS)
    before = pid(parser)
    with pytest.raises(FormatError) as refusal:
        parse(rss(b"<title>&#99999999999999; & more</title>"))
    assert refusal.value.code == "bad_feed"
    assert pid(parser) == before


def test_a_killed_process_is_replaced(parser: FeedParser, parse: Parse) -> None:
    parse(RSS)
    assert parser._process
    parser._process.kill()
    parser._process.wait()
    assert len(parse(RSS).entries) == 3


def test_an_answer_that_nobody_waited_for_is_not_the_next_one(parser: FeedParser, parse: Parse) -> None:
    calls: list[None] = []

    def alive() -> None:
        calls.append(None)
        if len(calls) == 2:  # the feed is sent
            raise LeaseLostError("someone else has it")

    with pytest.raises(LeaseLostError):
        parser.parse(FeedJob(RSS, "", "http://base.test/", time.time(), "auto"), alive)
    assert [entry["title"] for entry in parse(rss(b"<title>other</title>")).entries] == ["other"]


def test_the_process_dies_with_its_parent() -> None:
    program = """
from etl.feeds.parser import FeedJob, FeedParser
parser = FeedParser()
parser.parse(FeedJob(b'<rss version="2.0"></rss>', "", "http://x/", 0, "auto"), lambda: None)
costly = b'<rss version="2.0"><channel><item><author>' + b"x" * 2**20 + b"</author></item></channel></rss>"
parser.parse(FeedJob(costly, "", "http://x/", 0, "auto"), lambda: print(parser._process.pid, flush=True))
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.3)
    assert child.is_running()
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 2
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Hostile feeds.


@pytest.mark.parametrize(
    "doctype",
    [
        b'<!ENTITY l0 "lol">' + LAUGHS,
        b'<!ENTITY l11 "' + b"x" * 100_000 + b'">',
        b'<!ENTITY l11 SYSTEM "file://%(file)s">',
        b'<!ENTITY l11 SYSTEM "%(url)s">',
        b'<!ENTITY %% e SYSTEM "%(url)s"> %%e;',
    ],
    ids=["laughs", "bomb", "file", "address", "parameter"],
)
def test_entities_lead_nowhere(parse: Parse, fake_server: FakeServer, tmp_path: Path, doctype: bytes) -> None:
    (tmp_path / "secret").write_text("s3cret")
    facts = {b"file": os.fsencode(tmp_path / "secret"), b"url": fake_server.on("/e", Response(b"s3cret")).encode()}
    found = parse(b"<!DOCTYPE rss [" + doctype % facts + b"]>" + rss(b"<title>&l11;</title>"))
    assert len(str(found)) < 1000
    assert "s3cret" not in str(found)
    assert fake_server.asked == []


@pytest.mark.parametrize("start", [b'<!DOCTYPE rss SYSTEM "%s">', b'<?xml-stylesheet href="%s"?>'])
def test_what_a_feed_refers_to_is_not_fetched(parse: Parse, fake_server: FakeServer, start: bytes) -> None:
    url = fake_server.on("/e", Response(b"s3cret"))
    assert len(parse(start % url.encode() + rss(b"<title>a</title>")).entries) == 1
    assert fake_server.asked == []


@pytest.mark.parametrize("prefix", [b"", b"feed:"])
def test_a_body_is_no_name_of_a_feed(parse: Parse, fake_server: FakeServer, tmp_path: Path, prefix: bytes) -> None:
    (tmp_path / "feed.xml").write_bytes(RSS)
    names = [fake_server.on("/f", Response(RSS)).encode(), os.fsencode(tmp_path / "feed.xml"), b"/etc/passwd"]
    for name in names:
        with pytest.raises(FormatError, match="not a feed"):
            parse(prefix + name)
    assert fake_server.asked == []


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", " JavaScript:alert(1)", "data:text/html,x", "vbscript:x", "//["]
)
def test_addresses_that_could_run_are_dropped(parse: Parse, address: str) -> None:
    markup = f"&lt;a href='{address}'&gt;a&lt;/a&gt;&lt;img src='{address}'&gt;"
    item = f"<link>{address}</link><enclosure url='{address}' type='image/png'/><description>{markup}</description>"
    (entry,) = parse(rss(item.encode())).entries
    assert entry.keys() == {"id", "description"}
    assert entry["id"].startswith("hash:")
    assert entry["description"] == '<a rel="noopener noreferrer">a</a><img>'


def test_markup_is_cleaned(parse: Parse) -> None:
    html = (
        b"<b onclick='x()'>b</b><script>x()</script><style>b{}</style><iframe src='http://x/'></iframe><svg onload=x()>"
    )
    (entry,) = parse(rss(b"<description><![CDATA[" + html + b"]]></description>")).entries
    assert entry["description"] == "<b>b</b>"


# What is read.


@pytest.mark.parametrize(
    ("policy", "ids"),
    [
        ("auto", [None, "http://x/2", "g1"]),
        ("guid", ["", "", "g1"]),
        ("link", ["", "http://x/2", "http://x/1"]),
        ("hash", [None, None, None]),
    ],
)
def test_ids(parse: Parse, policy: str, ids: list[str | None]) -> None:
    """None stands for a hash."""
    found = [entry.get("id", "") for entry in parse(RSS, entry_id=policy).entries]
    assert [None if each.startswith("hash:") else each for each in found] == ids
    assert len(set(found) - {""}) == sum(each != "" for each in ids)


def test_relative_links_start_from_the_feed(parse: Parse) -> None:
    item = b"""<link>../a?b=1</link><enclosure url="/p.png" type="image/png" length="5"/>
    <description>&lt;a href="c"&gt;x&lt;/a&gt;&lt;img src="//cdn.test/i"&gt;</description>"""
    (entry,) = parse(rss(item)).entries
    assert entry["link"] == "http://base.test/a?b=1"
    assert entry["image_url"] == "http://base.test/p.png"
    assert entry["enclosures"] == [{"url": "http://base.test/p.png", "type": "image/png", "length": "5"}]
    assert 'href="http://base.test/dir/c"' in entry["description"]
    assert 'src="http://cdn.test/i"' in entry["description"]


def test_relative_links_start_from_where_the_entry_says(parse: Parse) -> None:
    feed = b"""<feed xmlns="http://www.w3.org/2005/Atom" xml:base="http://other.test/x/">
    <entry xml:base="sub/"><id>1</id><link href="l"/><summary type="html">&lt;a href="s"></summary>
    <content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml"><a href="c">c</a></div></content></entry>
    <entry xml:base="http://[bad"><id>2</id><summary type="html">&lt;a href="s"></summary></entry>
    <entry><id>3</id><content type="html">&lt;a href="c"></content></entry></feed>"""
    third, second, first = parse(feed).entries
    assert first["link"] == "http://other.test/x/sub/l"
    assert 'href="http://other.test/x/sub/s"' in first["description"]
    assert 'href="http://other.test/x/sub/c"' in first["content"]
    assert 'href="http://other.test/x/s"' in second["description"]
    assert 'href="http://other.test/x/c"' in third["content"] == third["description"]


@pytest.mark.parametrize("base", [b"http://a:99999/", b"http://exa mple.test/", b"http://", b"http://1.2.3.4.5.6/"])
def test_a_base_that_is_no_address_does_no_harm(parse: Parse, base: bytes) -> None:
    feed = b"""<feed xmlns="http://www.w3.org/2005/Atom" xml:base="%s">
    <entry><id>1</id><summary type="html">&lt;a href="s">x&lt;/a></summary></entry></feed>"""
    (entry,) = parse(feed % base).entries
    assert ">x</a>" in entry["description"]


@pytest.mark.parametrize(
    ("written", "title"),
    [
        (b"<![CDATA[A <b>bold</b> move]]>", "A bold move"),
        (b"<![CDATA[a<script>x()</script>]]>", "a"),
        (b"&lt;i&gt;R&amp;amp;D&lt;/i&gt;", "R&D"),
        (b"<![CDATA[It&#8217;s &amp; that]]>", "It’s & that"),
        (b"1 &lt; 2 &amp; 3 > 2", "1 < 2 & 3 > 2"),
        (b"&amp;lt;script&amp;gt;", "&lt;script&gt;"),
        (b"<![CDATA[<b>&lt;script&gt;</b>]]>", "&lt;script&gt;"),
    ],
)
def test_titles_are_words(parse: Parse, written: bytes, title: str) -> None:
    (entry,) = parse(rss(b"<title>" + written + b"</title>")).entries
    assert entry["title"] == title


def test_odd_dates_are_left_out(parse: Parse) -> None:
    items = b"</item><item>".join(
        b"<pubDate>%s</pubDate>" % date
        for date in (b"1699-01-01T00:00:00Z", b"2999-01-01T00:00:00Z", b"soon", b"2018-02-06T00:00:00+01:00")
    )
    found = parse(rss(items))
    assert [entry.get("published") for entry in reversed(found.entries)] == [None, None, None, "2018-02-05T23:00:00Z"]
    assert found.entries[-1]["published_text"] == "1699-01-01T00:00:00Z"
    assert found.warnings == [
        "1 dates cannot be read (`dates` and `timezone_names` may say how) and were left out, such as 'soon'",
        "2 dates lie before 1990 or in the future and were left out, such as '2999-01-01T00:00:00Z'",
    ]


def test_dates_are_read_whole_or_not_at_all(parse: Parse) -> None:
    written = (
        b"Wed, 31 Dec 2025 11:00:00 CET",
        b"Wed, 31 Dec 2025 10:00:00 PM",
        b"Wed, 31 Dec 2025 10:00:00 IST",
        b"31.12.2025 10:00",
    )
    entries = b"</item><item>".join(b"<guid>%d</guid><pubDate>%s</pubDate>" % each for each in enumerate(written))
    found = parse(rss(entries))
    assert [entry.get("published") for entry in reversed(found.entries)] == [
        "2025-12-31T10:00:00Z",
        "2025-12-31T22:00:00Z",
        None,
        None,
    ]
    assert [entry["published_text"] for entry in reversed(found.entries)] == [date.decode() for date in written]
    assert "2 dates cannot be read" in found.warnings[0]
    declared = parse(
        rss(entries), timezone="Europe/Berlin", dates=["%d.%m.%Y %H:%M"], timezone_names={"IST": "Asia/Kolkata"}
    )
    assert [entry.get("published") for entry in reversed(declared.entries)][2:] == [
        "2025-12-31T04:30:00Z",
        "2025-12-31T09:00:00Z",
    ]
    assert declared.warnings == []


@pytest.mark.parametrize(
    ("channel", "interval"),
    [
        (b"", 0),
        (b"<ttl> 60 </ttl>", 3600),
        (b"<ttl>soon</ttl>", 0),
        (b"<sy:updatePeriod>hourly</sy:updatePeriod>", 3600),
        (b"<sy:updatePeriod>daily</sy:updatePeriod><sy:updateFrequency>4</sy:updateFrequency>", 21_600),
        (b"<sy:updatePeriod>daily</sy:updatePeriod><sy:updateFrequency>0</sy:updateFrequency>", 86_400),
        (b"<ttl>5</ttl><sy:updatePeriod>weekly</sy:updatePeriod>", 604_800),
    ],
)
def test_intervals(parse: Parse, channel: bytes, interval: float) -> None:
    body = rss(b"", channel).replace(b"<rss", b'<rss xmlns:sy="http://purl.org/rss/1.0/modules/syndication/"')
    assert parse(body).interval == interval


def test_quiet_hours(parse: Parse) -> None:
    hours = b"<skipHours><hour>0</hour><hour> 07 </hour><hour>24</hour></skipHours>"
    found = parse(rss(b"", hours + b"<skipDays><day>Saturday</day><day>sunday</day><day>Someday</day></skipDays>"))
    assert (found.quiet_hours, found.quiet_days) == ([0, 7], [5, 6])
    always = b"<skipHours>" + b"".join(b"<hour>%d</hour>" % hour for hour in range(24)) + b"</skipHours>"
    assert parse(rss(b"", always)).quiet_hours == []


# Feeds with something wrong.


def test_every_truncation_is_noticed(parse: Parse) -> None:
    for body in (RSS, ATOM):
        for end in range(len(body)):
            with pytest.raises(FormatError):
                parse(body[:end])


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<title>ä</title>".encode(), "text/xml"),
        (b"<title>\xe4</title>", "application/xml; charset=utf-8"),
        ("<title>ä</title>".encode(), "text/html; charset=utf-8"),
        ("<title>ä</title>".encode(), ""),
    ],
)
def test_what_the_server_says_of_a_feed_is_no_matter(parse: Parse, body: bytes, content_type: str) -> None:
    start = b'<?xml version="1.0" encoding="utf-8"?>'
    for after in (b"", b"<!-- made in 0.1 s -->", b"<?done?>"):
        found = parse(start + rss(body) + after, content_type)
        assert [entry["title"] for entry in found.entries] == ["ä"]
        assert found.warnings == []


@pytest.mark.parametrize("content_type", ["", "text/xml", "text/plain", "application/rss+xml"])
def test_wide_feeds(parse: Parse, content_type: str) -> None:
    found = parse(rss("<title>ä</title>".encode()).decode().encode("utf-16"), content_type)
    assert [entry["title"] for entry in found.entries] == ["ä"]


@pytest.mark.parametrize(
    "body",
    [
        rss(b"<title>a & b</title>"),
        rss(b"<title>a</title><b>"),
        rss(b"<title>a</title>") + b"<script>x()</script>",
        b"\n" + RSS,
        ATOM.replace(b"urn:1", b"a & b") + b"\n<!-- x -->\n",
        b'<?xml version="1.0" encoding="utf-16"?>'.decode().encode("utf-16")
        + rss(b"<title>a & b</title>").decode().encode("utf-16-le"),
    ],
)
def test_a_feed_that_can_be_used_all_the_same_is_a_warning(parse: Parse, body: bytes) -> None:
    found = parse(body)
    assert found.entries
    assert len(found.warnings) == 1
    assert "not well-formed" in found.warnings[0]


ATOM = b"""<feed xmlns="http://www.w3.org/2005/Atom" xml:base="/"><title>t</title>
<entry><id>t3_42tizy</id><title>a</title><link href="/x"/></entry>
<entry><id>tag:x,2026:1</id><title>b</title></entry></feed>"""


def test_ids_are_taken_as_they_are_or_as_they_were(parse: Parse) -> None:
    assert [entry["id"] for entry in parse(ATOM).entries] == ["tag:x,2026:1", "t3_42tizy"]
    resolved = parse(ATOM, id_form="resolved").entries
    assert [entry["id"] for entry in resolved] == ["tag:x,2026:1", "/t3_42tizy"]
    # One feed after the other in the same process.
    assert [entry["id"] for entry in parse(ATOM).entries] == ["tag:x,2026:1", "t3_42tizy"]


def test_entries_without_an_id_are_told_apart_by_all_that_they_say(parse: Parse) -> None:
    same = b"<title>News</title><description>one</description>"
    items = b"</item><item>".join([same, same.replace(b"one", b"two"), same])
    ids = [entry["id"] for entry in parse(rss(items)).entries]
    assert ids[0] == ids[2] != ids[1]
    assert len({entry["id"] for entry in parse(rss(items), id_form="resolved").entries}) == 1


def test_what_modules_say_of_an_entry_is_kept(parse: Parse) -> None:
    body = b"""<rss version="2.0" xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd"
      xmlns:media="http://search.yahoo.com/mrss/" xmlns:dc="http://purl.org/dc/elements/1.1/">
      <channel><item><guid>1</guid><title>t</title><itunes:duration>12:30</itunes:duration>
      <itunes:episode>7</itunes:episode><itunes:image href="http://x/i.png"/><comments>http://x/c</comments>
      <media:content url="http://x/v.mp4" type="video/mp4" width="640"/>
      <dc:creator>Ann</dc:creator><dc:creator>Bob</dc:creator></item></channel></rss>"""
    (entry,) = parse(body).entries
    extensions = entry["extensions"]
    assert (extensions["itunes_duration"], extensions["itunes_episode"]) == ("12:30", "7")
    assert extensions["image"] == {"href": "http://x/i.png"}
    assert extensions["comments"] == "http://x/c"
    assert extensions["media_content"] == [{"url": "http://x/v.mp4", "type": "video/mp4", "width": "640"}]
    assert [one["name"] for one in entry["authors"]] == ["Ann", "Bob"]


def test_an_entry_without_modules_is_the_record_it_was(parse: Parse) -> None:
    (entry,) = parse(rss(b"<guid>1</guid><title>t</title><link>http://x/1</link><author>Ann</author>")).entries
    assert set(entry) == {"id", "title", "link", "author"}


JSON_FEED: dict[str, Any] = {
    "version": "https://jsonfeed.org/version/1.1",
    "title": "t",
    "items": [
        {"id": 2, "content_text": "plain"},
        "no object",
        {
            "id": "1",
            "url": "/one",
            "title": "One",
            "content_html": "<p>x</p><script>y</script>",
            "summary": "s",
            "image": "http://x/i.png",
            "date_published": "2025-12-31T10:00:00+01:00",
            "authors": [{"name": "Ann"}, {"name": "Bob"}],
            "tags": ["a", "b"],
            "attachments": [{"url": "http://x/a.mp3", "mime_type": "audio/mpeg", "size_in_bytes": 9}],
            "_more": {"k": "v"},
        },
    ],
}


def test_a_json_feed_is_a_feed(parse: Parse) -> None:
    feed = parse(json.dumps(JSON_FEED).encode(), content_type="application/feed+json")
    one, two = feed.entries
    assert (one["id"], one["title"], one["link"]) == ("1", "One", "http://base.test/one")
    assert (one["description"], one["content"]) == ("s", "<p>x</p>")
    assert (one["published"], one["author"], one["tags"]) == ("2025-12-31T09:00:00Z", "Ann", ["a", "b"])
    assert one["enclosures"] == [{"url": "http://x/a.mp3", "type": "audio/mpeg", "length": "9"}]
    assert one["image_url"] == "http://x/i.png"
    assert one["extensions"]["_more"] == {"k": "v"}
    assert (two["id"], two["description"]) == ("2", "plain")
    assert [bad.rule for bad in feed.bad] == ["entry"]


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"version": "1"}', b'{"version": "https://jsonfeed.org/version/1"}'])
def test_other_json_is_no_feed(parse: Parse, body: bytes) -> None:
    with pytest.raises(FormatError) as refusal:
        parse(body)
    assert refusal.value.code == "not_a_feed"


def test_the_hash_of_an_entry_does_not_depend_on_when_and_from_where_it_is_read(parser: FeedParser) -> None:
    item = rss(b'<title>t</title><pubDate>Mon, 15 Dec 2025 10:00:00</pubDate><enclosure url="/x.mp3" type="a/b"/>')
    ids = {
        parser.parse(FeedJob(item, "", base, now, "auto", timezone=zone), lambda: None).entries[0]["id"]
        for base in ("http://a.test/feed", "https://a.test/feed")
        for now in (1764547200.0, 1796083200.0)
        for zone in ("UTC", "Europe/Berlin")
    }
    assert len(ids) == 1
