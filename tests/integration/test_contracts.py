"""Contracts through runs: what is rejected, mended, driven again and put away, and what fails a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from db.queries.quarantine import Cases, discard_cases
from etl.runs.outcome import Trigger
from etl.runs.replays import CaseFilter, Scope
from testkit.runner import SourceRunner

COUNT = 10_000
HEAD = "id,sku,title,name,price,category,made\n"
# Of each kind: how many, and what is put into the row. The first six a mapping can mend.
FAULTS: dict[str, tuple[int, dict[str, str]]] = {
    "no id": (20, {"id": "", "sku": "S{n}"}),
    "no price": (20, {"price": "n/a"}),
    "decimal comma": (15, {"price": '"12,5"'}),
    "other date": (15, {"made": "31.12.2025"}),
    "title elsewhere": (10, {"title": "", "name": "pot {n}"}),
    "zone": (12, {"made": "2026-01-02 10:00 IST"}),
    "no date": (17, {"made": "someday"}),
    "negative": (15, {"price": "-1"}),
    "category": (13, {"category": "junk"}),
}
MENDED, LEFT = 92, 45
EXPECT = {"title": {"required": True}, "amount": {"min": 0}, "category": {"enum": ["pots", "pans"]}}
MAP = {"external_id": "id", "title": "title", "amount": "price", "category": "category", "published_at": "made"}
BETTER: dict[str, Any] = {
    "map": {**MAP, "external_id": "id || sku", "title": "title || name"},
    "identity_change": True,
    "nulls": ["n/a"],
    "numbers": {"decimal": ","},
    "dates": ["%d.%m.%Y"],
    "timezone_names": {"IST": "Asia/Kolkata"},
}


def shop(**more: Any) -> dict[str, Any]:
    return {"name": "shop", "type": "csv", "file": "shop.csv", "map": MAP, "expect": EXPECT, **more}


def rows(*, mended: tuple[str, ...] = ()) -> str:
    """The table with its faults, but for those that are mended."""
    lines: list[str] = []
    for kind, (count, wrong) in FAULTS.items():
        for _ in range(count):
            lines.append(row(len(lines), {} if kind in mended else wrong))
    lines += [row(n, {}) for n in range(len(lines), COUNT)]
    return HEAD + "".join(lines)


def row(n: int, wrong: dict[str, str]) -> str:
    right = {
        "id": "P{n}",
        "sku": "",
        "title": "pot {n}",
        "name": "",
        "price": "7",
        "category": "pots",
        "made": "2026-01-02",
    }
    return ",".join((right | wrong).values()).format(n=n) + "\n"


def counts(run: dict[str, Any]) -> dict[str, int]:
    names = ("extracted", "inserted", "updated", "unchanged", "duplicate", "failed")
    return {name: run[f"records_{name}"] for name in names if run[f"records_{name}"]}


def open_cases(runner: SourceRunner) -> dict[tuple[str, str], int]:
    found = "SELECT field, rule, count(*) FROM rejected_records WHERE state = 'open' GROUP BY 1, 2"
    return {(field, rule): count for field, rule, count in runner.sql(found)}


def test_planted_faults_are_found_mended_driven_again_and_put_away(runner: SourceRunner) -> None:
    assert sum(count for count, _ in FAULTS.values()) == 137 == MENDED + LEFT
    runner.write("shop.csv", rows())
    runner.declare(shop())
    run = runner.run("shop")
    assert run["status"] == "partial"
    assert counts(run) == {"extracted": COUNT, "inserted": COUNT - 137, "failed": 137}
    assert open_cases(runner) == {
        ("external_id", "required"): 20,
        ("amount", "type"): 35,
        ("published_at", "type"): 44,
        ("title", "required"): 10,
        ("amount", "min"): 15,
        ("category", "enum"): 13,
    }
    runner.declare(shop(**BETTER))
    run = runner.replay("shop", Scope(cases=CaseFilter()), Trigger.REDRIVE)
    assert counts(run) == {"extracted": 137, "inserted": MENDED, "failed": LEFT}
    left = {("published_at", "type"): 17, ("amount", "min"): 15, ("category", "enum"): 13}
    assert open_cases(runner) == left
    assert runner.sql("SELECT count(*), count(DISTINCT external_id) FROM unified_items") == [
        (COUNT - LEFT, COUNT - LEFT)
    ]
    # The others follow by a replay; of them too the mapping leaves other things to `metadata`.
    assert counts(runner.replay("shop")) == {
        "extracted": COUNT,
        "updated": COUNT - 137,
        "unchanged": MENDED,
        "failed": LEFT,
    }
    stored = runner.sql("SELECT count(*) FROM raw_data")
    # Unchanged, but for a row that has no record.
    runner.write("shop.csv", rows() + "\n")
    assert counts(runner.run("shop")) == {"extracted": COUNT, "unchanged": COUNT - LEFT, "failed": LEFT}
    assert (open_cases(runner), runner.sql("SELECT count(*) FROM raw_data")) == (left, stored)
    put_away = Cases("shop", field="published_at")
    assert runner.database.transact(discard_cases, put_away, "no date is known") == 17
    runner.write("shop.csv", rows(mended=("negative", "category")))
    run = runner.run("shop")
    assert run["status"] == "success"
    assert counts(run) == {"extracted": COUNT, "inserted": 28, "unchanged": COUNT - LEFT, "failed": 17}
    states = "SELECT state, count(*) FROM rejected_records GROUP BY 1"
    assert dict(runner.sql(states)) == {"redriven": MENDED, "superseded": 28, "discarded": 17}


def test_a_contract_is_a_version_that_changes_nothing_stored(runner: SourceRunner) -> None:
    runner.write("shop.csv", HEAD + row(1, {}) + row(2, {"price": "-1"}))
    runner.declare(shop(expect={}))
    assert counts(runner.run("shop")) == {"extracted": 2, "inserted": 2}
    runner.declare(shop())
    assert runner.sql("SELECT ROW(mapping_version, mapped_since)::text FROM source_versions ORDER BY version") == [
        "(1,1)",
        "(2,1)",
    ]
    runner.write("shop.csv", HEAD + row(1, {}) + row(2, {"price": "-1"}) + row(3, {}))
    assert counts(runner.run("shop")) == {"extracted": 3, "inserted": 1, "unchanged": 2}
    # What is stored is judged by a replay: it stays as it is served, and there is a case.
    assert counts(runner.replay("shop")) == {"extracted": 3, "unchanged": 2, "failed": 1}
    assert open_cases(runner) == {("amount", "min"): 1}
    assert runner.sql("SELECT count(*) FROM unified_items WHERE status = 'active'") == [3]
    # A looser contract: the case is judged once more when its record comes again.
    runner.declare(shop(expect={"amount": {"min": -5}}))
    runner.write("shop.csv", HEAD + row(1, {}) + row(2, {"price": "-1"}) + row(3, {}) + "\n")
    assert counts(runner.run("shop"))["extracted"] == 3
    assert open_cases(runner) == {}


def test_values_that_are_left_out_are_told_of(runner: SourceRunner) -> None:
    runner.settings = replace(runner.settings, batch_size=10)
    runner.write("shop.csv", HEAD + "".join(row(n, {"price": str(-n)} if n % 4 == 1 else {}) for n in range(40)))
    runner.declare(shop(expect={"amount": {"min": 0, "action": "null"}}))
    run = runner.run("shop")
    assert (run["status"], counts(run)) == ("success", {"extracted": 40, "inserted": 40})
    assert runner.sql("SELECT count(*) FROM unified_items WHERE amount IS NULL") == [10]
    ((detail,),) = [runner.sql("SELECT detail FROM etl_run_events WHERE event = 'nulled'")]
    assert {name: detail[name] for name in ("field", "rule", "count", "sample")} == {
        "field": "amount",
        "rule": "min",
        "count": 10,
        "sample": "-1",
    }


def test_a_rule_that_fails_the_run_leaves_what_is_loaded(runner: SourceRunner) -> None:
    runner.settings = replace(runner.settings, batch_size=10, worker_processes=99)
    runner.write("shop.csv", HEAD + "".join(row(n, {"price": "-1"} if n == 25 else {}) for n in range(40)))
    runner.declare(shop(expect={"amount": {"min": 0, "action": "fail"}}))
    run = runner.run("shop")
    assert (run["status"], run["error"]["code"]) == ("failed", "expectation_failed")
    assert "at least 0" in run["error"]["message"]
    assert "'-1'" in run["error"]["message"]
    (loaded,) = runner.sql("SELECT count(*) FROM unified_items")
    assert loaded <= 30
    assert runner.sql("SELECT count(*) FROM etl_checkpoints WHERE value IS NOT NULL") == [0]


def test_a_limit_by_number(runner: SourceRunner) -> None:
    runner.write("shop.csv", HEAD + "".join(row(n, {"price": "-1"} if n < 3 else {}) for n in range(400)))
    runner.declare(shop(max_rejected={"records": 3}))
    assert runner.run("shop")["status"] == "partial"
    runner.declare(shop(max_rejected={"records": 2}, file="other.csv", identity_change=True))
    runner.write("other.csv", HEAD + "".join(row(n, {"price": "-2"} if n < 3 else {}) for n in range(400)))
    run = runner.run("shop")
    assert (run["status"], run["error"]["code"]) == ("failed", "too_many_rejected")
    assert "the limit is 2 records" in run["error"]["message"]
