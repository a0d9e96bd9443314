"""The clock of the database is set back: told from times that lie ahead, which is how it looks afterwards."""

from __future__ import annotations

from datetime import timedelta

from db.queries import sweep
from db.queries.alarms import list_alarms
from db.queries.clock import follow_clock
from db.queries.closing import end_run
from db.queries.processes import beat_heart, count_alive
from db.queries.runs import claim_run
from db.queries.slots import claim_slots
from etl.runs.outcome import Failure, Outcome, Status
from testkit.runner import SourceRunner

HOURS = timedelta(hours=2)


def source(name: str) -> dict[str, object]:
    return {"name": name, "type": "csv", "file": "x.csv"}


def set_back(runner: SourceRunner, by: timedelta = HOURS) -> None:
    """All that was written before lies ahead."""
    for table, columns in {
        "etl_workers": ("seen_at", "started_at"),
        "etl_runs": (
            *("created_at", "started_at", "completed_at", "lease_expires_at", "not_before", "dispatched_at"),
            *("claimed_at", "scheduled_for"),
        ),
        "sources": ("next_run_at", "not_before"),
    }.items():
        changes = ", ".join(f"{name} = {name} + make_interval(secs => :seconds)" for name in columns)
        runner.sql(f"UPDATE {table} SET {changes}", seconds=by.total_seconds())


def follow(runner: SourceRunner) -> float | None:
    return runner.database.transact(follow_clock)


def test_a_clock_that_goes_is_left_alone(runner: SourceRunner) -> None:
    runner.declare(source("a"))
    runner.queue("a")
    runner.database.transact(beat_heart, "w", "worker", 2)
    before = runner.sql("SELECT * FROM etl_runs")
    assert follow(runner) is None
    assert runner.sql("SELECT * FROM etl_runs") == before
    assert runner.database.read(list_alarms) == []


def test_the_next_slot_comes_within_one_interval_and_is_run(runner: SourceRunner) -> None:
    runner.declare(source("a"))
    runner.sql("UPDATE sources SET next_run_at = date_bin('30 min', now(), 'epoch')")
    runner.database.transact(claim_slots)
    (run_id,) = runner.sql("SELECT run_id FROM etl_runs")
    runner.database.transact(end_run, run_id, Outcome(Status.CANCELLED, Failure("x", "x")))
    set_back(runner)
    # A slot that has been run ahead of its time is that of the clock as it is now.
    runner.sql("UPDATE etl_runs SET scheduled_for = date_bin('30 min', now() + interval '30 min', 'epoch')")
    found = follow(runner)
    assert found is not None
    assert 7100 < found < 7210
    (wait,) = runner.sql("SELECT next_run_at - now() FROM sources")
    assert timedelta(0) < wait <= timedelta(minutes=30)
    runner.sql("UPDATE sources SET next_run_at = next_run_at - interval '30 min'")
    runner.sql("UPDATE sources SET next_run_at = least(next_run_at, now())")
    assert len(runner.database.transact(claim_slots)[0]) == 1
    assert follow(runner) is None, "it is noticed once"
    (detail,) = runner.sql("SELECT detail FROM etl_run_events WHERE event = 'clock_set_back'")
    assert detail["scheduled_for"]


def test_leases_waits_and_heartbeats_end_as_they_would_have(runner: SourceRunner) -> None:
    runner.declare(source("held"), source("waiting"), source("lost"))
    held, waiting, lost = (runner.queue(name) for name in ("held", "waiting", "lost"))
    for run_id in (held, lost):
        assert runner.database.transact(claim_run, run_id, "w", 60.0)
    runner.sql("UPDATE etl_runs SET lease_expires_at = now() - interval '1 s' WHERE run_id = :id", id=lost)
    runner.sql("UPDATE etl_runs SET not_before = now() + interval '40 s' WHERE run_id = :id", id=waiting)
    runner.database.transact(beat_heart, "w", "worker", 2)
    set_back(runner)
    assert follow(runner) is not None
    ends = "SELECT extract(epoch FROM coalesce(lease_expires_at, not_before) - now())::int FROM etl_runs WHERE run_id = :id"
    assert 50 < runner.sql(ends, id=held)[0] <= 62
    assert 30 < runner.sql(ends, id=waiting)[0] <= 42
    assert runner.database.transact(sweep.take_over_runs) == 1
    assert runner.sql("SELECT count(*) FROM etl_runs WHERE created_at > now() OR dispatched_at > now()") == [0]
    runner.sql("UPDATE etl_workers SET seen_at = seen_at - interval '31 s'")
    assert runner.database.read(count_alive, "worker") == 0


def test_what_was_written_since_keeps_its_time(runner: SourceRunner) -> None:
    runner.declare(source("old"), source("new"))
    runner.queue("old")
    set_back(runner)
    new = runner.queue("new")
    assert runner.database.transact(claim_run, new, "w", 60.0)
    assert follow(runner) is not None
    (left,) = runner.sql(
        "SELECT extract(epoch FROM lease_expires_at - now())::int FROM etl_runs WHERE run_id = :id", id=new
    )
    assert 50 < left <= 60


def test_it_is_told_for_an_hour(runner: SourceRunner) -> None:
    runner.declare(source("a"))
    runner.queue("a")
    set_back(runner)
    assert follow(runner) is not None
    (alarm,) = runner.database.read(list_alarms)
    assert (alarm.code, "set back by 7" in alarm.message) == ("clock_set_back", True)
    runner.sql("UPDATE etl_alarms SET since = since - interval '59 min'")
    assert follow(runner) is None
    assert len(runner.database.read(list_alarms)) == 1
    runner.sql("UPDATE etl_alarms SET since = since - interval '2 min'")
    assert follow(runner) is None
    assert runner.database.read(list_alarms) == []
