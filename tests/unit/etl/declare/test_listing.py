"""Lists of addresses: what feed readers write, and what people do."""

from __future__ import annotations

import pytest

from etl.declare.listing import read_listing, slug
from etl.errors import ConfigError

OPML = """<?xml version="1.0" encoding="UTF-8"?>
<opml version="2.0"><head><title>mine</title></head><body>
  <outline text="Top" type="rss" xmlUrl="https://top.example/feed"/>
  <outline text="Wörter &amp; Bilder">
    <outline title="Über uns" text="x" xmlUrl="https://a.example/atom.xml?x=1&amp;y=2" htmlUrl="https://a.example"/>
    <outline text="Deep"><outline text="Über uns" xmlUrl="https://b.example/rss"/></outline>
  </outline>
  <outline text="News"><outline text="Again" xmlUrl="https://a.example/atom.xml?x=1&amp;y=2"/></outline>
  <outline text="empty"/>
</body></opml>"""


def test_folders_become_tags() -> None:
    found = [(one.name, one.url, one.tags, one.is_feed) for one in read_listing(OPML)]
    assert found == [
        ("top", "https://top.example/feed", (), True),
        ("uber_uns", "https://a.example/atom.xml?x=1&y=2", ("worter-bilder", "news"), True),
        ("uber_uns_2", "https://b.example/rss", ("worter-bilder", "deep"), True),
    ]


def test_a_plain_list() -> None:
    text = "\ufeff# mine\nhttps://www.shop.example/export/items.csv\r\n\n  http://b.example/feed/ \nhttps://c.example\n"
    found = [(one.name, one.url, one.is_feed) for one in read_listing(text)]
    assert found == [
        ("shop_example_items_csv", "https://www.shop.example/export/items.csv", False),
        ("b_example_feed", "http://b.example/feed/", False),
        ("c_example", "https://c.example", False),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no address"),
        ("# nothing\n", "no address"),
        ("shop.example/feed\n", "line 1"),
        ("https://a.example\nfile:///etc/passwd\n", "line 2"),
        ("https://u:p@a.example/\n", "line 1"),
        ("https://[x/\n", "no address"),
        ("<opml><body><outline", "no OPML"),
        ("<opml/>", "no <body>"),
        ("<opml><body><outline xmlUrl='file:///etc/passwd'/></body></opml>", "no address"),
        ('<!DOCTYPE o [<!ENTITY a "b">]><opml><body/></opml>', "entities"),
        ("<opml><body>" + "<outline text='a'>" * 3000 + "</outline>" * 3000 + "</body></opml>", "deeper"),
        (
            "<opml><body>"
            + "".join(f"<outline text='f{n}'>" for n in range(30))
            + "</outline>" * 30
            + "</body></opml>",
            "deeper",
        ),
    ],
)
def test_what_is_no_list_says_why(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_listing(text)


def test_names_are_names() -> None:
    assert slug("Straße & Ω 42!") == "strasse_42"
    assert slug("日本") == ""
    assert len(slug("a" * 500)) == 80
