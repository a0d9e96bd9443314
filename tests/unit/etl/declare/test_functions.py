"""The functions of paths."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from jmespath.functions import Functions as BUILT_IN  # noqa: N814 -- ours has the same name

from etl.declare.functions import Functions
from etl.declare.paths import complaint, path


@pytest.mark.parametrize(
    ("text", "record", "expected"),
    [
        ("replace(a, ' kg', '')", {"a": "12 kg"}, "12"),
        ("replace(a, '.', '')", {"a": "a.b.c"}, "abc"),
        ("replace(a, '', 'x')", {"a": "ab"}, "ab"),
        ("trim(a)", {"a": " \t\u00a0x y\n"}, "x y"),
        ("lower(a)", {"a": "ÄB"}, "äb"),
        ("upper(a)", {"a": "äb"}, "ÄB"),
        ("split(a, '/')[1]", {"a": "x/y/z"}, "y"),
        ("split(a, '/')[5]", {"a": "x/y/z"}, None),
        ("date(a, '%d.%m.%Y')", {"a": "31.12.2025"}, "2025-12-31T00:00:00"),
        ("date(a, '%d.%m.%Y %z')", {"a": "31.12.2025 +0100"}, "2025-12-31T00:00:00+01:00"),
        ("date(a, '%d.%m.%Y')", {"a": " "}, None),
        ("default(a, 'none')", {"a": ""}, "none"),
        ("default(a, 'none')", {"a": 0}, 0),
        ("coalesce(a, b, 'c')", {"a": "", "b": None}, "c"),
        ("coalesce(a, b)", {"b": "x"}, "x"),
        ("coalesce(a, b)", {}, None),
        ("trim(a)", {}, None),
        ("lower(a)", {"a": 5}, "5"),
        ("replace(a, '5', '6')", {"a": Decimal("1.50")}, "1.60"),
        ("join('-', [a, b])", {"a": "x", "b": "y"}, "x-y"),
        ("not_null(a, b)", {"a": None, "b": ""}, ""),
        ("join(' ', [trim(a), lower(b)])", {"a": " x", "b": "Y"}, "x y"),
        ("scale(a, `-2`)", {"a": 1999}, Decimal("19.99")),
        ("scale(a, `-2`)", {"a": "5"}, Decimal("0.05")),
        ("scale(a, `-2`)", {}, None),
        (
            "scale(a, `-2`)",
            {"a": Decimal(123456789012345678901234567890123)},
            Decimal("1234567890123456789012345678901.23"),
        ),
        ("strip_html(a)", {"a": " <b>Q&amp;A</b>: what&#8217;s <em>new</em><script>x</script>"}, "Q&A: what’s new"),
        ("floor(a)", {"a": Decimal("2.7")}, 2),
        ("sum(a)", {"a": [Decimal("1e30"), 1]}, Decimal(1000000000000000000000000000001)),
        ("to_number(a)", {"a": "nan"}, None),
        ("date(a, '%d.%m.%Y %Z')", {"a": "31.12.2025 CET"}, "2025-12-31T00:00:00+01:00"),
    ],
)
def test_a_function(text: str, record: dict[str, Any], expected: object) -> None:
    assert complaint(text) is None
    assert path(text).search(record) == expected


def test_the_documented_functions_are_those_that_are_added() -> None:
    docs = (Path(__file__).parents[4] / "docs" / "sources.md").read_text(encoding="utf-8")
    listed = docs.partition("| Function | Gives |")[2].partition("\n\n")[0]
    ours = set(Functions.FUNCTION_TABLE) - set(BUILT_IN.FUNCTION_TABLE)
    assert set(re.findall(r"(\w+)\(", listed)) == ours


def test_a_hash_tells_values_apart() -> None:
    one = path("hash(a, b)").search({"a": "x", "b": "y"})
    assert one == path("hash(a, b)").search({"a": "x", "b": "y"})
    assert len({one, path("hash(a, b)").search({"a": "xy", "b": ""}), path("hash(a)").search({"a": "x"})}) == 3
    assert len(one) == 32


@pytest.mark.parametrize(
    ("text", "record", "message"),
    [
        ("date(a, '%d.%m.%Y')", {"a": "2025-12-31"}, "does not match format"),
        ("lower(a)", {"a": {}}, "expected text"),
        ("floor(a)", {"a": Decimal("1e1000000")}, "out of range"),
        ("ceil(to_number(a))", {"a": "1e10000000"}, "out of range"),
        ("scale(a, `2`)", {"a": Decimal("1e1000000")}, "out of range"),
        ("to_number(a)", {"a": "1." + "7" * 999}, "longer than 1000"),
        ("date(a, '%Y%m%d')", {"a": "2025111"}, "other digits"),
        ("hash(a)", {"a": "x\x00"}, "NUL"),
        ("lower(a)", {"a": True}, "expected text"),
        ("split(a, '')", {"a": "x"}, "needs a text"),
        ("replace(a, 'x', b)", {"a": "x" * 10_000, "b": "y" * 10_000}, "more than"),
        ("join(b, split(a, 'x'))", {"a": "x" * 10_000, "b": "y" * 10_000}, "more than"),
    ],
)
def test_what_does_not_fit_says_why(text: str, record: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        path(text).search(record)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("shout(a)", "there is no function shout"),
        ("lower(a, b)", "takes 1 arguments, not 2"),
        ("replace(a, 'x')", "takes 3 arguments, not 2"),
        ("a[?contains(b)]", "takes 2 arguments, not 1"),
        ("coalesce()", "takes 1 or more arguments, not 0"),
    ],
)
def test_a_wrong_call_is_refused_when_it_is_declared(text: str, wrong: str) -> None:
    assert wrong in str(complaint(text))
