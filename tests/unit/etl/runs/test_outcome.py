"""How a run ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as replace_struct

from etl.records import Checkpoint, Counts, FileMark, Kept, Position, Validator
from etl.runs.outcome import Failure, Marks, Outcome, Status, Tally, judge, left_behind, must_stop


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


def tally(**more: Any) -> Tally:
    start = Tally(
        extraction_over=True, open_batches=0, counts=Counts(), failure=None, max_rejected=50, position=Position()
    )
    return replace(start, **more)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (tally(extraction_over=False), None),
        (tally(open_batches=1), None),
        (tally(), Status.SUCCESS),
        (tally(failure=Failure("timeout", "m")), Status.FAILED),
        (tally(failure=Failure("breaker_open", "m")), Status.SKIPPED),
        (tally(failure=Failure("breaker_open", "m"), counts=Counts(extracted=1, inserted=1)), Status.PARTIAL),
        (tally(failure=Failure("timeout", "m"), open_batches=1), None),
        # Too much is rejected: at once, whatever is under way.
        (tally(extraction_over=False, open_batches=8, counts=Counts(extracted=2000, failed=1500)), Status.FAILED),
        (tally(extraction_over=False, counts=Counts(extracted=200, failed=150)), None),
        (tally(max_rejected=100, counts=Counts(extracted=2000, failed=1500, inserted=500)), Status.PARTIAL),
    ],
)
def test_when_a_run_ends(given: Tally, status: Status | None) -> None:
    outcome = given.outcome()
    assert (outcome and outcome.status) == status


KEPT = Kept(Validator("r", etag="x"), {"a": FileMark("d", 9), "log": FileMark("e", 5, appending=True)})
READ = Position(config="c", mapping=2, watermark="w", kept=KEPT)
SUCCESS, PARTIAL = Outcome(Status.SUCCESS), Outcome(Status.PARTIAL)
FAILED, SKIPPED, CANCELLED = Outcome(Status.FAILED), Outcome(Status.SKIPPED), Outcome(Status.CANCELLED)
STORED = Counts(extracted=5, inserted=5)
BROKEN_OFF = Failure("timeout", "m")


@pytest.mark.parametrize(
    ("outcome", "given", "left"),
    [
        (SUCCESS, tally(position=READ, counts=STORED), Checkpoint("watermark", 1, "c", 2, "w", KEPT)),
        (SUCCESS, tally(position=replace_struct(READ, watermark=None)), Checkpoint("kept", 1, "c", 2, None, KEPT)),
        (SUCCESS, tally(position=replace_struct(READ, kept=None)), Checkpoint("watermark", 1, "c", 2, "w", Kept())),
        # A source that shows no mark of any kind: what an earlier run knew of it holds no longer, if this one stored.
        (SUCCESS, tally(), Marks.KEPT),
        (SUCCESS, tally(counts=STORED), Marks.FORGOTTEN),
        # After rejects what is unchanged is read again; a file that grows goes on where it ended.
        (
            PARTIAL,
            tally(position=READ, counts=STORED),
            Checkpoint("watermark", 1, "c", 2, "w", Kept(None, {"log": KEPT.files["log"]})),
        ),
        # What was broken off leaves the old one, without its marks if something was stored.
        (PARTIAL, tally(position=READ, counts=STORED, failure=BROKEN_OFF), Marks.FORGOTTEN),
        (FAILED, tally(position=READ, failure=BROKEN_OFF), Marks.KEPT),
        (FAILED, tally(position=READ, counts=STORED), Marks.FORGOTTEN),
        (SKIPPED, tally(position=READ), Marks.KEPT),
        (CANCELLED, tally(position=READ, counts=STORED), Marks.FORGOTTEN),
        (CANCELLED, tally(position=READ), Marks.KEPT),
    ],
)
def test_what_a_run_leaves_to_the_next_one(outcome: Outcome, given: Tally, left: Checkpoint | Marks) -> None:
    assert left_behind(outcome, given) == left
