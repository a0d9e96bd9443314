"""Which points the fault suite aims at."""

from __future__ import annotations

from bench.faults.driver import Execution
from bench.faults.points import DATABASE_KINDS, PROCESS_KINDS, Event, Point, is_seen, one_execution, plan


def _task(stage: str) -> list[Event]:
    """Two transactions, the second with a COPY."""
    execution = Execution(stage)
    return [
        execution.note("statement", "UPDATE", first=True),
        execution.note("commit", "", first=False),
        execution.note("statement", "SELECT", first=True),
        execution.note("copy", "COPY", first=False),
        execution.note("commit", "", first=False),
    ]


def test_no_point_is_aimed_at_twice_under_two_names() -> None:
    points = plan("load", _task("load"), DATABASE_KINDS)
    assert Point("load", "statement", 1, "before") in points
    assert Point("load", "commit", 1, "after") in points
    assert Point("load", "statement", 2, "before") not in points, "it is that after commit 1"
    assert len(points) == len(set(points)) == 1 + 2 + 2 * 3


def test_a_process_is_killed_around_its_commits_only() -> None:
    assert {(point.kind, point.when) for point in plan("load", _task("load"), PROCESS_KINDS)} == {
        ("commit", "before"),
        ("commit", "after"),
    }


def test_of_what_repeats_the_first_and_the_last_are_aimed_at() -> None:
    execution = Execution("staging")
    commits = [execution.note("commit", "", first=False) for _ in range(30)]
    assert {point.n for point in plan("staging", commits, DATABASE_KINDS)} == {1, 2, 30}


def test_a_stage_ends_with_the_transaction_that_wrote_to_its_table() -> None:
    execution = Execution("fetch")
    execution.follow(["SELECT 1 FROM raw_data"])
    assert execution.stage == "fetch"
    execution.follow(["COPY raw_data (id) FROM STDIN"])
    assert execution.stage == "staging"
    assert execution.note("statement", "", first=True).n == 1


def test_a_try_to_close_that_closed_nothing_is_not_the_one_that_is_counted() -> None:
    short, long = _task("closing")[:2], _task("closing")
    assert one_execution(short + long, "closing") == long
    assert one_execution(short + long, "load") == []


def test_a_stage_that_did_not_do_what_it_is_there_for_was_not_seen() -> None:
    assert not is_seen("staging", _task("staging"))
    assert is_seen("staging", [Execution("staging").note("copy", "COPY staged_items (batch_id) FROM", first=False)])
    assert not is_seen("load", [])
