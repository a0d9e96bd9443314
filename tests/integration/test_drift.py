"""What has changed its shape is told at the first run that finds it, and ordinary runs tell nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from db.queries import uniqueness
from db.queries.fields import drifted
from etl.runs.replays import CaseFilter, Scope
from testkit.runner import SourceRunner

SHOP: dict[str, Any] = {
    "name": "shop",
    "type": "csv",
    "file": "shop.csv",
    "map": {"external_id": "id", "title": "Bezeichnung", "amount": "price"},
}


def table(columns: dict[str, Any], count: int = 30, start: int = 0) -> str:
    """A CSV file: a value for each column, by the number of the row."""
    rows = ([value(n) if callable(value) else value for value in columns.values()] for n in range(start, start + count))
    return "".join(",".join(map(str, row)) + "\n" for row in ([*columns], *rows))


def told(runner: SourceRunner, run_id: object) -> list[dict[str, Any]]:
    query = f"SELECT detail FROM etl_run_events WHERE run_id = '{run_id}' AND event = 'drift' ORDER BY event_id"
    return runner.sql(query)


def run(runner: SourceRunner, **columns: Any) -> list[dict[str, Any]]:
    runner.write("shop.csv", table(columns))
    return told(runner, runner.run("shop")["run_id"])


USUAL: dict[str, Any] = {"id": lambda n: n, "Bezeichnung": lambda n: f"thing {n}", "price": lambda n: n + 0.5}


def test_a_renamed_column_is_told_with_what_to_write(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    assert run(runner, **USUAL) == []
    renamed = {"id": USUAL["id"], "Bezeichnung DE": USUAL["Bezeichnung"], "price": USUAL["price"]}
    found = run(runner, **renamed)
    missing, new = found[0], found[1]
    assert (missing["field"], missing["change"]) == ("title", "not there")
    assert (missing["old"], missing["new"]) == ("100% had it", "0 of 30 have `Bezeichnung`")
    assert missing["suggestion"] == "declare `map: {title: Bezeichnung DE}`"
    assert (new["field"], new["change"], new["sample"]) == ("Bezeichnung DE", "new", "thing 0")
    assert new["new"] == "30 of 30 have it"
    # It stands until it is mended.
    assert runner.sql("SELECT field FROM source_fields WHERE drift IS NOT NULL") == ["title"]
    runner.declare({**SHOP, "map": {**SHOP["map"], "title": "Bezeichnung DE"}})
    assert run(runner, **renamed) == []
    assert runner.sql("SELECT field FROM source_fields WHERE drift IS NOT NULL") == []
    assert runner.sql("SELECT count(*) FROM unified_items WHERE title IS NULL") == [0]


def test_a_mistyped_path_is_told_at_the_first_run(runner: SourceRunner) -> None:
    runner.declare({**SHOP, "map": {**SHOP["map"], "amount": "order.total.gros"}})
    (found,) = run(runner, **USUAL)
    assert (found["field"], found["change"], found["old"]) == ("amount", "not there", "never seen")


def test_a_column_that_is_there_and_empty_is_no_drift(runner: SourceRunner) -> None:
    runner.declare({**SHOP, "map": {**SHOP["map"], "author": "by"}})
    assert run(runner, **USUAL, by="") == []


def test_a_column_that_is_mostly_empty_now_is_told_once(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    assert run(runner, **USUAL) == []
    (found,) = run(runner, **{**USUAL, "price": lambda n: n if n % 3 == 0 else ""})
    assert (found["field"], found["change"]) == ("amount", "mostly empty")
    assert (found["old"], found["new"]) == ("100% had a value", "33% have a value")
    assert run(runner, **{**USUAL, "price": lambda n: n + 1 if n % 3 == 0 else ""}) == []


def test_another_type_is_told(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    assert run(runner, **USUAL, size=lambda n: n) == []
    (found,) = run(runner, **USUAL, size=lambda n: f"size {n}")
    assert (found["field"], found["change"], found["old"], found["new"]) == (
        *("size", "of another type"),
        *("number as text", "text"),
    )


def test_fewer_than_twenty_records_tell_nothing(runner: SourceRunner) -> None:
    runner.declare(SHOP)
    assert run(runner, **USUAL) == []
    runner.write("shop.csv", table({"id": lambda n: n, "name": "x"}, count=19, start=100))
    assert told(runner, runner.run("shop")["run_id"]) == []


def test_thousands_that_may_be_decimals_are_told_once_per_version(runner: SourceRunner) -> None:
    source = {**SHOP, "map": {"external_id": "id", "quantity": "pieces"}}
    runner.declare(source)

    def pieces(*written: str) -> list[dict[str, Any]]:
        runner.write("shop.csv", "id,pieces\n" + "".join(f"{n},{one}\n" for n, one in enumerate(written)))
        return told(runner, runner.run("shop")["run_id"])

    (found,) = pieces("1.000", "250", "12.500")
    assert (found["field"], found["sample"]) == ("quantity", "1.000")
    assert 'numbers: {decimal: ",", thousands: "."}' in found["suggestion"]
    assert pieces("2.000", "250", "12.500") == []
    runner.declare({**source, "numbers": {"decimal": ",", "thousands": "."}})
    assert pieces("3.000", "250", "12.500") == []
    assert runner.sql("SELECT quantity::int FROM unified_items ORDER BY external_id") == [3000, 250, 12500]


@pytest.mark.parametrize("written", [["1.000", "2.5"], ["0.125", "1.250"], ["1.000", "1234.500"], ["5", "7"]])
def test_a_column_with_decimals_is_not_taken_for_thousands(runner: SourceRunner, written: list[str]) -> None:
    runner.declare(SHOP)
    runner.write("shop.csv", "id,Bezeichnung,price\n" + "".join(f"{n},x,{one}\n" for n, one in enumerate(written)))
    assert told(runner, runner.run("shop")["run_id"]) == []


def test_ordinary_runs_tell_nothing(runner: SourceRunner) -> None:
    """Values, optional columns and amounts change from run to run, and new records come."""
    runner.declare(SHOP)
    chance = random.Random(7)
    for number in range(40):
        found = run(
            runner,
            **USUAL | {"price": lambda n, at=number: (n * 7 + at) / 4},
            colour=lambda _: chance.choice(["", "red", "blue"]),
            note=lambda _: "rare" if chance.random() < 0.05 else "",
            stock=lambda _: chance.randint(0, 5000),
            code=lambda _: chance.choice(["A12", "17", "B2", "99"]),
        )
        assert found == []


RENAMED: dict[str, Any] = {"id": USUAL["id"], "Bezeichnung DE": USUAL["Bezeichnung"], "price": USUAL["price"]}


def test_what_drifts_is_quarantined_until_the_mapping_is_mended(runner: SourceRunner) -> None:
    runner.declare({**SHOP, "drift": "quarantine", "max_rejected": 100})
    assert run(runner, **USUAL) == []
    titles = sorted(runner.sql("SELECT title FROM unified_items"))
    for _ in range(2):
        runner.write("shop.csv", table(RENAMED))
        found = runner.run("shop")
        # All of them: no new record fits.
        assert (found["status"], found["records_failed"]) == ("failed", 30)
        assert sorted(runner.sql("SELECT title FROM unified_items")) == titles
    cases = runner.sql("SELECT DISTINCT field, rule, state FROM rejected_records")
    assert cases == [("title", "drift", "open")]
    assert runner.sql("SELECT count(*) FROM rejected_records") == [30]
    assert [one["field"] for one in told(runner, found["run_id"])] in ([], ["title", "Bezeichnung DE"])
    runner.declare({**SHOP, "drift": "quarantine", "map": {**SHOP["map"], "title": "Bezeichnung DE"}})
    driven = runner.replay("shop", Scope(cases=CaseFilter()))
    assert (driven["records_failed"], driven["status"]) == (0, "success")
    assert sorted(runner.sql("SELECT title FROM unified_items")) == titles
    assert runner.run("shop")["status"] == "success"


def test_what_drifts_fails_the_run_before_it_is_loaded(runner: SourceRunner) -> None:
    runner.declare({**SHOP, "drift": "fail"})
    assert run(runner, **USUAL) == []
    titles = sorted(runner.sql("SELECT title FROM unified_items"))
    for _ in range(2):
        runner.write("shop.csv", table(RENAMED))
        found = runner.run("shop")
        assert (found["status"], found["error"]["code"], found["records_loaded"]) == ("failed", "drift", 0)
        assert found["error"]["message"].startswith("its records are not as they were: title: not there: 100% had it")
        assert sorted(runner.sql("SELECT title FROM unified_items")) == titles
    # What was accepted by a new mapping is usual from then on.
    runner.declare({**SHOP, "drift": "fail", "map": {**SHOP["map"], "title": "Bezeichnung DE"}})
    assert runner.run("shop")["status"] == "success"
    more = {**RENAMED, "colour": "red", "price": lambda n: n + 0.25}
    runner.write("shop.csv", table(more))
    assert runner.run("shop")["error"]["message"].startswith("its records are not as they were: colour: new")
    runner.declare({**SHOP, "drift": "report", "map": {**SHOP["map"], "title": "Bezeichnung DE"}})
    assert runner.run("shop")["status"] == "success"
    runner.declare({**SHOP, "drift": "fail", "map": {**SHOP["map"], "title": "Bezeichnung DE"}})
    runner.write("shop.csv", table({**more, "price": lambda n: n + 0.75}))
    assert runner.run("shop")["status"] == "success"


def test_values_that_are_not_unique_are_warned_of(runner: SourceRunner) -> None:
    expect = {"title": {"unique": True}, "metadata.code": {"unique": True}, "amount": {"min": 0, "unique": True}}
    runner.declare({**SHOP, "expect": expect})
    columns = {**USUAL, "code": lambda n: n // 2, "Bezeichnung": lambda n: "same" if n < 3 else f"thing {n}"}
    runner.write("shop.csv", table(columns))
    found = runner.run("shop")
    assert (found["status"], found["records_inserted"]) == ("success", 30)
    query = "SELECT detail ->> 'message' FROM etl_run_events WHERE run_id = :id AND detail ->> 'code' = 'not_unique'"
    assert runner.sql(query + " ORDER BY event_id", id=found["run_id"]) == [
        "`expect.title.unique`: 1 values stand in more than one item, such as 'same' in 3",
        "`expect.metadata.code.unique`: 15 values stand in more than one item, such as '0' in 2",
    ]
    # A run that changes nothing says nothing.
    assert runner.sql(query, id=runner.run("shop")["run_id"]) == []


def test_a_look_at_values_that_takes_too_long_ends_and_says_so(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = uniqueness._REPEATED.replace("HAVING", "HAVING pg_sleep(0.1) IS NOT NULL AND")
    monkeypatch.setattr(uniqueness, "_REPEATED", slow)
    monkeypatch.setattr(uniqueness, "LONGEST", 1)
    runner.declare({**SHOP, "expect": {"title": {"unique": True}}})
    runner.write("shop.csv", table(USUAL))
    found = runner.run("shop")
    assert found["status"] == "success"
    (message,) = runner.sql("SELECT detail ->> 'message' FROM etl_run_events WHERE detail ->> 'code' = 'not_unique'")
    assert message == "`expect.title.unique`: that could not be told within 1 s"


def test_a_contract_does_not_accept_what_drifts(runner: SourceRunner) -> None:
    source = {"name": "shop", "type": "csv", "file": "shop.csv", "drift": "quarantine", "max_rejected": 100}
    runner.declare(source)
    runner.write("shop.csv", table({"id": lambda n: n, "price": lambda n: n + 0.5}))
    runner.run("shop")
    runner.write("shop.csv", table({"id": lambda n: n, "preis": lambda n: n + 0.5}))
    assert runner.run("shop")["records_failed"] == 30
    runner.declare({**source, "expect": {"title": {"max_length": 100}}})
    assert runner.run("shop")["records_failed"] == 30
    assert runner.sql("SELECT count(amount) FROM unified_items") == [30]


def test_one_run_with_report_accepts_what_there_is(runner: SourceRunner) -> None:
    runner.declare({**SHOP, "drift": "quarantine", "max_rejected": 100})
    run(runner, **USUAL)
    runner.write("shop.csv", table({**USUAL, "neu": "x"}))
    found = runner.run("shop")
    assert found["records_failed"] == 30
    assert {one["field"] for one in told(runner, found["run_id"])} == {"neu"}
    runner.declare({**SHOP, "drift": "report", "max_rejected": 100})
    assert runner.run("shop")["status"] == "success"
    assert runner.sql("SELECT count(*) FROM rejected_records WHERE state = 'open'") == [0]
    runner.declare({**SHOP, "drift": "quarantine", "max_rejected": 100})
    runner.write("shop.csv", table({**USUAL, "neu": "y"}))
    assert runner.run("shop")["status"] == "success"


def test_an_optional_field_is_no_drift_where_a_batch_lacks_it(runner: SourceRunner) -> None:
    runner.settings = replace(runner.settings, batch_size=100)
    mapping = {**SHOP["map"], "rating": "stars"}
    for policy in ("quarantine", "fail"):
        runner.declare({**SHOP, "map": mapping, "drift": policy, "name": policy})
        for price in (0.5, 0.25):
            columns = {**USUAL, "price": lambda n, more=price: n + more, "stars": lambda n: 3 if n < 100 else ""}
            runner.write("shop.csv", table(columns, 125))
            assert runner.run(policy)["status"] == "success"


def test_a_single_record_is_not_judged(runner: SourceRunner) -> None:
    runner.declare({**SHOP, "drift": "quarantine"})
    runner.write("shop.csv", table({**USUAL, "price": 1.234}, 1))
    assert runner.run("shop")["status"] == "success"


def test_drift_is_told_once_and_shown_until_it_is_mended(runner: SourceRunner) -> None:
    for policy in ("quarantine", "fail"):
        runner.declare({**SHOP, "drift": policy})
        run(runner, **{**USUAL, "price": lambda n, more=policy: n + len(more)})
        runner.write("shop.csv", table(RENAMED))
        found = runner.run("shop")
        assert [one["field"] for one in told(runner, found["run_id"])] == ["title", "Bezeichnung DE"]
        assert runner.database.read(drifted) == ["shop"]
        again = runner.run("shop")
        assert "title: not there" in again["error"]["message"], again
        run(runner, **{**USUAL, "price": lambda n, more=policy: n + 2 * len(more)})
        assert runner.database.read(drifted) == []


def test_what_a_contract_rejects_is_drift_all_the_same(runner: SourceRunner) -> None:
    source = {"name": "shop", "type": "csv", "file": "shop.csv", "drift": "quarantine"}
    runner.declare({**source, "expect": {"amount": {"required": True}}})
    columns = {"id": lambda n: n, "title": lambda n: f"t{n}", "preis": lambda n: n + 0.5}
    runner.write("shop.csv", table({**columns, "price": columns["preis"]}))
    runner.run("shop")
    runner.write("shop.csv", table({**columns, "preis": lambda n: n + 0.25}))
    found = runner.run("shop")
    assert found["records_failed"] == 30
    assert "title" not in {one["field"] for one in told(runner, found["run_id"])}
