"""The statistics of two versions that were measured in pairs."""

from __future__ import annotations

import pytest

from bench.speed.comparison import Comparison, Figures, in_turns


def comparison(*ratios: float, least: float = 0.95) -> Comparison:
    return Comparison("rows/s", [(1000.0, 1000.0 * ratio) for ratio in ratios], least)


def test_what_counts_is_the_ratio_within_a_pair_and_not_that_of_the_medians() -> None:
    """A machine that grows slower from pair to pair has made neither version slower."""
    slowing = Comparison("rows/s", [(100.0, 110.0), (50.0, 55.0), (10.0, 11.0)], 0.95)
    assert slowing.ratios == pytest.approx([1.1, 1.1, 1.1])


def test_median_and_quartiles_lie_between_the_pairs_own_ratios() -> None:
    assert comparison(1.2, 0.8, 1.0, 0.9, 1.1).quartiles == pytest.approx((0.9, 1.0, 1.1))
    assert comparison(0.9, 1.0, 1.1, 1.4).quartiles == pytest.approx((0.975, 1.05, 1.175))
    assert comparison(0.9, 1.1).quartiles == pytest.approx((0.95, 1.0, 1.05))


def test_a_single_pair_has_its_ratio_as_every_quartile() -> None:
    assert comparison(0.5).quartiles == (0.5, 0.5, 0.5)


def test_one_slow_pair_misses_no_aim_and_a_slow_median_does() -> None:
    assert comparison(0.5, 1.0, 1.0).met
    assert comparison(0.95, 0.95, 0.95).met
    assert not comparison(0.94, 0.94, 2.0).met


def test_a_line_shows_both_medians_the_ratio_and_its_spread() -> None:
    line = comparison(1.0, 0.85, 1.1, 0.8, 0.9).line()
    assert " ".join(line.split()) == "rows/s 1,000.0 900.0 0.900 0.80 0.85 1.00 1.10 >= 0.95 MISSED"


def test_old_and_new_take_turns_in_going_first() -> None:
    asked: list[str] = []

    def measure(name: str) -> Figures:
        asked.append(name)
        return {name: float(len(asked))}

    pairs = in_turns(lambda: measure("old"), lambda: measure("new"), 3)
    assert asked == ["old", "new", "new", "old", "old", "new"]
    assert [(before["old"], after["new"]) for before, after in pairs] == [(1.0, 2.0), (4.0, 3.0), (5.0, 6.0)]
