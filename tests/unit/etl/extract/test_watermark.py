"""Watermarks: what moves them, what does not, and what the next run asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from etl.declare.source import Incremental
from etl.errors import FormatError
from etl.extract.watermark import Watermark
from etl.times import Moment

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NOW_SECONDS = 1_780_315_200


def watermark(zone: str = "UTC", dates: tuple[str, ...] = (), **more: Any) -> tuple[Watermark, list[str]]:
    told: list[str] = []
    incremental = Incremental("at", "since", **more)
    return Watermark(incremental, Moment(ZoneInfo(zone), dates), NOW, lambda code, _: told.append(code)), told


@pytest.mark.parametrize(
    ("values", "before", "highest", "told"),
    [
        ([], None, None, []),
        ([], "5", "5", []),
        ([3, "12", 7], None, "12", []),
        ([3], "12", "12", []),
        # Times are compared as such, with a zone or without, and stay as they are written.
        (["2026-05-01T10:00:00+02:00", "2026-05-01T09:00:00Z"], None, "2026-05-01T09:00:00Z", []),
        (["2026-05-01 10:00:00", "2026-05-01 09:00:00"], None, "2026-05-01 10:00:00", []),
        # One that lies too far ahead would be the last that was ever asked for.
        (["2026-05-01", "9999-12-31"], None, "2026-05-01", ["cursor_ahead"]),
        (["2026-06-02T11:59:59Z"], None, "2026-06-02T11:59:59Z", []),
        (["2026-05-01", "2026-06-02T12:00:01Z"], "2026-04-01", "2026-05-01", ["cursor_ahead"]),
        (["9999-12-31"], None, None, ["cursor_ahead"]),
        # A watermark of before that lies too far ahead is not believed either.
        (["2026-05-01"], "9999-12-31", "2026-05-01", []),
        ([NOW_SECONDS, NOW_SECONDS + 86_401], None, str(NOW_SECONDS), ["cursor_ahead"]),
        ([NOW_SECONDS, "1e300"], None, str(NOW_SECONDS), ["cursor_ahead"]),
        ([NOW_SECONDS, NOW_SECONDS * 1000], None, str(NOW_SECONDS), ["cursor_ahead"]),
        ([NOW_SECONDS, 10**15], str(NOW_SECONDS - 1), str(NOW_SECONDS), ["cursor_ahead"]),
        ([NOW_SECONDS * 1000, NOW_SECONDS], None, str(NOW_SECONDS * 1000), []),
        # Counters may be as large as those of 64 bits, and pass through what look like seconds.
        ([7, 2**63 - 1, "1e300"], None, str(2**63 - 1), ["cursor_ahead"]),
        ([1_000_000_001], "999999999", "1000000001", []),
        # Times and numbers are never compared; the watermark of before, else the majority says which counts.
        (["2026-05-01", "2026-05-02", 5], None, "2026-05-02", ["cursor_mixed"]),
        (["2026-05-01", 5, 6], None, "6", ["cursor_mixed"]),
        (["2026-05-01", 5, 6], "2026-04-01", "2026-05-01", ["cursor_mixed"]),
        (["2026-05-01", "soon"], None, "2026-05-01", ["cursor_mixed"]),
        ([5, "1" * 1001], None, "5", ["cursor_mixed"]),
        ([5, None, "", {}, [], True], None, "5", []),
    ],
)
def test_what_moves_the_watermark(values: list[Any], before: str | None, highest: str | None, told: list[str]) -> None:
    rules, warnings = watermark()
    assert rules.highest([{"at": value} for value in values], before) == highest
    assert warnings == told


def test_how_far_ahead_a_time_may_lie_can_be_said() -> None:
    rules, told = watermark(ahead="9999d")
    assert rules.highest([{"at": "2030-01-01"}], None) == "2030-01-01"
    assert told == []


@pytest.mark.parametrize("value", ["soon", "nan", "infinity", "9" * 1001])
def test_where_no_value_means_anything_the_run_fails(value: str) -> None:
    rules, _ = watermark()
    with pytest.raises(FormatError) as caught:
        rules.highest([{"at": value}], None)
    assert caught.value.code == "bad_cursor"


def test_times_without_a_zone_are_those_of_the_source() -> None:
    rules, _ = watermark("America/New_York")
    # 20:00 in New York is midnight in UTC: later than 23:00Z, and than 19:30 of its own.
    values = ["2026-05-01T20:00:00", "2026-05-01T23:00:00Z", "2026-05-01T19:30:00"]
    assert rules.highest([{"at": value} for value in values], None) == "2026-05-01T20:00:00"


@pytest.mark.parametrize(
    ("zone", "dates", "since", "asked"),
    [
        ("UTC", (), "2026-05-01T10:00:00Z", "2026-05-01T09:00:00Z"),
        ("UTC", (), "2026-05-01T10:00:00+02:00", "2026-05-01T07:00:00Z"),
        ("Europe/Berlin", (), "2026-05-01T10:00:00", "2026-05-01T09:00:00"),
        # The hour before the clocks went forward.
        ("Europe/Berlin", (), "2026-03-29T03:30:00", "2026-03-29T01:30:00"),
        ("Europe/Berlin", ("%d.%m.%Y %H:%M",), "01.05.2026 00:30", "30.04.2026 23:30"),
        ("UTC", ("%Y%m%d%H",), "2026050100", "2026043023"),
        ("UTC", (), str(NOW_SECONDS), str(NOW_SECONDS - 3600)),
        ("UTC", (), str(NOW_SECONDS * 1000), str((NOW_SECONDS - 3600) * 1000)),
        ("UTC", (), "4711", "4711"),
    ],
)
def test_what_is_asked_for_is_written_as_the_source_writes_it(
    zone: str, dates: tuple[str, ...], since: str, asked: str
) -> None:
    rules, _ = watermark(zone, dates, lookback="1h")
    [(param, value)] = rules.since(since).parameters
    assert param == "since"
    assert value.removesuffix(".0") == asked


@pytest.mark.parametrize("since", [None, "", "9999-12-31", "1e300"])
def test_without_a_watermark_that_can_be_believed_everything_is_asked_for(since: str | None) -> None:
    assert watermark()[0].since(since).parameters == []
