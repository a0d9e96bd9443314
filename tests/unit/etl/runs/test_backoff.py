"""Waits between attempts."""

from __future__ import annotations

from etl.runs.backoff import LONGEST_BACKOFF, wait_before


def test_waits_double_and_are_bounded() -> None:
    assert [wait_before(n, 0) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert wait_before(1, 1) == 0.5
    assert wait_before(10**6, 0) == LONGEST_BACKOFF
