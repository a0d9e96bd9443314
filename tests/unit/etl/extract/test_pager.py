"""Link headers, also hostile ones."""

from __future__ import annotations

import pytest

from etl.errors import FormatError
from etl.extract.pager import MAX_LINK, next_link


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('<http://a/2>; rel="next"', "http://a/2"),
        ('<http://a/1>; rel="prev", <http://a/3>; rel="next last"', "http://a/3"),
        ("<http://a/2>; REL=next", "http://a/2"),
        ('<http://a/2;x=1,2>; title="b, c"; rel="next"', "http://a/2;x=1,2"),
        ('<http://a/1>; rel = "Next"', "http://a/1"),
        ('<http://a/1>; title="rel=next"; rel=prev', None),
        ("<http://a/1>; broken, <http://a/2>; rel=next", "http://a/2"),
        ("<http://a/1>; rel=prev; rel=next", None),
        ('<http://a/1>; rel="prev"', None),
        ("", None),
    ],
)
def test_link_headers(header: str, expected: str | None) -> None:
    assert next_link(header) == expected


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", ["<", "<a>; ", "<a>;x", '<a>;b="', "<a>;x=rel ", " ;", "<a>;x=<a>", "<a>" + " " * 50])
def test_a_hostile_link_header_takes_no_time(text: str) -> None:
    assert next_link((text * MAX_LINK)[:MAX_LINK]) is None


def test_a_link_header_has_a_largest_length() -> None:
    with pytest.raises(FormatError, match=str(MAX_LINK)):
        next_link("<" * (MAX_LINK + 1))
