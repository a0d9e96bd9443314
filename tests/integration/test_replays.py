"""Replays: what is stored driven again through the mapping of today, without asking the source."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from db.queries.closing import end_run
from db.queries.readers import renew_readers
from db.queries.replays import queue_replay
from db.queries.sweep import due_runs
from db.queries.totals import roll_up
from etl.errors import AlreadyActiveError, NothingToReplayError
from etl.mapping.reader import READER
from etl.runs.messages import ExtractMessage
from etl.runs.outcome import Outcome, Status, Trigger
from etl.runs.replays import CaseFilter, Scope
from testkit.runner import SourceRunner

BY_NAME = {"external_id": "id", "title": "name", "amount": "price"}
BY_BRAND = {"external_id": "id", "title": "brand", "amount": "price"}
# What no run but a fetch may touch.
OF_FETCH = """
    SELECT ROW(c.value, c.version, c.run_id, c.total_runs, c.total_success, c.last_run_at, c.last_status,
               s.not_before, s.moved_to, s.gone_reason, s.misses, s.deaths, s.next_run_at)::text
    FROM sources s JOIN etl_checkpoints c ON c.source_name = s.name WHERE s.name = 'shop'
"""


def shop(**more: Any) -> dict[str, Any]:
    return {"name": "shop", "type": "csv", "file": "shop.csv", **more}


def table(count: int, price: str = "{n}") -> str:
    head = "id,name,brand,price\n"
    return head + "".join(f"{n},pot {n},acme {n},{price.format(n=n)}\n" for n in range(count))


def counts(run: dict[str, Any]) -> dict[str, int]:
    names = ("extracted", "inserted", "updated", "unchanged", "duplicate", "failed", "corrected")
    return {name: run[f"records_{name}"] for name in names if run[f"records_{name}"]}


def settle(runner: SourceRunner) -> None:
    runner.database.transact(roll_up)


def test_all_is_driven_again_by_the_mapping_of_today(runner: SourceRunner) -> None:
    runner.settings = replace(runner.settings, batch_size=10)
    runner.write("shop.csv", table(25))
    runner.declare(shop(map=BY_NAME), {"name": "other", "type": "csv", "file": "shop.csv"})
    runner.run("shop")
    runner.run("other")
    runner.declare(shop(map=BY_BRAND), {"name": "other", "type": "csv", "file": "shop.csv"})
    (runner.folder / "shop.csv").unlink()
    settle(runner)
    before = runner.sql(OF_FETCH)
    run = runner.replay("shop")
    assert (run["status"], run["lane"], run["trigger"]) == ("success", "replay", "replay")
    assert counts(run) == {"extracted": 25, "updated": 25, "corrected": 25}
    assert sorted(runner.sql("SELECT title FROM unified_items WHERE source_name = 'shop'")) == sorted(
        f"acme {n}" for n in range(25)
    )
    assert set(runner.sql("SELECT title || mapping_version FROM unified_items WHERE source_name = 'other'")) == {
        f"pot {n}1" for n in range(25)
    }
    settle(runner)
    assert runner.sql(OF_FETCH) == before
    assert runner.sql("SELECT count(*) FROM raw_data") == [50]
    again = runner.replay("shop")
    assert counts(again) == {"extracted": 25, "unchanged": 25}


def test_a_newer_record_is_never_overwritten(runner: SourceRunner) -> None:
    runner.write("shop.csv", table(3, price="1"))
    runner.declare(shop(map=BY_NAME))
    runner.run("shop")
    runner.write("shop.csv", table(3, price="2"))
    runner.run("shop")
    runner.declare(shop(map=BY_BRAND))
    assert counts(runner.replay("shop")) == {"extracted": 3, "updated": 3, "corrected": 3}
    assert runner.sql("SELECT title, amount FROM unified_items ORDER BY 1") == [(f"acme {n}", 2) for n in range(3)]


def test_what_changes_nothing_that_is_served_is_not_said_to_have_changed(runner: SourceRunner) -> None:
    runner.write("shop.csv", "id,name,date\n1,pot,\n2,pan,2026-05-01 10:00:00\n")
    runner.declare(shop())
    runner.run("shop")
    served = "SELECT external_id, ROW(updated_at, change_xid)::text FROM unified_items"
    before = dict(runner.sql(served))
    runner.declare(shop(timezone="Europe/Berlin"))
    assert counts(runner.replay("shop")) == {"extracted": 2, "updated": 1, "unchanged": 1, "corrected": 1}
    after = dict(runner.sql(served))
    assert (after["1"] == before["1"], after["2"] == before["2"]) == (True, False)
    assert set(runner.sql("SELECT mapping_version FROM unified_items")) == {2}


def test_cases_that_fit_are_redriven_and_the_others_stay(runner: SourceRunner) -> None:
    runner.write("shop.csv", "id,name,price,when\n1,pot,1,\n2,pan,n/a,\n3,lid,3,soon\n4,tin,?,\n")
    mapping = {"external_id": "id", "title": "name", "amount": "price", "published_at": "when"}
    runner.declare(shop(map=mapping))
    assert counts(runner.run("shop")) == {"extracted": 4, "inserted": 1, "failed": 3}
    runner.declare(shop(map=mapping, nulls=["n/a"]))
    run = runner.replay("shop", Scope(cases=CaseFilter()), Trigger.REDRIVE)
    assert (run["status"], run["trigger"]) == ("partial", "redrive")
    assert counts(run) == {"extracted": 3, "inserted": 1, "failed": 2}
    cases = runner.sql("SELECT external_id, state, attempts, mapping_version FROM rejected_records ORDER BY id")
    assert cases == [("2", "redriven", 1, 1), ("3", "open", 2, 2), ("4", "open", 2, 2)]
    earlier = runner.sql("SELECT earlier -> 0 ->> 'field' FROM rejected_records WHERE external_id = '3'")
    assert earlier == ["published_at"]
    # What comes again unchanged opens nothing.
    runner.sql("DELETE FROM etl_checkpoints RETURNING 1")
    assert counts(runner.run("shop")) == {"extracted": 4, "unchanged": 2, "failed": 2}
    assert runner.sql("SELECT count(*) FROM rejected_records") == [3]
    # By rule and field, and by id.
    runner.declare(shop(map=mapping, nulls=["n/a", "soon"]))
    run = runner.replay("shop", Scope(cases=CaseFilter(field="published_at")), Trigger.REDRIVE)
    assert counts(run) == {"extracted": 1, "inserted": 1}
    with pytest.raises(NothingToReplayError):
        runner.replay("shop", Scope(cases=CaseFilter(field="published_at")), Trigger.REDRIVE)


def test_a_record_without_an_id_gets_one(runner: SourceRunner) -> None:
    runner.write("shop.csv", "key,name\n1,pot\n2,pan\n3,\n")
    runner.declare(shop(map={"external_id": "id", "title": "name"}))
    assert runner.run("shop")["records_failed"] == 3
    runner.declare(shop(map={"external_id": "key", "title": "name"}, identity_change=True))
    run = runner.replay("shop", Scope(cases=CaseFilter()), Trigger.REDRIVE)
    assert counts(run) == {"extracted": 3, "inserted": 3}
    assert set(runner.sql("SELECT state FROM rejected_records")) == {"redriven"}
    assert sorted(runner.sql("SELECT external_id FROM unified_items")) == ["1", "2", "3"]


def test_a_case_of_which_a_newer_record_is_served_is_superseded(runner: SourceRunner) -> None:
    runner.write("shop.csv", "id,name,price\n1,pot,?\n2,pan,?\n")
    runner.declare(shop(map={"external_id": "id", "amount": "price"}))
    runner.run("shop")
    runner.write("shop.csv", "id,name,price\n1,pot,5\n2,pan,?\n")
    runner.run("shop")
    # As if the load had raced with the quarantine.
    runner.sql("UPDATE rejected_records SET state = 'open' RETURNING 1")
    run = runner.replay("shop", Scope(cases=CaseFilter()), Trigger.REDRIVE)
    assert run["records_failed"] == 2
    assert runner.sql("SELECT external_id, state FROM rejected_records ORDER BY 1") == [
        ("1", "superseded"),
        ("2", "open"),
    ]
    assert runner.sql("SELECT amount FROM unified_items") == [5]


def test_deleted_items_stay_deleted(runner: SourceRunner) -> None:
    runner.write("shop.csv", table(2))
    runner.declare(shop(map=BY_NAME))
    runner.run("shop")
    runner.sql("UPDATE unified_items SET status = 'deleted', deleted_at = now() WHERE external_id = '0' RETURNING 1")
    runner.declare(shop(map=BY_BRAND))
    runner.replay("shop")
    assert runner.sql("SELECT title, status, deleted_at IS NULL FROM unified_items ORDER BY 1") == [
        ("acme 0", "deleted", False),
        ("acme 1", "active", True),
    ]


def test_a_span_of_time_and_a_run_choose_what_is_driven(runner: SourceRunner) -> None:
    runner.write("shop.csv", table(3))
    runner.declare(shop(map=BY_NAME))
    first = runner.run("shop")
    runner.write("shop.csv", table(5))
    runner.run("shop")
    (between,) = runner.sql("SELECT max(ingested_at) FROM raw_data WHERE run_id = :run", run=first["run_id"])
    runner.declare(shop(map=BY_BRAND))
    assert counts(runner.replay("shop", Scope(run_id=first["run_id"])))["extracted"] == 3
    later = runner.sql("SELECT min(ingested_at) FROM raw_data WHERE ingested_at > :at", at=between)[0]
    assert counts(runner.replay("shop", Scope(since=later)))["extracted"] == 2
    with pytest.raises(NothingToReplayError):
        runner.replay("shop", Scope(until=datetime.fromisoformat("2001-01-01T00:00:00Z")))


def test_a_source_has_one_replay_at_a_time_and_may_fetch_beside(runner: SourceRunner) -> None:
    runner.write("shop.csv", table(3))
    runner.declare(shop(map=BY_NAME))
    runner.run("shop")
    run_id = uuid4()
    runner.database.transact(queue_replay, run_id, "shop", Trigger.REPLAY, Scope())
    with pytest.raises(AlreadyActiveError) as caught:
        runner.database.transact(queue_replay, uuid4(), "shop", Trigger.REPLAY, Scope())
    assert caught.value.facts["active_run_id"] == run_id
    runner.write("shop.csv", table(4))
    assert counts(runner.run("shop")) == {"extracted": 4, "unchanged": 3, "inserted": 1}
    runner.messages.append(ExtractMessage(run_id, low=True))
    runner.drain()
    # It drives what there is when it begins.
    assert counts(runner.show(run_id)) == {"extracted": 4, "unchanged": 4}


def test_a_release_that_reads_otherwise_drives_all_again(runner: SourceRunner) -> None:
    runner.write("shop.csv", table(3))
    runner.declare(shop(map=BY_NAME), {"name": "empty", "type": "csv", "file": "empty.csv"})
    runner.run("shop")
    runner.sql("UPDATE source_versions SET reader = 1 RETURNING 1")
    (xid,) = set(runner.sql("SELECT change_xid::text FROM unified_items"))
    # One record that the release before has read in another way.
    runner.sql("UPDATE unified_items SET title = 'misread' WHERE external_id = '1' RETURNING 1")
    runner.sql("INSERT INTO etl_workers (name, kind, reader) VALUES ('worker@old', 'worker', NULL) RETURNING 1")
    assert runner.database.transact(renew_readers) == 0, "one of the older release is alive"
    runner.sql("DELETE FROM etl_workers RETURNING 1")
    assert runner.database.transact(renew_readers) == 2
    runner.messages += runner.database.transact(due_runs, queue_empty=True)
    runner.drain()
    (run_id,) = runner.sql("SELECT run_id FROM etl_runs WHERE lane = 'replay'")
    run = runner.show(run_id)
    assert (run["trigger"], counts(run)) == ("upgrade", {"extracted": 3, "updated": 1, "unchanged": 2, "corrected": 1})
    assert runner.sql("SELECT title FROM unified_items WHERE change_xid::text <> :xid", xid=xid) == ["pot 1"]
    assert runner.sql(
        "SELECT ROW(mapping_version, mapped_since, reader, made_by)::text FROM source_versions"
        " WHERE source_name = 'shop' ORDER BY version"
    ) == ["(1,1,1,file)", f"(2,1,{READER},upgrade)"]
    assert runner.database.transact(renew_readers) == 0
    # It causes no wave: what comes again as it was is not stored.
    runner.write("shop.csv", table(4))
    assert counts(runner.run("shop")) == {"extracted": 4, "unchanged": 3, "inserted": 1}


def test_it_waits_for_a_run_of_the_mapping_before(runner: SourceRunner) -> None:
    runner.settings = replace(runner.settings, batch_size=1, worker_processes=99)
    runner.write("shop.csv", table(3))
    runner.declare(shop(map=BY_NAME))
    fetching = runner.queue("shop")
    runner.step()
    runner.declare(shop(map=BY_BRAND))
    run_id = uuid4()
    runner.database.transact(queue_replay, run_id, "shop", Trigger.REPLAY, Scope())
    runner.step(ExtractMessage(run_id, low=True))
    assert runner.sql("SELECT stage FROM etl_runs WHERE run_id = :id", id=run_id) == ["waiting"]
    runner.drain()
    runner.sql("UPDATE etl_runs SET not_before = NULL WHERE run_id = :id RETURNING 1", id=run_id)
    runner.messages.append(ExtractMessage(run_id, low=True))
    runner.drain()
    assert runner.show(fetching)["status"] == runner.show(run_id)["status"] == "success"
    # Of these two thirds were stored after it was asked for.
    assert set(runner.sql("SELECT title FROM unified_items")) == {f"acme {n}" for n in range(3)}


def test_what_a_source_has_taken_back_is_not_served(runner: SourceRunner) -> None:
    rows = "id,name,price\n1,pot,{}\n2,pan,5\n"
    mapping = {"external_id": "id", "title": "name", "amount": "price"}
    runner.write("shop.csv", rows.format("10"))
    runner.declare(shop(map=mapping))
    runner.run("shop")
    runner.write("shop.csv", rows.format("n/a"))
    assert runner.run("shop")["records_failed"] == 1
    runner.write("shop.csv", rows.format("10"))
    assert counts(runner.run("shop")) == {"extracted": 2, "unchanged": 2}
    # The rejected record would fit now; it is not what the source says.
    runner.declare(shop(map=mapping, nulls=["n/a"]))
    assert counts(runner.replay("shop")) == {"extracted": 2, "unchanged": 2}
    assert runner.sql("SELECT amount FROM unified_items WHERE external_id = '1'") == [10]


def test_what_a_cancelled_run_has_stored_is_not_served(runner: SourceRunner) -> None:
    runner.settings = replace(runner.settings, worker_processes=99)
    runner.write("shop.csv", table(2, price="10"))
    runner.declare(shop(map=BY_NAME))
    runner.run("shop")
    runner.write("shop.csv", table(2, price="12"))
    cancelled = runner.queue("shop")
    runner.step()
    runner.database.transact(end_run, cancelled, Outcome(Status.CANCELLED))
    runner.drain()
    runner.write("shop.csv", table(2, price="10") + "\n")
    assert counts(runner.run("shop")) == {"extracted": 2, "unchanged": 2}
    runner.declare(shop(map=BY_BRAND))
    assert counts(runner.replay("shop"))["extracted"] == 2
    assert set(runner.sql("SELECT amount FROM unified_items")) == {10}
    # Unless it is that run which is asked for.
    assert counts(runner.replay("shop", Scope(run_id=cancelled))) == {"extracted": 2, "updated": 2}


def test_few_among_many_are_found_in_bounded_steps(runner: SourceRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.queries.replays.MOST_WALKED", 3)
    runner.write("shop.csv", table(10))
    runner.declare(shop(map=BY_NAME))
    runner.run("shop")
    runner.write("shop.csv", table(10) + "10,pot 10,acme 10,1\n")
    last = runner.run("shop")
    runner.declare(shop(map=BY_BRAND))
    assert counts(runner.replay("shop", Scope(run_id=last["run_id"])))["extracted"] == 1
    (at,) = runner.sql("SELECT max(ingested_at) FROM raw_data")
    assert counts(runner.replay("shop", Scope(since=at)))["extracted"] == 1
    assert counts(runner.replay("shop"))["extracted"] == 11


def test_versions_that_an_older_release_has_made_are_kept(runner: SourceRunner) -> None:
    runner.declare(shop(map=BY_NAME))
    # As it would, beside tables that it does not know.
    runner.sql("UPDATE sources SET version = 2, mapping_version = 2 RETURNING 1")
    runner.database.transact(renew_readers)
    kept = "SELECT ROW(version, mapping_version, mapped_since, made_by)::text FROM source_versions ORDER BY version"
    assert runner.sql(kept) == ["(1,1,1,file)", "(2,2,2,upgrade)"]
