"""How a run ends."""

from __future__ import annotations

import pytest

from etl.records import Counts
from etl.runs.outcome import Failure, Status, judge, must_stop


@pytest.mark.parametrize(
    ("counts", "failure", "status"),
    [
        (Counts(), None, Status.SUCCESS),
        (Counts(extracted=2, inserted=2), None, Status.SUCCESS),
        (Counts(extracted=2, inserted=1, failed=1), None, Status.PARTIAL),
        (Counts(extracted=3, inserted=1, failed=2), None, Status.FAILED),
        (Counts(extracted=1, failed=1), None, Status.FAILED),
        (Counts(), Failure("x", "y"), Status.FAILED),
        (Counts(extracted=2, inserted=2), Failure("x", "y"), Status.PARTIAL),
    ],
)
def test_how_a_run_ends(counts: Counts, failure: Failure | None, status: Status) -> None:
    assert judge(counts, failure, 50).status is status


def test_a_run_is_judged_midway_only_with_enough_records() -> None:
    assert must_stop(Counts(extracted=999, failed=999), 50) is None
    assert must_stop(Counts(extracted=1000, failed=501, inserted=499), 50)
    assert must_stop(Counts(extracted=1000, failed=500, inserted=500), 50) is None
