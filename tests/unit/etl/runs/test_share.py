"""How long a source may hold a process, by hand."""

from __future__ import annotations

import pytest

from etl.runs.share import Pace, set_aside_for, slow_processes


@pytest.mark.parametrize(("processes", "slow"), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (8, 4)])
def test_slow_sources_never_hold_the_last_process(processes: int, slow: int) -> None:
    assert slow_processes(processes) == slow


@pytest.mark.parametrize(
    ("pace", "timeout", "within"),
    [
        (Pace(), 30.0, 5.0),
        (Pace(), 3.0, 3.0),
        (Pace(answered=False), 30.0, 1.0),
        (Pace(answered=False, misses=1), 30.0, 4.0),
        (Pace(answered=False, misses=2), 30.0, 16.0),
        (Pace(answered=True, misses=1), 30.0, 20.0),
        (Pace(answered=True, misses=2), 30.0, 30.0),
        (Pace(answered=True, misses=99), 600.0, 600.0),
        (Pace(answered=True, misses=2, slow=True, alone=True), 30.0, 5.0),
        (Pace(answered=True, alone=True), 30.0, 5.0),
    ],
)
def test_a_source_gets_longer_with_each_miss(pace: Pace, timeout: float, within: float) -> None:
    assert pace.answer_within(timeout) == within


def test_slices_are_short_only_where_they_would_hold_the_one_process() -> None:
    assert Pace(slow=True, alone=True).slice_seconds(60) == 5
    assert Pace(slow=True).slice_seconds(60) == Pace(alone=True).slice_seconds(60) == 60


@pytest.mark.parametrize(
    ("deaths", "seconds"), [(0, None), (2, None), (3, 3600), (4, 7200), (5, 14_400), (8, 86_400), (1000, 86_400)]
)
def test_a_deadly_source_is_set_aside_for_longer_each_time(deaths: int, seconds: float | None) -> None:
    assert set_aside_for(deaths) == seconds
