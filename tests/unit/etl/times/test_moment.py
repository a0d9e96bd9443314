"""Times are read right or refused. The table was written by hand before the reader, a third of it by others."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from etl.times import Moment

SPELLINGS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "spellings.json").read_text())
UTC = Moment(ZoneInfo("UTC"))


def moment(options: dict[str, Any]) -> Moment:
    names = {name: ZoneInfo(place) for name, place in options.get("timezone_names", {}).items()}
    return Moment(ZoneInfo(options.get("timezone", "UTC")), tuple(options.get("dates", ())), names)


@pytest.mark.parametrize("case", SPELLINGS, ids=lambda case: f"{case['value']!r} {case['options'] or ''}")
def test_a_spelling(case: dict[str, Any]) -> None:
    read = moment(case["options"])
    if case["expect"] == "refused":
        with pytest.raises(ValueError):  # noqa: PT011 -- what it says is tested below
            read(case["value"])
    else:
        expected = case["expect"] and datetime.fromisoformat(case["expect"])
        assert read(case["value"]) == expected


def test_the_table_covers_what_it_should() -> None:
    """At least 150 spellings, of which 120 have one meaning."""
    readable = [case for case in SPELLINGS if case["expect"] not in {"refused", None}]
    assert len(SPELLINGS) >= 150
    assert len(readable) >= 120


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("31/12/2025", 'dates: ["%d/%m/%Y"]'),
        ("07/04/2021 11:05:09 PM", 'dates: ["%d/%m/%Y %I:%M:%S %p"] or ["%m/%d/%Y %I:%M:%S %p"]'),
        ("31.12.25 10:00", 'dates: ["%d.%m.%y %H:%M"]'),
        ("20251231", None),
        (20251231, 'dates: ["%Y%m%d"]'),
        ("202512310915", "a date (%Y%m%d%H%M) or seconds or milliseconds since 1970 (1976-06-01)"),
        ("Wed, 31 Dec 2025 11:00:00 IST", "timezone_names: {IST: "),
        ("N/A", "`nulls`"),
        (0, "`nulls`"),
    ],
)
def test_a_refusal_says_what_to_write(value: object, advice: str | None) -> None:
    if advice is None:
        assert UTC(value)
        return
    with pytest.raises(ValueError, match=r"(?s).*") as refusal:
        UTC(value)
    assert advice in str(refusal.value)


@pytest.mark.parametrize("suggested", ["%d/%m/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M:%S %p"])
def test_what_is_suggested_is_read(suggested: str) -> None:
    assert Moment(ZoneInfo("UTC"), (suggested,))("07/04/2021 11:05:09 PM") is not None


def test_a_long_text_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="longer than 120 characters"):
        UTC("2025-12-31 " + "1" * 100_000)
