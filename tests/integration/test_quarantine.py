"""Quarantine holds one open case per record, until the record fits; and runs say what to write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import text

from db.queries.extraction import store_batch
from db.queries.runs import claim_run
from etl.records import Position, RawBatch
from etl.runs.changes import Changes
from etl.runs.messages import BatchMessage
from testkit.fake_server import FakeServer, as_json
from testkit.runner import SourceRunner

SHOP: dict[str, Any] = {"name": "shop", "type": "csv", "file": "shop.csv"}
CASES = "SELECT external_id, state, message FROM rejected_records ORDER BY id"


def runs(runner: SourceRunner, *bodies: str) -> list[dict[str, Any]]:
    """A run of the shop over each of these files."""
    shown = []
    for body in bodies:
        runner.write("shop.csv", body)
        shown.append(runner.run("shop"))
    return shown


def states(runner: SourceRunner) -> list[Any]:
    return runner.sql("SELECT external_id, state FROM rejected_records ORDER BY id")


def test_a_record_has_one_case_whatever_it_says_and_however_it_is_read(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    runs(runner, "id,price\n1,dear\n2,2\n", "id,price\n1,dearer\n2,2\n")
    runner.declare({**SHOP, "timezone": "Europe/Berlin"})
    (run,) = runs(runner, "id,price\n1,dearer\n2,2\n")
    assert (run["status"], run["records_failed"]) == ("partial", 1)
    assert runner.sql("SELECT state, value, attempts, mapping_version FROM rejected_records") == [
        ("open", "dearer", 3, 2)
    ]
    assert runner.sql("SELECT first_seen_at < last_seen_at FROM rejected_records") == [True]


def test_a_record_that_fits_closes_its_case(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    (_, run) = runs(runner, "id,price\n1,dear\n2,2\n", "id,price\n1,1\n2,2\n")
    assert run["status"] == "success"
    assert states(runner) == [("1", "superseded")]


def test_a_record_that_is_again_what_is_served_closes_its_case(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    good, bad = "id,price\n1,1\n2,2\n", "id,price\n1,dear\n2,2\n"
    *_, run = runs(runner, good, bad, good)
    assert (run["status"], run["records_unchanged"]) == ("success", 2)
    assert states(runner) == [("1", "superseded")]
    *_, run = runs(runner, bad)
    assert states(runner) == [("1", "superseded"), ("1", "open")]


def test_a_case_without_an_id_is_closed_once_there_is_one(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    (run,) = runs(runner, "sku,price\nA,1\nB,2\n")
    assert run["status"] == "failed"
    runner.declare({**SHOP, "map": {"external_id": "sku", "amount": "price"}})
    (run,) = runs(runner, "sku,price\nA,1\nB,2\n")
    assert run["status"] == "success"
    assert states(runner) == [(None, "superseded"), (None, "superseded")]


def test_a_case_without_an_id_is_closed_where_fields_are_ignored_too(runner: SourceRunner) -> None:
    runner.declare({**SHOP, "ignore": ["when"]})
    runs(runner, "sku,price,when\nA,1,now\nB,2,then\n")
    runner.declare({**SHOP, "ignore": ["when"], "map": {"external_id": "sku"}})
    (run,) = runs(runner, "sku,price,when\nA,1,now\nB,2,then\n")
    assert run["status"] == "success"
    assert states(runner) == [(None, "superseded"), (None, "superseded")]


def test_rows_left_out_are_counted_once_when_the_answer_to_a_commit_is_lost(runner: SourceRunner) -> None:
    runner.declare({**SHOP, "where": "status != 'draft'"})
    runner.write("shop.csv", "id,status\n1,draft\n")
    run_id = runner.queue("shop")
    claim = runner.database.transact(claim_run, run_id, "test", 60)
    assert claim
    batch = RawBatch([], [], Position(cursor={"name": "x"}, done=1), 1, 10, skipped=42)
    for _ in range(2):
        runner.database.transact(store_batch, claim, batch, Changes([], []), 60, None)
    assert runner.sql("SELECT rows_skipped, pages FROM etl_runs") == [(42, 1)]


def test_a_case_that_came_again_as_it_is_counts_and_is_not_stored(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    body = "id,price\n1,dear\n2,2\n"
    (first, second) = runs(runner, body, body)
    for run in (first, second):
        assert (run["status"], run["records_extracted"], run["records_failed"]) == ("partial", 2, 1)
    assert runner.sql("SELECT count(*) FROM raw_data") == [2]
    assert second["error"]["message"].startswith(
        "1 came again as they are in quarantine: 1 × amount: expected a number"
    )


def test_all_broken_fields_are_kept(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    runs(runner, "id,price,stock,date\n1,dear,many,soon\n2,2,2,2025-01-01\n")
    (errors,) = runner.sql("SELECT errors FROM rejected_records")
    assert [(one["field"], one["value"]) for one in errors] == [
        ("amount", "dear"),
        ("quantity", "many"),
        ("published_at", "soon"),
    ]


def test_a_newer_record_in_a_batch_that_loads_first_leaves_no_case(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    runner.settings = replace(runner.settings, batch_size=1)
    runner.write("shop.csv", "id,price\n1,dear\n1,1\n")
    run_id = runner.queue("shop")
    runner.step()
    first, second = runner.open_batches()
    for batch_id in (second, second, first, first):
        runner.step(BatchMessage(batch_id))
    runner.drain()
    assert runner.show(run_id)["records_failed"] == 1
    assert states(runner) == [("1", "superseded")]


def test_one_lasting_bad_record_never_fails_an_incremental_source(
    runner: SourceRunner, fake_server: FakeServer
) -> None:
    pages = [
        [{"id": 1, "at": 1, "price": 1}, {"id": 2, "at": 2, "price": "dear"}],
        [{"id": 2, "at": 2, "price": "dear"}],
        [{"id": 2, "at": 3, "price": "dearer"}],
        [],
    ]
    url = fake_server.on("/things", [as_json(page) for page in pages])
    runner.declare(
        {
            "name": "shop",
            "type": "api",
            "request": {"url": url},
            "incremental": {"field": "at", "param": "since"},
        }
    )
    assert [runner.run("shop")["status"] for _ in pages] == ["partial", "partial", "partial", "success"]


def test_a_run_without_ids_says_what_to_write_and_that_is_right(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    body = "Region,Artikel-Nr,Preis\n" + "".join(f"Nord,A{n},{n}\n" for n in range(30))
    (run,) = runs(runner, body)
    assert run["status"] == "failed"
    message = run["error"]["message"]
    assert message.startswith("all 30 records were rejected: 30 × the record has no id at `id` or ")
    assert "`Artikel-Nr`, `Preis` identified them: declare `map: {external_id: Artikel-Nr}`" in message
    assert "`identity: content`" in message
    runner.declare({**SHOP, "map": {"external_id": "Artikel-Nr"}})
    (run,) = runs(runner, body)
    assert run["status"] == "success"


def test_a_failed_run_says_which_field_and_how_many_and_what_to_declare(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    rows = "".join(f'{n},"1.{n:03},50",{n:02}/12/2025\n' for n in range(1, 29))
    (run,) = runs(runner, "id,price,date\n" + rows)
    message = run["error"]["message"]
    assert '28 × amount: expected a number such as 1234.5; declare `numbers: {decimal: ",", thousands: "."}`' in message
    runner.declare({**SHOP, "numbers": {"decimal": ",", "thousands": "."}})
    (run,) = runs(runner, "id,price,date\n" + rows)
    assert 'dates: ["%d/%m/%Y"]' in run["error"]["message"]
    runner.declare({**SHOP, "numbers": {"decimal": ",", "thousands": "."}, "dates": ["%d/%m/%Y"]})
    (run,) = runs(runner, "id,price,date\n" + rows)
    assert (run["status"], run["records_inserted"]) == ("success", 28)
    assert runner.sql("SELECT count(*) FROM rejected_records WHERE state = 'open'") == [0]


def test_rows_that_are_no_records_are_counted_apart(runner: SourceRunner) -> None:
    runner.declare({**SHOP, "where": "status != 'draft'", "csv": {"comment": "#"}})
    (run,) = runs(runner, "id,status\n1,draft\n# a comment\n2,live\n,\n3,\n")
    assert (run["records_extracted"], run["records_inserted"], run["rows_skipped"]) == (2, 2, 2)
    assert run["status"] == "success"


def test_a_condition_that_does_not_fit_a_record_is_its_fault(runner: SourceRunner) -> None:
    runner.declare({**SHOP, "where": "length(status) > `1`"})
    (run,) = runs(runner, "id,status\n1,live\n")
    assert run["records_inserted"] == 1


def test_a_full_run_reads_what_is_known_again(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    runs(runner, "id,price\n1,1\n2,2\n")
    assert runner.run("shop")["records_extracted"] == 0
    run_id = runner.queue("shop")
    runner.sql("UPDATE etl_runs SET read_all = true WHERE run_id = :run_id", run_id=run_id)
    runner.drain()
    assert runner.show(run_id)["records_unchanged"] == 2
    assert runner.run("shop")["records_extracted"] == 0


def test_what_is_read_otherwise_is_a_correction(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    runs(runner, "id,a,b\n1,x,y\n2,x,x\n")
    runner.declare({**SHOP, "map": {"title": "a"}})
    run = runner.run("shop")
    assert (run["records_updated"], run["records_corrected"]) == (2, 2)
    (run,) = runs(runner, "id,a,b\n1,z,y\n2,x,x\n")
    assert (run["records_updated"], run["records_corrected"], run["records_changed"]) == (1, 0, 1)


AGAIN = """INSERT INTO rejected_records (run_id, source_name, source_type, external_id, content_hash, stage, field, rule,
    message, mapping_version, errors) SELECT run_id, source_name, source_type, external_id, 'x', stage, field, rule,
    message, 9, {errors} FROM rejected_records WHERE state = 'open' ON CONFLICT DO NOTHING"""


def test_two_open_cases_of_one_record_are_refused(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    runs(runner, "id,price\n1,dear\n2,2\n")
    with runner.database.transaction() as connection:
        assert connection.execute(text(AGAIN.format(errors="'[]'"))).rowcount == 0
    assert states(runner) == [("1", "open")]


def test_what_an_older_release_rejects_takes_the_place_of_the_case(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    runs(runner, "id,price\n1,dear\n2,2\n")
    for _ in range(2):
        with runner.database.transaction() as connection:
            assert connection.execute(text(AGAIN.format(errors="NULL"))).rowcount == 1
    assert states(runner) == [("1", "superseded"), ("1", "superseded"), ("1", "open")]
