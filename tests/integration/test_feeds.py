"""Feeds, against a server of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.outside import Answered, Outside
from etl.errors import FormatError
from tests.reading import Recorder, read, records

RSS = b"""<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>
<item><guid>g1</guid><title>One &amp; only</title><link>http://x/1</link><description>d</description>
<pubDate>Tue, 06 Feb 2018 08:04:11 +0100</pubDate><category>c</category></item>
<item><title>No id</title><link>http://x/2</link></item><item><title>Nothing</title></item>
</channel></rss>"""


def test_feeds(outside: Outside, tmp_path: Path) -> None:
    url = outside.on("/f", Answered(RSS, headers={"Content-Type": "application/rss+xml"}))
    found = records(read({"type": "rss", "request": {"url": url}}, Recorder().client(), tmp_path))
    assert found[2]["id"] == "g1"
    assert found[2]["title"] == "One & only"
    assert found[2]["published"] == "2018-02-06T07:04:11Z"
    assert found[2]["tags"] == ["c"]
    assert found[1]["id"] == "http://x/2"
    assert found[0]["id"].startswith("hash:")


@pytest.mark.parametrize("body", [b"<html><body>sign in</body></html>", b"", b"/etc/hostname", RSS[:300], RSS[:-20]])
def test_what_is_no_whole_feed_is_a_failure(outside: Outside, tmp_path: Path, body: bytes) -> None:
    url = outside.on("/f", Answered(body))
    with pytest.raises(FormatError):
        read({"type": "rss", "request": {"url": url}}, Recorder().client(), tmp_path)
