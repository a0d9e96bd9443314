"""Lengths of time as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from etl.declare.duration import duration, written


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(minutes=30), "30m"),
        (timedelta(minutes=90), "90m"),
        (timedelta(hours=2), "2h"),
        (timedelta(days=7), "7d"),
        (timedelta(hours=36), "36h"),
        (timedelta(seconds=61), "61s"),
        (timedelta(milliseconds=1500), "1500ms"),
        (timedelta(seconds=1, microseconds=900), "1000ms"),
    ],
)
def test_a_length_is_written_in_its_largest_whole_unit(length: timedelta, text: str) -> None:
    assert written(length) == text
    assert abs(duration(text) - length) < timedelta(milliseconds=1)
