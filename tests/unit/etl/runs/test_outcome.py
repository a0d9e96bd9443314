"""How a run ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as replace_struct

from etl.records import Checkpoint, Counts, FileMark, Kept, Position, Validator
from etl.runs.outcome import Failure, Marks, Outcome, RejectLimits, Status, Tally, left_behind


def tally(**more: Any) -> Tally:
    start = Tally(
        extraction_over=True,
        open_batches=0,
        counts=Counts(),
        failure=None,
        max_rejected=RejectLimits(),
        position=Position(),
    )
    return replace(start, **more)


def many(extracted: int, **more: int) -> Counts:
    return Counts(extracted=extracted, **more)


@pytest.mark.parametrize(
    ("counts", "more", "status"),
    [
        (many(0), {}, Status.SUCCESS),
        (many(2, inserted=2), {}, Status.SUCCESS),
        (many(2, inserted=1, failed=1), {}, Status.PARTIAL),
        # A share of a few says nothing.
        (many(3, inserted=1, failed=2), {}, Status.PARTIAL),
        (many(19, inserted=1, failed=18), {}, Status.PARTIAL),
        (many(20, inserted=10, failed=10), {}, Status.PARTIAL),
        (many(20, inserted=9, failed=11), {}, Status.FAILED),
        (many(1000, unchanged=981, inserted=1, failed=18), {}, Status.PARTIAL),
        (many(1000, unchanged=900, inserted=40, failed=60), {}, Status.FAILED),
        # All of what there is.
        (many(1, failed=1), {}, Status.FAILED),
        (many(8, failed=8, failed_again=8), {}, Status.FAILED),
        # All of what is new.
        (many(1, failed=1), {"may_lack_new": True}, Status.PARTIAL),
        (many(1, failed=1, failed_again=1), {"may_lack_new": True}, Status.PARTIAL),
        (many(20, failed=20), {"may_lack_new": True}, Status.FAILED),
        # What came again as it is in quarantine is no news.
        (many(40, inserted=1, unchanged=18, failed=21, failed_again=21), {}, Status.PARTIAL),
        (many(100, inserted=40, failed=60, failed_again=41), {}, Status.PARTIAL),
        (many(0), {"failure": Failure("x", "y")}, Status.FAILED),
        (many(2, inserted=2), {"failure": Failure("x", "y")}, Status.PARTIAL),
    ],
)
def test_how_a_run_ends(counts: Counts, more: dict[str, Any], status: Status) -> None:
    outcome = tally(counts=counts, **more).outcome()
    assert outcome
    assert outcome.status is status


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (many(3, inserted=2, failed=1), "1 records were quarantined"),
        (many(3, inserted=1, failed=2, failed_again=1), "1 records were quarantined, 1 came again as they are in"),
        (many(3, inserted=1, failed=2, failed_again=2), "2 came again as they are in quarantine"),
        (many(3, failed=3), "all 3 records were rejected"),
        (many(40, inserted=10, failed=30, failed_again=5), "25 of 35 new records were rejected; the limit is 50 %"),
    ],
)
def test_it_says_how_many_were_rejected(counts: Counts, message: str) -> None:
    outcome = tally(counts=counts).outcome()
    assert outcome
    assert outcome.failure
    assert outcome.failure.message.startswith(message)


def test_a_run_is_judged_midway_only_with_enough_records() -> None:
    def stops(**counts: int) -> bool:
        return tally(extraction_over=False, counts=Counts(**counts)).outcome() is not None

    assert not stops(extracted=999, failed=999)
    assert stops(extracted=1000, failed=501, inserted=499)
    assert not stops(extracted=1000, failed=500, inserted=500)
    assert not stops(extracted=1500, failed=1100, failed_again=1000, inserted=400)


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
        (
            tally(max_rejected=RejectLimits(100), counts=Counts(extracted=2000, failed=1500, inserted=500)),
            Status.PARTIAL,
        ),
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
