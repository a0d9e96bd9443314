"""The run protocol on a real PostgreSQL: nothing lost, nothing doubled, whatever comes in between."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import msgspec
import psycopg2
import pytest
from sqlalchemy import Connection, text

from db.queries import sweep
from db.queries.batches import claim_batch, load_batch, read_raw, stage_batch
from db.queries.closing import close_run, end_run
from db.queries.extraction import Stored, find_known, store_batch
from db.queries.retention import add_partitions
from db.queries.run_locks import lock_run_shared
from db.queries.runs import claim_run
from db.queries.stats import known_items, overall, source_totals
from db.queries.totals import recount, roll_up
from db.session import Database
from etl.declare.source import parse
from etl.errors import ConfigError, LeaseLostError, StorageConflictError, StorageUnavailableError
from etl.mapping.mapper import Mapper
from etl.records import FileMark, Kept, Mapped, Position, RawBatch, StagedItem, StoredRecord
from etl.runs.changes import Changes, InFlightIds, candidates, changed_records
from etl.runs.messages import BatchMessage, ExtractMessage
from etl.runs.outcome import Failure, Outcome, Status
from etl.runs.slices import MAX_OPEN_BATCHES, RunClaim
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.leases import expire_leases
from testkit.runner import SourceRunner
from testkit.service import wait_until
from worker import loading
from worker.closing import close
from worker.sweeper import each_run, give_up

CANCELLED = Outcome(Status.CANCELLED, Failure("cancelled", "by the test"))


@pytest.fixture(params=[99, 0], ids=["staged by normalize", "staged by extract"])
def runner(runner: SourceRunner, request: pytest.FixtureRequest) -> SourceRunner:
    """Which step stages the rows depends on whether other processes are busy: on so many of them, or on none."""
    runner.settings = replace(runner.settings, worker_processes=request.param)
    return runner


only_normalize_stages = pytest.mark.parametrize("runner", [99], indirect=True, ids=["staged by normalize"])
only_extract_stages = pytest.mark.parametrize("runner", [0], indirect=True, ids=["staged by extract"])


def csv_source(**more: object) -> dict[str, object]:
    return {"name": "shop", "type": "csv", "file": "shop.csv", **more}


def rows(count: int, *, price: int = 1, start: int = 0) -> str:
    return "id,name,price\n" + "".join(f"{n},thing {n},{price}\n" for n in range(start, start + count))


def take_over_runs(runner: SourceRunner) -> None:
    runner.database.transact(sweep.take_over_runs)
    each_run(runner.database, sweep.worn_out_runs, give_up)


def take_over(runner: SourceRunner) -> None:
    take_over_runs(runner)
    runner.database.transact(sweep.take_over_batches)


def counts(run: dict[str, object]) -> dict[str, object]:
    names = ("extracted", "inserted", "updated", "unchanged", "duplicate", "failed", "not_loaded")
    return {name: run[f"records_{name}"] for name in names if run[f"records_{name}"]}


def test_a_run_loads_every_record_once(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(12))
    run = runner.run("shop")
    assert run["status"] == "success"
    assert counts(run) == {"extracted": 12, "inserted": 12}
    assert runner.sql("SELECT external_id, title, amount FROM unified_items ORDER BY id LIMIT 1") == [
        ("0", "thing 0", 1)
    ]
    assert runner.sql("SELECT count(*) FROM raw_data") == [12]
    assert runner.sql("SELECT count(*) FROM staged_items") == [0]


def test_unchanged_records_are_not_written(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(12))
    runner.run("shop")
    before = runner.sql("SELECT id, updated_at, change_xid::text FROM unified_items ORDER BY id")
    assert counts(runner.run("shop")) == {}
    runner.write("shop.csv", rows(12) + "\n")
    run = runner.run("shop")
    assert counts(run) == {"extracted": 12, "unchanged": 12}
    assert run["status"] == "success"
    assert runner.sql("SELECT id, updated_at, change_xid::text FROM unified_items ORDER BY id") == before
    assert runner.sql("SELECT count(*) FROM raw_data") == [12]


def test_only_what_changed_is_written(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(10))
    runner.run("shop")
    runner.write("shop.csv", rows(10).replace("3,thing 3,1", "3,thing 3,2"))
    assert counts(runner.run("shop")) == {"extracted": 10, "updated": 1, "unchanged": 9}
    assert runner.sql("SELECT count(*) FROM raw_data") == [11]


def test_a_value_that_comes_back_is_stored_again(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    for price in (10, 12, 10):
        runner.write("shop.csv", rows(1, price=price))
        runner.run("shop")
    assert runner.sql("SELECT amount FROM unified_items") == [10]
    assert runner.sql("SELECT raw_payload ->> 'price' FROM raw_data ORDER BY id") == ["10", "12", "10"]


@pytest.mark.parametrize("size", [2, 5000])
def test_the_last_of_repeated_ids_wins(runner: SourceRunner, size: int) -> None:
    runner.settings = replace(runner.settings, batch_size=size)
    runner.declare(csv_source())
    runner.write("shop.csv", "id,name\n1,a\n2,b\n1,c\n3,d\n1,e\n")
    run = runner.run("shop")
    assert counts(run) == {"extracted": 5, "inserted": 3, "duplicate": 2}
    assert runner.sql("SELECT title FROM unified_items WHERE external_id = '1'") == ["e"]


@pytest.mark.parametrize("backwards", [False, True])
def test_the_last_occurrence_wins_whichever_batch_is_loaded_first(runner: SourceRunner, backwards: bool) -> None:
    runner.settings = replace(runner.settings, batch_size=1)
    runner.declare(csv_source())
    runner.write("shop.csv", "id,name\n1,old\n")
    runner.run("shop")
    # The last occurrence equals what is served already; the one before it must not stay.
    runner.write("shop.csv", "id,name\n1,new\n1,old\n")
    run_id = runner.queue("shop")
    runner.step()
    if backwards:
        runner.messages.reverse()
    runner.drain()
    assert runner.sql("SELECT title FROM unified_items") == ["old"]
    assert runner.show(run_id)["records_extracted"] == 2


def test_exact_duplicates_are_counted_as_such(runner: SourceRunner) -> None:
    runner.declare(csv_source(identity="content"))
    runner.write("shop.csv", "a,b\n1,2\n1,2\n3,4\n1,2\n")
    assert counts(runner.run("shop")) == {"extracted": 4, "inserted": 2, "duplicate": 2}
    runner.write("shop.csv", "a,b\n1,2\n1,2\n3,4\n1,2\n\n")
    assert counts(runner.run("shop")) == {"extracted": 4, "unchanged": 2, "duplicate": 2}


@only_normalize_stages
@pytest.mark.parametrize("first", [0, 1])
def test_a_key_that_comes_with_two_batches_at_once(runner: SourceRunner, first: int) -> None:
    """The second one to load has found no item of the key, and finds one when it writes."""
    runner.settings = replace(runner.settings, batch_size=2)
    runner.declare(csv_source())
    runner.write("shop.csv", "id,name,price\n1,a,1\n2,old,2\n2,new,2\n3,c,3\n")
    run_id = runner.queue("shop")
    runner.step()
    batches = runner.open_batches()
    for batch_id in batches:
        loading.normalize(runner.process, batch_id)
    claims = [runner.database.transact(claim_batch, batch_id, "normalized", 60) for batch_id in batches]
    earlier, later = claims[first], claims[1 - first]
    assert earlier
    assert later
    rival = threading.Thread(target=lambda: runner.database.transact(load_batch, later))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'"
    with runner.database.transaction() as connection:
        load_batch(connection, earlier)
        rival.start()
        wait_until(lambda: runner.sql(waiting) == [1])
    rival.join(10)
    runner.database.transact(close_run, run_id)
    assert counts(runner.show(run_id)) == {"extracted": 4, "inserted": 3, "duplicate": 1}
    assert runner.sql("SELECT title FROM unified_items ORDER BY external_id") == ["a", "new", "c"]


def test_bad_records_are_quarantined_and_their_neighbours_load(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", "id,name,price\n1,a,1\n2,b,dear\n,c,3\n4,d,4\n5,e,5,5\n6,f\x00,6\n7,g,7\n8,h,8\n9,i,9\n")
    run = runner.run("shop")
    assert run["status"] == "partial"
    assert counts(run) == {"extracted": 9, "inserted": 5, "failed": 4}
    found = runner.sql("SELECT stage, field, rule, value FROM rejected_records ORDER BY id")
    assert sorted(found, key=str) == sorted(
        [
            ("extract", "", "columns", None),
            ("extract", "name", "nul", None),
            ("normalize", "amount", "type", "dear"),
            ("normalize", "external_id", "required", None),
        ],
        key=str,
    )
    assert runner.sql("SELECT raw_bytes FROM rejected_records WHERE rule = 'columns'")[0].tobytes() == b"5,e,5,5\n"


def test_quarantined_records_are_not_quarantined_again(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", "id,name,price\n1,a,1\n2,b,dear\n,c,3\n5,e,5,5\n6,f,6\n7,g,7\n")
    runner.run("shop")
    run = runner.run("shop")
    assert run["status"] == "partial"
    assert counts(run) == {"extracted": 6, "unchanged": 3, "failed": 3}
    assert runner.sql("SELECT count(*) FROM rejected_records") == [3]
    assert runner.sql("SELECT count(*) FROM raw_data") == [5]


def test_a_source_of_mostly_bad_records_fails(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", "id,price\n" + "".join(f"{n},{'x' if n % 4 else n}\n" for n in range(40)))
    run = runner.run("shop")
    assert run["status"] == "failed"
    assert run["error"] == {
        "code": "too_many_rejected",
        "message": "30 of 40 new records were rejected; the limit is 50 %: 30 × amount: expected a number such as 1234.5, "
        "or a text in `nulls` if it means that there is none (as in 'x')",
    }


def test_a_long_run_of_bad_records_is_stopped_midway(runner: SourceRunner) -> None:
    runner.settings = replace(runner.settings, batch_size=500)
    runner.declare(csv_source())
    runner.write("shop.csv", "id,price\n" + "".join(f"{n},x\n" for n in range(5000)))
    run = runner.run("shop")
    assert run["status"] == "failed"
    assert run["records_extracted"] == run["records_failed"] + run["records_not_loaded"]
    assert run["records_extracted"] < 5000
    assert runner.open_batches() == []


def test_records_of_a_cancelled_run_load_in_the_next(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(5))
    run_id = runner.queue("shop")
    runner.step()
    assert runner.database.transact(end_run, run_id, CANCELLED)
    runner.drain()
    cancelled = runner.show(run_id)
    assert cancelled["status"] == "cancelled"
    assert counts(cancelled) == {"extracted": 5, "not_loaded": 5}
    assert counts(runner.run("shop")) == {"extracted": 5, "inserted": 5}


def test_a_cancelled_run_stores_nothing_more(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(5))
    run_id = runner.queue("shop")
    claim = runner.database.transact(claim_run, run_id, "w", 60)
    assert claim
    runner.database.transact(end_run, run_id, CANCELLED)
    batch = RawBatch([], [], Position(finished=True), 1, 1)
    with pytest.raises(LeaseLostError):
        runner.database.transact(_store, claim, batch)


def test_extraction_goes_on_while_a_batch_loads(runner: SourceRunner) -> None:
    """And the run's end waits for the batch: what is counted is what was loaded."""
    runner.settings = replace(runner.settings, batch_size=3)
    runner.declare(csv_source())
    runner.write("shop.csv", rows(10))
    run_id = runner.queue("shop")
    claim = runner.database.transact(claim_run, run_id, "w", 60)
    assert claim
    records, *_ = Mapper(parse(claim.config)).take(iter([{"id": "1"}]))
    batch = RawBatch(records, [], Position(), 1, 1)
    stored = runner.database.transact(_store, claim, batch)
    assert stored.batch_id
    runner.messages = [BatchMessage(stored.batch_id)]
    loading.normalize(runner.process, stored.batch_id)
    loads = runner.database.transact(claim_batch, stored.batch_id, "normalized", 60)
    assert loads
    following = replace(claim, batches=1)
    with runner.database.transaction() as loader:
        assert load_batch(loader, loads)
        with runner.database.transaction() as extractor:
            extractor.execute(text("SET LOCAL lock_timeout = '1s'"))
            _store(extractor, following, batch)
        with pytest.raises(StorageConflictError), runner.database.transaction() as ending:
            ending.execute(text("SET LOCAL lock_timeout = '100ms'"))
            end_run(ending, run_id, CANCELLED)


@only_normalize_stages
def test_items_of_a_source_that_the_planner_has_not_seen_are_found_by_their_ids(runner: SourceRunner) -> None:
    """It would take the source for empty, and read all of it for each batch."""
    runner.declare(csv_source(), {**csv_source(), "name": "other", "file": "other.csv"})
    runner.write("shop.csv", rows(2000))
    runner.write("other.csv", rows(2000))
    runner.run("shop")
    runner.sql("ANALYZE unified_items")
    runner.run("other")
    plan = runner.sql("""
        EXPLAIN SELECT 1 FROM unified_items WHERE source_name = 'other' AND status = 'active' AND mapping_version = 1
        AND external_id = ANY (ARRAY(SELECT jsonb_array_elements_text(CAST('["1","2"]' AS jsonb))))
    """)
    assert any("uq_unified_items_source_name_external_id" in line for line in plan), plan


def test_a_run_can_be_ended_while_its_batches_never_stop_loading(runner: SourceRunner) -> None:
    """One loader always begins before the other is done."""
    runner.declare(csv_source())
    runner.write("shop.csv", rows(5))
    run_id = runner.queue("shop")
    assert runner.database.transact(claim_run, run_id, "w", 60)
    over = threading.Event()
    loading_now = threading.Barrier(3)

    def load(wait: float) -> None:
        loading_now.wait(10)
        time.sleep(wait)
        while not over.is_set():
            with runner.database.transaction() as connection:
                if not lock_run_shared(connection, run_id):
                    return
                time.sleep(0.3)

    loaders = [threading.Thread(target=load, args=(wait,)) for wait in (0.0, 0.15)]
    for loader in loaders:
        loader.start()
    loading_now.wait(10)
    time.sleep(0.4)
    try:
        with runner.database.transaction() as ending:
            assert end_run(ending, run_id, CANCELLED)
    finally:
        over.set()
        for loader in loaders:
            loader.join(10)
    assert runner.show(run_id)["status"] == "cancelled"


def _changes(connection: Connection, claim: RunClaim, batch: RawBatch) -> Changes:
    found = candidates(batch, InFlightIds({}), ignores=False)
    return changed_records(found, find_known(connection, claim, found))


def _store(connection: Connection, claim: RunClaim, batch: RawBatch) -> Stored:
    return store_batch(connection, claim, batch, _changes(connection, claim, batch), 60, None)


@only_normalize_stages
def test_who_lost_the_lease_cannot_write(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(3))
    runner.queue("shop")
    runner.step()
    (batch_id,) = runner.open_batches()
    zombie = runner.database.transact(claim_batch, batch_id, "extracted", 60)
    assert zombie
    assert runner.database.transact(claim_batch, batch_id, "extracted", 60) is None
    expire_leases(runner)
    assert runner.database.transact(sweep.take_over_batches) == 1
    runner.sql("UPDATE etl_batches SET not_before = NULL")
    runner.drain()
    with pytest.raises(LeaseLostError):
        runner.database.transact(stage_batch, zombie, Mapped([], []))
    with pytest.raises(LeaseLostError):
        runner.database.transact(load_batch, replace(zombie, state="normalized"))
    assert runner.sql("SELECT count(*) FROM unified_items") == [3]


def test_every_message_may_come_often_and_in_any_order(runner: SourceRunner) -> None:
    runner.settings = replace(runner.settings, batch_size=3)
    runner.declare(csv_source())
    runner.write("shop.csv", rows(20))
    run_id = runner.queue("shop")
    runner.step()
    repeated = [*runner.messages, *reversed(runner.messages), ExtractMessage(run_id), *runner.messages]
    for message in repeated:
        runner.step(message)
        if isinstance(message, BatchMessage):
            runner.step(BatchMessage(message.batch_id, normalized=True))
    runner.drain()
    assert counts(runner.show(run_id)) == {"extracted": 20, "inserted": 20}
    assert runner.sql("SELECT count(*) FROM unified_items") == [20]


def test_extraction_waits_while_eight_batches_are_open(runner: SourceRunner) -> None:
    runner.settings = replace(runner.settings, batch_size=2)
    runner.declare(csv_source())
    runner.write("shop.csv", rows(60))
    run_id = runner.queue("shop")
    runner.step()
    assert len(runner.open_batches()) == MAX_OPEN_BATCHES
    assert runner.show(run_id)["stage"] == "loading"
    runner.drain()
    assert counts(runner.show(run_id)) == {"extracted": 60, "inserted": 60}


def test_a_dead_extractor_is_resumed_where_it_stood(runner: SourceRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.settings = replace(runner.settings, batch_size=4)
    runner.declare(csv_source())
    runner.write("shop.csv", rows(30))
    run_id = runner.queue("shop")
    _die_after(monkeypatch, batches=3)
    with pytest.raises(SystemExit):
        runner.step()
    monkeypatch.undo()
    assert runner.show(run_id)["records_extracted"] == 12
    expire_leases(runner)
    take_over(runner)
    runner.sql("UPDATE etl_runs SET not_before = NULL")
    runner.messages += runner.database.transact(sweep.due_runs, queue_empty=True)
    runner.messages += runner.database.transact(sweep.due_batches, queue_empty=True)
    runner.drain()
    assert counts(runner.show(run_id)) == {"extracted": 30, "inserted": 30}
    assert runner.sql("SELECT count(*) FROM raw_data") == [30]


def _die_after(monkeypatch: pytest.MonkeyPatch, *, batches: int) -> None:
    from worker import batch_writer

    left = [batches]

    def dying(*args: object) -> object:
        if not left[0]:
            raise SystemExit(9)
        left[0] -= 1
        return store_batch(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(batch_writer, "store_batch", dying)


@pytest.mark.parametrize("every", [2, 3, 5])
def test_a_commit_whose_answer_was_lost_is_not_done_twice(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    runner.settings = replace(runner.settings, batch_size=4)
    runner.declare(csv_source())
    runner.write("shop.csv", rows(30))
    run_id = runner.queue("shop")
    _lose_answers(monkeypatch, every)
    runner.drain()
    monkeypatch.undo()
    for _ in range(20):
        if runner.show(run_id)["status"] == "success":
            break
        _sweep_everything(runner)
    assert counts(runner.show(run_id)) == {"extracted": 30, "inserted": 30}
    assert runner.sql("SELECT count(*) FROM raw_data") == [30]


def _lose_answers(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Every n-th commit is done, and then reported as a lost connection."""
    original, commits = Database.transaction, itertools.count(1)

    @contextlib.contextmanager
    def losing(self: Database) -> Iterator[Connection]:
        with original(self) as connection:
            yield connection
        if next(commits) % every == 0:
            raise StorageUnavailableError("the answer was lost")

    monkeypatch.setattr(Database, "transaction", losing)


def _sweep_everything(runner: SourceRunner) -> None:
    expire_leases(runner)
    take_over(runner)
    for table in ("etl_runs", "etl_batches"):
        runner.sql(f"UPDATE {table} SET not_before = NULL, dispatched_at = dispatched_at - interval '1 hour'")
    runner.messages += runner.database.transact(sweep.due_runs, queue_empty=True)
    runner.messages += runner.database.transact(sweep.due_batches, queue_empty=True)
    runner.drain()
    each_run(runner.database, sweep.unclosed_runs, close)


def test_an_emptied_staging_table_is_filled_again(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(5) + "x,bad,dear\n")
    run_id = runner.queue("shop")
    runner.step()
    (batch_id,) = runner.open_batches()
    if runner.messages == [BatchMessage(batch_id)]:
        claim = runner.database.transact(claim_batch, batch_id, "extracted", 60)
        assert claim
        mapped = Mapper(parse(claim.config)).normalize(runner.database.transact(read_raw, claim))
        staged, rejects = mapped.staged, mapped.rejects
        runner.database.transact(stage_batch, claim, Mapped(staged, rejects))
    else:
        assert runner.messages == [BatchMessage(batch_id, normalized=True)]
    assert runner.sql("SELECT count(*) FROM staged_items") == [5]
    runner.sql("TRUNCATE staged_items")
    runner.drain()
    assert counts(runner.show(run_id)) == {"extracted": 6, "inserted": 5, "failed": 1}
    assert runner.sql("SELECT count(*) FROM rejected_records") == [1]


@only_normalize_stages
def test_a_batch_that_kills_its_workers_is_halved_down_to_the_record(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(9))
    run_id = runner.queue("shop")
    runner.step()
    monkeypatch.setattr(Mapper, "normalize", _poisoned(Mapper.normalize))
    _work_off(runner, run_id, SystemExit)
    run = runner.show(run_id)
    assert counts(run) == {"extracted": 9, "inserted": 8, "failed": 1}
    assert runner.sql("SELECT external_id, rule FROM rejected_records") == [("4", "poison")]


@only_extract_stages
def test_a_record_that_kills_its_extractor_is_found_and_quarantined(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.settings = replace(runner.settings, batch_size=3)
    runner.declare(csv_source())
    runner.write("shop.csv", rows(9))
    run_id = runner.queue("shop")
    monkeypatch.setattr(Mapper, "normalize", _poisoned(Mapper.normalize))
    _work_off(runner, run_id, SystemExit)
    assert counts(runner.show(run_id)) == {"extracted": 9, "inserted": 8, "failed": 1}
    assert runner.sql("SELECT external_id, rule FROM rejected_records") == [("4", "poison")]


@only_extract_stages
def test_a_defect_of_the_mapping_costs_one_record_and_not_the_run(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(9))
    run_id = runner.queue("shop")
    monkeypatch.setattr(Mapper, "normalize", _poisoned(Mapper.normalize, TypeError("a defect")))
    _work_off(runner, run_id, TypeError)
    assert counts(runner.show(run_id)) == {"extracted": 9, "inserted": 8, "failed": 1}


def test_a_value_that_staging_refuses_costs_one_record(runner: SourceRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflowing(mapper: Mapper, records: list[StoredRecord]) -> Mapped:
        mapped = whole(mapper, records)
        staged = mapped.staged
        amount = Decimal("1." + "0" * 17_000)
        odd = [StagedItem(s.record, msgspec.structs.replace(s.item, amount=amount)) for s in staged]
        found = [o if s.record.external_id == "4" else s for s, o in zip(staged, odd, strict=True)]
        return msgspec.structs.replace(mapped, staged=found)

    whole = Mapper.normalize
    monkeypatch.setattr(Mapper, "normalize", overflowing)
    runner.declare(csv_source())
    runner.write("shop.csv", rows(9))
    run_id = runner.queue("shop")
    _work_off(runner, run_id, psycopg2.DataError)
    assert counts(runner.show(run_id)) == {"extracted": 9, "inserted": 8, "failed": 1}
    assert runner.sql("SELECT external_id, rule FROM rejected_records") == [("4", "poison")]


def test_a_record_is_mapped_the_same_whoever_maps_it(runner: SourceRunner, fake_server: FakeServer) -> None:
    """jsonb writes numbers its own way, and has its own order of keys."""
    body = b'[{"id":1,"t":1e5,"n":-0.0,"small":1e-9,"attrs":{"zz":1,"a":2,"bbb":3,"Bb":1.5e3}}]'
    fake_server.on("/odd", Response(body))
    mapping = {"external_id": "id", "title": "t", "author": "n", "category": "to_string(attrs)"}
    mapping |= {"tags": "keys(attrs)", "description": "small", "url": "to_string(attrs.*)"}
    runner.declare({"name": "shop", "type": "api", "request": {"url": fake_server.url + "/odd"}, "map": mapping})
    runner.run("shop")
    found = runner.sql("SELECT title, author, category, tags, description, url FROM unified_items")
    attributes = '{"Bb":1500,"a":2,"bbb":3,"zz":1}'
    assert found == [("100000", "0.0", attributes, ["Bb", "a", "bbb", "zz"], "1E-9", "[1500,2,3,1]")]


def _work_off(runner: SourceRunner, run_id: UUID, error: type[BaseException]) -> None:
    """Work on a run until it ends, as workers that fail with this error, or die of it, do."""
    for _ in range(200):
        if runner.show(run_id)["status"] not in {"queued", "running"}:
            return
        try:
            runner.drain()
        except error:
            expire_leases(runner)
            take_over_runs(runner)
            runner.sql("UPDATE etl_runs SET not_before = NULL")
            runner.messages += runner.database.transact(sweep.due_runs, queue_empty=True)
            _expire_batches(runner)


def _poisoned(normalize, error: BaseException | None = None):  # type: ignore[no-untyped-def]
    def dying(self, records):  # type: ignore[no-untyped-def]
        if any(record.external_id == "4" for record in records):
            raise error or SystemExit(9)
        return normalize(self, records)

    return dying


def _expire_batches(runner: SourceRunner) -> None:
    expire_leases(runner)
    runner.database.transact(sweep.take_over_batches)
    runner.sql("UPDATE etl_batches SET not_before = NULL")
    runner.messages += runner.database.transact(sweep.due_batches, queue_empty=True)


def test_a_run_that_keeps_dying_without_progress_fails_with_the_cause(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(3))
    run_id = runner.queue("shop")
    _die_after(monkeypatch, batches=0)
    for _ in range(10):
        runner.messages = [ExtractMessage(run_id)]
        try:
            runner.drain()
        except SystemExit:
            expire_leases(runner)
            take_over(runner)
            runner.sql("UPDATE etl_runs SET not_before = NULL")
    run = runner.show(run_id)
    assert (run["status"], run["error"]["code"]) == ("failed", "worker_lost")


def test_a_page_that_failed_after_a_good_prefix_makes_the_run_partial(
    runner: SourceRunner, fake_server: FakeServer
) -> None:
    url = fake_server.on(
        "/items", lambda asked: as_json([{"id": 1}]) if asked.query["page"] == "1" else Response(status=500)
    )
    runner.declare(
        {"name": "shop", "type": "api", "request": {"url": url}, "paginate": {"style": "page"}, "timeout": "2s"}
    )
    run = runner.run("shop")
    assert run["status"] == "partial"
    assert run["error"]["code"] == "http_500"
    assert counts(run) == {"extracted": 1, "inserted": 1}


def test_a_new_mapping_rewrites_what_did_not_change(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(3))
    runner.run("shop")
    runner.declare(csv_source(map={"external_id": "id", "title": "price"}))
    assert counts(runner.run("shop")) == {"extracted": 3, "updated": 3}
    assert runner.sql("SELECT title, metadata ->> 'name' FROM unified_items ORDER BY id LIMIT 1") == [("1", "thing 0")]


def test_ignored_fields_do_not_make_a_record_changed(runner: SourceRunner) -> None:
    runner.declare(csv_source(ignore=["price"]))
    runner.write("shop.csv", rows(3, price=1))
    runner.run("shop")
    runner.write("shop.csv", rows(3, price=2))
    assert counts(runner.run("shop")) == {"extracted": 3, "unchanged": 3}


def test_totals_equal_what_the_tables_hold_before_and_after_rolling_up(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    for price in (1, 2):
        runner.write("shop.csv", rows(7, price=price))
        runner.run("shop")
    live = runner.database.transact(source_totals, limit=10)
    runner.database.transact(roll_up)
    rolled = runner.database.transact(source_totals, limit=10)
    runner.database.transact(roll_up)
    again = runner.database.transact(source_totals, limit=10)
    expected = runner.sql("SELECT (SELECT count(*) FROM unified_items), (SELECT count(*) FROM etl_runs)")
    for totals in (live, rolled, again):
        assert [(row.items, row.runs) for row in totals] == expected
        assert totals[0].success == 2


def test_the_totals_of_all_sources_are_what_a_recount_gives(runner: SourceRunner) -> None:
    feed = {**csv_source(), "name": "other", "file": "other.csv"}
    runner.declare(csv_source(), feed)
    for number, step in enumerate((None, roll_up, recount, None, roll_up)):
        runner.write("shop.csv", rows(5 + number))
        runner.write(
            "other.csv", "id,name,price\n" + "".join(f"{n},x,{'dear' if number == 3 else n}\n" for n in range(number))
        )
        runner.run("shop")
        if number:
            runner.run("other")
        if step:
            runner.database.transact(step)
        totals = runner.database.transact(overall)
        (items,) = runner.sql("SELECT count(*) FROM unified_items")
        assert (totals.items, totals.by_type) == (items, {"csv": items})
        assert runner.database.transact(known_items, "csv", None) == items
        assert runner.database.transact(known_items, None, "shop") == 5 + number
        last = runner.sql(
            "SELECT max(completed_at) FILTER (WHERE status = 'success'), max(completed_at) FILTER (WHERE status = 'failed') FROM etl_runs"
        )
        assert [(totals.last_success_at, totals.last_failure_at)] == last
        (seconds,) = runner.sql(
            "SELECT avg(extract(epoch FROM completed_at - started_at))::double precision FROM etl_runs WHERE status <> 'skipped'"
        )
        assert totals.average_seconds == pytest.approx(seconds)


def test_nasty_text_survives_the_whole_way(runner: SourceRunner) -> None:
    nasty = "tab\there, quote\"s, back\\slash \\N \\., line\nbreak, ünïcødé 𝄞, \u2028, {curly}, 'single'"
    runner.declare(csv_source())
    runner.write("shop.csv", 'id,name,tags\n1,"' + nasty.replace('"', '""') + '",a|b\n')
    assert runner.run("shop")["status"] == "success"
    assert runner.sql("SELECT title, tags FROM unified_items") == [(nasty, ["a", "b"])]
    assert runner.sql("SELECT raw_payload ->> 'name' FROM raw_data") == [nasty]


def test_numbers_keep_every_digit(runner: SourceRunner, fake_server: FakeServer) -> None:
    body = b'[{"id": 9007199254740993, "price": 12345678901234567890.123456789, "x": 1.10}]'
    runner.declare({"name": "shop", "type": "api", "request": {"url": fake_server.on("/a", Response(body))}})
    assert runner.run("shop")["status"] == "success"
    assert runner.sql("SELECT external_id, amount::text, metadata ->> 'x' FROM unified_items") == [
        ("9007199254740993", "12345678901234567890.123456789", "1.10")
    ]


def test_positions_survive_json() -> None:
    position = Position({"offset": 3}, 2, "v", 1, "c", 7, "w", False, Kept(files={"a": FileMark("d", 3, 1, True)}))
    assert msgspec.json.decode(msgspec.json.encode(position), type=Position) == position


# --- what a review by other eyes found


def api(fake_server: FakeServer, path: str = "/a", **more: object) -> dict[str, object]:
    return {"name": "shop", "type": "api", "request": {"url": fake_server.url + path}, "timeout": "2s", **more}


def test_a_resumed_incremental_run_asks_the_same_question(runner: SourceRunner, fake_server: FakeServer) -> None:
    runner.settings = replace(runner.settings, batch_size=1)

    def answer(asked: Request) -> Response:
        page = int(asked.query["page"])
        return as_json([{"id": page, "at": f"2026-01-01T00:00:{page:02}Z"}] if page <= 30 else [])

    fake_server.on("/a", answer)
    runner.declare(api(fake_server, paginate={"style": "page"}, incremental={"field": "at", "param": "since"}))
    runner.run("shop")
    assert runner.sql("SELECT value ->> 'watermark' FROM etl_checkpoints") == ["2026-01-01T00:00:30Z"]
    fake_server.asked.clear()
    runner.sql("UPDATE unified_items SET content_hash = ''::bytea, title = 'another'")
    assert counts(runner.run("shop")) == {"extracted": 30, "updated": 30}
    assert {asked.query.get("since") for asked in fake_server.asked} == {"2026-01-01T00:00:30Z"}


def test_a_wait_in_mid_source_keeps_what_was_read_and_ends(runner: SourceRunner, fake_server: FakeServer) -> None:
    def answer(asked: Request) -> Response:
        page = int(asked.query["page"])
        return as_json([{"id": page}]) if page < 3 else Response(status=503, headers={"Retry-After": "120"})

    fake_server.on("/a", answer)
    runner.declare(api(fake_server, paginate={"style": "page"}))
    run_id = runner.queue("shop")
    runner.drain()
    waiting = runner.show(run_id)
    assert (waiting["status"], waiting["stage"], waiting["records_inserted"]) == ("running", "waiting", 2)
    runner.sql("UPDATE etl_runs SET not_before = NULL")
    runner.step(ExtractMessage(run_id))
    run = runner.show(run_id)
    assert (run["status"], run["error"]["code"]) == ("partial", "http_503")
    assert [asked.query["page"] for asked in fake_server.asked] == ["1", "2", "3", "3"]


def test_rejects_that_are_known_before_loads_do_not_fail_a_run(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", "id,price\n" + "".join(f"{n},1\n" if n % 4 else f"{n},1,1\n" for n in range(5000)))
    run = runner.run("shop")
    assert run["status"] == "partial"
    assert counts(run) == {"extracted": 5000, "inserted": 3750, "failed": 1250}


def test_a_locked_table_is_not_the_batchs_fault(runner: SourceRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(1))
    run_id = runner.queue("shop")
    runner.step()
    (batch_id,) = runner.open_batches()
    monkeypatch.setattr(runner.database, "_patience", 0)
    monkeypatch.setattr(loading, "load_batch", _locked)
    for _ in range(6):
        with pytest.raises(StorageConflictError):
            runner.step(BatchMessage(batch_id))
        runner.sql("UPDATE etl_batches SET not_before = NULL")
    monkeypatch.undo()
    runner.step(BatchMessage(batch_id))
    assert counts(runner.show(run_id)) == {"extracted": 1, "inserted": 1}


def _locked(*_: object) -> bool:
    raise StorageConflictError("locked")


@only_normalize_stages
def test_a_poisoned_record_gets_another_chance_in_the_next_run(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_a_batch_that_kills_its_workers_is_halved_down_to_the_record(runner, monkeypatch)
    monkeypatch.undo()
    assert counts(runner.run("shop")) == {"extracted": 9, "inserted": 1, "unchanged": 8}


def test_items_carry_the_mapping_version_they_were_made_with(runner: SourceRunner) -> None:
    runner.declare(csv_source(map={"external_id": "id", "title": "name"}))
    runner.write("shop.csv", rows(1))
    runner.queue("shop")
    runner.step()
    (batch_id,) = runner.open_batches()
    runner.messages = []
    loading.normalize(runner.process, batch_id)
    runner.declare(csv_source(map={"external_id": "id", "title": "price"}))
    loading.load(runner.process, batch_id)
    assert runner.sql("SELECT title, mapping_version FROM unified_items") == [("thing 0", 1)]
    runner.run("shop")
    assert runner.sql("SELECT title, mapping_version FROM unified_items") == [("1", 2)]


def test_a_lock_that_copy_runs_into_is_waited_for(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    runner.write("shop.csv", rows(2))
    with runner.database.engine.connect() as blocker:
        blocker.execute(text("LOCK TABLE raw_data IN ACCESS EXCLUSIVE MODE"))
        threading.Timer(6, blocker.rollback).start()
        assert counts(runner.run("shop")) == {"extracted": 2, "inserted": 2}


def test_records_that_lack_a_mapped_key_load(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.json("/a", [{"id": 1, "dc:title": "x", "tags": ["a"]}, {"id": 2, "tags": None}])
    runner.declare(api(fake_server, map={"external_id": "id", "title": "dc:title", "description": "join(',', tags)"}))
    run = runner.run("shop")
    assert counts(run) == {"extracted": 2, "inserted": 1, "failed": 1}
    assert runner.sql("SELECT title, description FROM unified_items") == [("x", "a")]
    assert runner.sql("SELECT field, rule FROM rejected_records") == [("description", "type")]


def test_paths_keep_digits(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(b'[{"id": 1, "p": 10.5, "q": "10.50", "r": [1.5, 2]}]'))
    mapped = {"external_id": "id", "amount": "to_number(p)", "quantity": "to_number(q)", "rating": "sum(r)"}
    runner.declare(api(fake_server, map=mapped))
    assert runner.run("shop")["status"] == "success"
    assert runner.sql("SELECT amount::text, quantity::text, rating::text FROM unified_items") == [
        ("10.5", "10.50", "3.5")
    ]


@pytest.mark.parametrize(
    "bad", [b'"\\ud83d"', b"1e9999999999999999999", b"0." + b"1" * 20000, b"1" * 5000, b'"\\u0000"']
)
def test_one_record_that_cannot_be_stored_costs_only_itself(
    runner: SourceRunner, fake_server: FakeServer, bad: bytes
) -> None:
    fake_server.on("/a", Response(b'[{"id": 1}, {"id": 2, "x": ' + bad + b'}, {"id": 3}]'))
    runner.declare(api(fake_server))
    assert counts(runner.run("shop")) == {"extracted": 3, "inserted": 2, "failed": 1}
    assert counts(runner.run("shop")) == {"extracted": 3, "unchanged": 2, "failed": 1}


def test_a_reject_that_is_mended_in_an_ignored_field_loads(runner: SourceRunner) -> None:
    runner.declare(csv_source(ignore=["at"], map={"external_id": "id", "published_at": "at"}))
    runner.write("shop.csv", "id,at\n1,garbage\n2,2026-01-01\n3,2026-01-01\n")
    assert counts(runner.run("shop")) == {"extracted": 3, "inserted": 2, "failed": 1}
    assert counts(runner.run("shop")) == {"extracted": 3, "unchanged": 2, "failed": 1}
    runner.write("shop.csv", "id,at\n1,2026-01-02\n2,2026-01-01\n3,2026-01-01\n")
    assert counts(runner.run("shop")) == {"extracted": 3, "inserted": 1, "unchanged": 2}


def test_secrets_are_not_stored(runner: SourceRunner, fake_server: FakeServer) -> None:
    feed = b"""<rss version="2.0"><channel><title>t</title><item><guid>1</guid><title>x</title><link>#frag</link>
    <description>&lt;a href="#fn"&gt;1&lt;/a&gt;</description></item></channel></rss>"""
    fake_server.on("/f", Response(feed))
    fake_server.on(
        "/a",
        lambda asked: as_json(
            {"items": [{"id": 1}], "next": "?page=2&key=S3CRET" if "page" not in asked.query else None}
        ),
    )
    runner.settings = replace(runner.settings, environment={"KEY": "S3CRET"}, batch_size=1)
    auth = {"kind": "query", "name": "key", "value": "${KEY}"}
    feed_source = {"name": "feed", "type": "rss", "request": {"url": fake_server.url + "/f", "auth": auth}}
    request = {"url": fake_server.url + "/a", "auth": auth}
    paged = {"name": "shop", "type": "api", "request": request, "records": "items", "paginate": {"style": "next_url"}}
    runner.declare(feed_source, paged)
    assert runner.run("feed")["status"] == runner.run("shop")["status"] == "success"
    assert all(asked.query["key"] == "S3CRET" for asked in fake_server.asked)
    assert runner.sql("SELECT url FROM unified_items WHERE source_name = 'feed'") == [fake_server.url + "/f#frag"]
    for table in ("unified_items", "raw_data", "etl_runs", "etl_run_events", "etl_checkpoints"):
        assert runner.sql(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%S3CRET%'") == [0], table


def test_a_month_that_began_in_the_default_partition_stays_there(runner: SourceRunner) -> None:
    month = runner.sql("SELECT to_char(now() + interval '1 month', 'YYYY_MM')")[0]
    runner.sql(f"DROP TABLE raw_data_{month}")
    runner.declare(csv_source())
    runner.write("shop.csv", rows(1))
    runner.run("shop")
    runner.sql(
        "INSERT INTO raw_data SELECT id, now() + interval '1 month', run_id, source_type, source_name, source_id, raw_payload, content_hash FROM raw_data"
    )
    assert runner.database.transact(add_partitions) == []
    runner.sql("TRUNCATE raw_data")
    assert runner.database.transact(add_partitions) == [f"raw_data_{month}"]


def test_an_identity_may_change_while_nothing_is_stored(runner: SourceRunner) -> None:
    runner.declare(csv_source(map={"external_id": "nope"}))
    runner.write("shop.csv", rows(3))
    assert runner.run("shop")["status"] == "failed"
    runner.declare(csv_source())
    assert counts(runner.run("shop")) == {"extracted": 3, "inserted": 3}
    with pytest.raises(ConfigError, match=r"'shop': `identity` would change"):
        runner.declare(csv_source(identity="content"))
    runner.declare(csv_source(identity="content", identity_change=True))


@only_normalize_stages
def test_a_run_that_is_locked_keeps_no_other_from_being_closed(runner: SourceRunner) -> None:
    names = ("a", "b", "c")
    runner.declare(*(csv_source(name=name) for name in names))
    runner.write("shop.csv", rows(1))
    runs = [runner.queue(name) for name in names]
    # As if each worker died between its last batch and the closing of the run.
    runner.sql(
        """UPDATE etl_runs SET status = 'running', stage = 'loading', extracted_at = now(), dispatched_at = now(),
        position = '{}'"""
    )
    runner.messages.clear()
    impatient = Database(runner.settings.database_url, name="impatient", pool_size=1, patience=0)
    with runner.database.transaction() as holder:
        holder.execute(text("SELECT 1 FROM etl_runs WHERE run_id = :run_id FOR UPDATE"), {"run_id": runs[1]})
        assert each_run(impatient, sweep.unclosed_runs, close) == 2
    impatient.close()
    assert [runner.show(run_id)["status"] for run_id in runs] == ["success", "running", "success"]


@only_normalize_stages
def test_giving_a_run_up_takes_its_turn_before_its_row(runner: SourceRunner) -> None:
    runner.declare(csv_source())
    run_id = runner.queue("shop")
    runner.sql(
        """UPDATE etl_runs SET status = 'running', stage = 'extracting', attempt = 5, token = 1,
        lease_expires_at = now() - interval '1 s'"""
    )
    with ThreadPoolExecutor(1) as pool, runner.database.transaction() as sharer:
        assert lock_run_shared(sharer, run_id)
        giving_up = pool.submit(runner.database.transact, sweep.give_up_run, run_id)
        time.sleep(0.3)
        # Who shares the run may go on to lock its row: nobody waits for it in a circle.
        sharer.execute(text("SELECT 1 FROM etl_runs WHERE run_id = :run_id FOR UPDATE NOWAIT"), {"run_id": run_id})
        sharer.rollback()
        assert giving_up.result(10) is True
    assert runner.show(run_id)["error"]["code"] == "worker_lost"
