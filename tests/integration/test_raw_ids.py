"""A raw id is given once, a batch has the rows of its own run, and halving ends."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import Connection

from db.queries.alarms import list_alarms
from db.queries.copies import advance_sequence, look_for_copies
from db.queries.extraction import find_known, store_batch
from db.queries.runs import claim_run
from db.session import Database
from etl.records import Position, RawBatch, RawRecord
from etl.runs.changes import Changes, InFlightIds, candidates, changed_records
from etl.runs.messages import BatchMessage
from etl.runs.slices import RunClaim
from testkit.runner import SourceRunner

SHOP = {"name": "shop", "type": "csv", "file": "shop.csv"}


def rows(count: int, price: int = 1) -> str:
    return "id,name,price\n" + "".join(f"{n},thing {n},{price}\n" for n in range(count))


def batch(count: int) -> RawBatch:
    records = [RawRecord(str(n), b'{"id":%d}' % n, b"%016d" % n) for n in range(count)]
    return RawBatch(records, [], Position(cursor={"at": 1}, config="c"), 1, 1)


def changes(connection: Connection, claim: RunClaim, batch: RawBatch) -> Changes:
    found = candidates(batch, InFlightIds({}), ignores=False)
    return changed_records(found, find_known(connection, claim, found))


class _CrashedError(Exception):
    pass


def test_no_id_outlives_a_crash_that_takes_the_sequence_back(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids of a batch that was not stored are not remembered: after the crash others may have them."""
    runner.declare(SHOP, {**SHOP, "name": "other"})
    first, second = runner.queue("shop"), runner.queue("other")
    claim, rival = (runner.database.transact(claim_run, r, "w", 60) for r in (first, second))
    assert claim
    assert rival
    runner.sql("SELECT setval('raw_data_id_seq', 100)")
    compared = runner.database.read(changes, claim, batch(50))

    def crashing(connection: Connection) -> None:
        store_batch(connection, claim, batch(50), compared, 60, None)
        raise _CrashedError

    with pytest.raises(_CrashedError):
        runner.database.transact(crashing)
    # What a crash does to what was drawn and never reached the log.
    runner.sql("SELECT setval('raw_data_id_seq', 100)")
    found = runner.database.read(changes, rival, batch(50))
    runner.database.transact(store_batch, rival, batch(50), found, 60, None)
    runner.database.transact(store_batch, claim, batch(50), compared, 60, None)
    assert runner.sql("SELECT count(*), count(DISTINCT id) FROM raw_data") == [(100, 100)]


def _double_ids(runner: SourceRunner, run_id: UUID) -> None:
    """Give the raw ids of a run to another run of the same source as well."""
    runner.sql(
        """INSERT INTO raw_data (id, ingested_at, run_id, source_type, source_name, source_id, raw_payload, content_hash)
        SELECT id, ingested_at - interval '1 second', gen_random_uuid(), source_type, source_name, source_id,
            jsonb_set(raw_payload, '{price}', '"7"'), content_hash FROM raw_data WHERE run_id = :run_id""",
        run_id=run_id,
    )


def _extracted(runner: SourceRunner) -> UUID:
    """A run with one batch that is yet to be normalised."""
    runner.settings = replace(runner.settings, worker_processes=99)
    runner.declare(SHOP)
    runner.write("shop.csv", rows(4))
    run_id = runner.queue("shop")
    runner.step()
    return run_id


def test_a_batch_reads_the_rows_of_its_own_run(runner: SourceRunner) -> None:
    run_id = _extracted(runner)
    _double_ids(runner, run_id)
    runner.drain()
    assert runner.show(run_id)["status"] == "success"
    assert runner.sql("SELECT DISTINCT amount::int FROM unified_items") == [1]


def test_halving_ends_when_an_id_has_two_rows(runner: SourceRunner) -> None:
    run_id = _extracted(runner)
    # Two rows of one id in the very same run.
    runner.sql("""INSERT INTO raw_data SELECT id, ingested_at + interval '1 second', run_id, source_type, source_name,
        source_id, raw_payload, content_hash FROM raw_data WHERE id = (SELECT min(id) FROM raw_data)""")
    runner.messages.clear()
    for _ in range(10):
        runner.sql("UPDATE etl_batches SET attempt = 9, lease_expires_at = NULL WHERE state = 'extracted'")
        for batch_id in runner.open_batches():
            runner.step(BatchMessage(batch_id))
    runner.messages.clear()
    assert runner.open_batches() == []
    assert runner.show(run_id)["status"] == "failed"
    assert runner.sql("SELECT count(*), count(DISTINCT raw_data_id) FROM rejected_records") == [(4, 4)]


def test_copies_are_found_in_bounded_steps_and_told(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    runner.write("shop.csv", rows(4))
    runner.run("shop")
    assert runner.database.transact(look_for_copies, 0).batches == 1
    runner.write("shop.csv", rows(4, price=2))
    _double_ids(runner, runner.run("shop")["run_id"])
    look = runner.database.transact(look_for_copies, 0)
    assert (look.batches, look.copies) == (1, 4)
    assert runner.database.transact(look_for_copies, 0).batches == 0
    assert [alarm.code for alarm in runner.database.transact(list_alarms)] == ["raw_ids_repeated"]


def test_a_sequence_behind_its_ids_is_put_above_them(runner: SourceRunner, database: Database) -> None:
    runner.declare(SHOP)
    runner.write("shop.csv", rows(4))
    runner.run("shop")
    assert not database.transact(advance_sequence)
    runner.sql("SELECT setval('raw_data_id_seq', 1)")
    assert database.transact(advance_sequence)
    assert runner.sql("SELECT nextval('raw_data_id_seq') > max(id) FROM raw_data") == [True]
