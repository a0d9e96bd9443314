"""Slots on a real PostgreSQL: one run each, however many beats there are."""

from __future__ import annotations

import threading

from db.queries import sweep
from db.queries.declaring import apply_sources
from db.queries.slots import claim_slots, seconds_to_next
from etl.declare.catalog import Scheduled
from etl.declare.revision import Author, Origin
from etl.declare.source import Schedule, parse
from etl.runs.messages import ExtractMessage
from testkit.runner import SourceRunner


def source(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "type": "csv", "file": "x.csv", **more}


def make_due(runner: SourceRunner, minutes: int = 0) -> None:
    runner.sql(
        "UPDATE sources SET next_run_at = date_bin('30 min', now() - make_interval(mins => :m), 'epoch')", m=minutes
    )


def test_several_beats_make_one_run_for_a_slot(runner: SourceRunner) -> None:
    runner.declare(*(source(f"s{n}") for n in range(50)))
    make_due(runner)
    threads = [threading.Thread(target=lambda: runner.database.transact(claim_slots)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runner.sql("SELECT count(*), count(DISTINCT source_name) FROM etl_runs") == [(50, 50)]
    assert runner.database.transact(claim_slots) == ([], 0)
    assert runner.sql("SELECT DISTINCT trigger, status FROM etl_runs") == [("schedule", "queued")]


def test_after_downtime_the_newest_slot_runs(runner: SourceRunner) -> None:
    runner.declare(source("a"))
    make_due(runner, minutes=120)
    runs, claimed = runner.database.transact(claim_slots)
    assert (len(runs), claimed) == (1, 1)
    assert runner.sql("SELECT slots_missed FROM etl_runs") == [4]
    assert runner.sql("SELECT next_run_at > now() AND next_run_at <= now() + interval '30 min' FROM sources") == [True]


def test_a_slot_during_an_active_run_is_recorded_as_skipped(runner: SourceRunner) -> None:
    runner.declare(source("a"))
    runner.queue("a")
    make_due(runner)
    assert runner.database.transact(claim_slots) == ([], 1)
    query = "SELECT status, error_code FROM etl_runs WHERE trigger = 'schedule'"
    assert runner.sql(query) == [("skipped", "already_active")]


def test_disabled_and_paused_sources_have_no_slots(runner: SourceRunner) -> None:
    runner.declare(source("a", enabled=False), source("b"))
    runner.sql("UPDATE sources SET paused_until = now() + interval '1 h' WHERE name = 'b'")
    make_due(runner)
    assert runner.database.transact(claim_slots) == ([], 0)
    assert runner.database.transact(seconds_to_next) is None


def test_jitter_delays_the_dispatch_and_not_the_slot(runner: SourceRunner) -> None:
    runner.declare(source("a"))
    runner.sql("""UPDATE sources SET config = jsonb_set(config, '{schedule,jitter}', '"10000h"')""")
    make_due(runner)
    assert runner.database.transact(claim_slots) == ([], 1)
    assert runner.sql("SELECT not_before > now(), scheduled_for <= now(), dispatched_at IS NULL FROM etl_runs") == [
        (True, True, True)
    ]
    assert runner.database.transact(sweep.due_runs, queue_empty=True) == []
    runner.sql("UPDATE etl_runs SET not_before = now()")
    assert len(runner.database.transact(sweep.due_runs, queue_empty=True)) == 1


def test_an_edited_schedule_acts_at_once(runner: SourceRunner) -> None:
    runner.declare(source("a", schedule={"every": "30m"}))
    before = runner.sql("SELECT next_run_at FROM sources")
    runner.declare(source("a", schedule={"every": "30m"}, timeout="9s"))
    assert runner.sql("SELECT next_run_at FROM sources") == before


def test_a_source_that_left_the_file_goes_on_unless_it_is_pruned(runner: SourceRunner) -> None:
    runner.declare(source("a"), source("b"), source("c", enabled=False))
    left = [Scheduled(parse(source("a")), Schedule(every="30m"))]
    applied = runner.database.transact(apply_sources, left, Author(Origin.FILE, "file"))
    assert (applied.missing, applied.disabled) == (("b",), ())
    enabled = "SELECT name FROM sources WHERE enabled ORDER BY 1"
    assert runner.sql(enabled) == ["a", "b"]
    applied = runner.database.transact(apply_sources, left, Author(Origin.FILE, "file"), prune=True)
    assert (applied.missing, applied.disabled) == ((), ("b",))
    assert runner.sql(enabled) == ["a"]


def test_a_source_that_left_the_file_is_disabled(runner: SourceRunner) -> None:
    runner.declare(source("a"), source("b"))
    runner.declare(source("b"))
    assert runner.sql("SELECT name, enabled FROM sources ORDER BY name") == [("a", False), ("b", True)]


def test_lost_messages_are_sent_again_and_waiting_ones_are_not(runner: SourceRunner) -> None:
    runner.declare(*(source(f"s{n}") for n in range(3)))
    first, second, third = (runner.queue(f"s{n}") for n in range(3))
    runner.sql("UPDATE etl_runs SET dispatched_at = now() - interval '5 min' WHERE run_id = :id", id=first)
    runner.sql("UPDATE etl_runs SET dispatched_at = now() - interval '4 min' WHERE run_id = :id", id=second)
    runner.sql("UPDATE etl_runs SET dispatched_at = now() - interval '3 min' WHERE run_id = :id", id=third)
    # The queue is not empty and nothing later was taken: the messages may still be on their way.
    assert runner.database.transact(sweep.due_runs, queue_empty=False) == []
    runner.sql("UPDATE etl_runs SET claimed_at = now() WHERE run_id = :id", id=second)
    assert runner.database.transact(sweep.due_runs, queue_empty=False) == [ExtractMessage(first)]
    assert runner.database.transact(sweep.due_runs, queue_empty=True) == [ExtractMessage(third)]
    assert runner.database.transact(sweep.due_runs, queue_empty=True) == []
    assert sorted(runner.sql("SELECT dispatch_count FROM etl_runs")) == [0, 1, 1]


def test_a_message_that_could_not_be_sent_is_due_again(runner: SourceRunner) -> None:
    runner.declare(source("a"))
    run_id = runner.queue("a")
    runner.database.transact(sweep.unsend_runs, [ExtractMessage(run_id)])
    assert runner.database.transact(sweep.due_runs, queue_empty=False) == [ExtractMessage(run_id)]


def test_a_backlog_is_not_sent_again_and_again(runner: SourceRunner) -> None:
    """3,000 runs due at once, drained at 50 a second by a queue that keeps its order."""
    runner.sql("""
        INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, created_at)
        SELECT gen_random_uuid(), 's' || n, 'csv', 'schedule', 'queued', 'queued', now() - interval '1 hour'
        FROM generate_series(1, 3000) n
    """)
    queue: list[str] = []
    sent = taken = 0
    while taken < 3_000:
        # A pass every two seconds of pretended time: everything that has happened moves two seconds into the past.
        runner.sql("""
            UPDATE etl_runs SET dispatched_at = dispatched_at - interval '2 s', claimed_at = claimed_at - interval '2 s'
            WHERE dispatched_at IS NOT NULL
        """)
        found = runner.database.transact(sweep.due_runs, queue_empty=not queue)
        sent += len(found)
        queue += [str(message.run_id) for message in found]
        for run_id in queue[:100]:
            taken += len(
                runner.sql(
                    "UPDATE etl_runs SET claimed_at = now() WHERE run_id = :id AND claimed_at IS NULL RETURNING 1",
                    id=run_id,
                )
            )
        del queue[:100]
        assert sent < 3_300
