"""Slots on a real PostgreSQL: one run each, however many beats there are."""

from __future__ import annotations

import threading

from db.queries import sweep
from db.queries.slots import claim_slots, seconds_to_next
from etl.runs.messages import ExtractMessage
from testkit.runner import Pump


def source(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "type": "csv", "file": "x.csv", **more}


def make_due(pump: Pump, minutes: int = 0) -> None:
    pump.sql(
        "UPDATE sources SET next_run_at = date_bin('30 min', now() - make_interval(mins => :m), 'epoch')", m=minutes
    )


def test_several_beats_make_one_run_for_a_slot(pump: Pump) -> None:
    pump.declare(*(source(f"s{n}") for n in range(50)))
    make_due(pump)
    threads = [threading.Thread(target=lambda: pump.database.transact(claim_slots)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pump.sql("SELECT count(*), count(DISTINCT source_name) FROM etl_runs") == [(50, 50)]
    assert pump.database.transact(claim_slots) == ([], 0)
    assert pump.sql("SELECT DISTINCT trigger, status FROM etl_runs") == [("schedule", "queued")]


def test_after_downtime_the_newest_slot_runs(pump: Pump) -> None:
    pump.declare(source("a"))
    make_due(pump, minutes=120)
    runs, claimed = pump.database.transact(claim_slots)
    assert (len(runs), claimed) == (1, 1)
    assert pump.sql("SELECT slots_missed FROM etl_runs") == [4]
    assert pump.sql("SELECT next_run_at > now() AND next_run_at <= now() + interval '30 min' FROM sources") == [True]


def test_a_slot_during_an_active_run_is_recorded_as_skipped(pump: Pump) -> None:
    pump.declare(source("a"))
    pump.queue("a")
    make_due(pump)
    assert pump.database.transact(claim_slots) == ([], 1)
    query = "SELECT status, error_code FROM etl_runs WHERE trigger = 'schedule'"
    assert pump.sql(query) == [("skipped", "already_active")]


def test_disabled_and_paused_sources_have_no_slots(pump: Pump) -> None:
    pump.declare(source("a", enabled=False), source("b"))
    pump.sql("UPDATE sources SET paused_until = now() + interval '1 h' WHERE name = 'b'")
    make_due(pump)
    assert pump.database.transact(claim_slots) == ([], 0)
    assert pump.database.transact(seconds_to_next) is None


def test_jitter_delays_the_dispatch_and_not_the_slot(pump: Pump) -> None:
    pump.declare(source("a"))
    pump.sql("""UPDATE sources SET config = jsonb_set(config, '{schedule,jitter}', '"10000h"')""")
    make_due(pump)
    assert pump.database.transact(claim_slots) == ([], 1)
    assert pump.sql("SELECT not_before > now(), scheduled_for <= now(), dispatched_at IS NULL FROM etl_runs") == [
        (True, True, True)
    ]
    assert pump.database.transact(sweep.due_runs, queue_empty=True) == []
    pump.sql("UPDATE etl_runs SET not_before = now()")
    assert len(pump.database.transact(sweep.due_runs, queue_empty=True)) == 1


def test_an_edited_schedule_acts_at_once(pump: Pump) -> None:
    pump.declare(source("a", schedule={"every": "30m"}))
    before = pump.sql("SELECT next_run_at FROM sources")
    pump.declare(source("a", schedule={"every": "30m"}, timeout="9s"))
    assert pump.sql("SELECT next_run_at FROM sources") == before


def test_a_source_that_left_the_file_is_disabled(pump: Pump) -> None:
    pump.declare(source("a"), source("b"))
    pump.declare(source("b"))
    assert pump.sql("SELECT name, enabled FROM sources ORDER BY name") == [("a", False), ("b", True)]


def test_lost_messages_are_sent_again_and_waiting_ones_are_not(pump: Pump) -> None:
    pump.declare(*(source(f"s{n}") for n in range(3)))
    first, second, third = (pump.queue(f"s{n}") for n in range(3))
    pump.sql("UPDATE etl_runs SET dispatched_at = now() - interval '5 min' WHERE run_id = :id", id=first)
    pump.sql("UPDATE etl_runs SET dispatched_at = now() - interval '4 min' WHERE run_id = :id", id=second)
    pump.sql("UPDATE etl_runs SET dispatched_at = now() - interval '3 min' WHERE run_id = :id", id=third)
    # The queue is not empty and nothing later was taken: the messages may still be on their way.
    assert pump.database.transact(sweep.due_runs, queue_empty=False) == []
    pump.sql("UPDATE etl_runs SET claimed_at = now() WHERE run_id = :id", id=second)
    assert pump.database.transact(sweep.due_runs, queue_empty=False) == [ExtractMessage(first)]
    assert pump.database.transact(sweep.due_runs, queue_empty=True) == [ExtractMessage(third)]
    assert pump.database.transact(sweep.due_runs, queue_empty=True) == []
    assert sorted(pump.sql("SELECT dispatch_count FROM etl_runs")) == [0, 1, 1]


def test_a_message_that_could_not_be_sent_is_due_again(pump: Pump) -> None:
    pump.declare(source("a"))
    run_id = pump.queue("a")
    pump.database.transact(sweep.unsend_runs, [ExtractMessage(run_id)])
    assert pump.database.transact(sweep.due_runs, queue_empty=False) == [ExtractMessage(run_id)]


def test_a_backlog_is_not_sent_again_and_again(pump: Pump) -> None:
    """3,000 runs due at once, drained at 50 a second by a queue that keeps its order."""
    pump.sql("""
        INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, created_at)
        SELECT gen_random_uuid(), 's' || n, 'csv', 'schedule', 'queued', 'queued', now() - interval '1 hour'
        FROM generate_series(1, 3000) n
    """)
    queue: list[str] = []
    sent = taken = 0
    while taken < 3_000:
        # A pass every two seconds of pretended time: everything that has happened moves two seconds into the past.
        pump.sql("""
            UPDATE etl_runs SET dispatched_at = dispatched_at - interval '2 s', claimed_at = claimed_at - interval '2 s'
            WHERE dispatched_at IS NOT NULL
        """)
        found = pump.database.transact(sweep.due_runs, queue_empty=not queue)
        sent += len(found)
        queue += [str(message.run_id) for message in found]
        for run_id in queue[:100]:
            taken += len(
                pump.sql(
                    "UPDATE etl_runs SET claimed_at = now() WHERE run_id = :id AND claimed_at IS NULL RETURNING 1",
                    id=run_id,
                )
            )
        del queue[:100]
        assert sent < 3_300
