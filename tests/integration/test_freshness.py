"""Freshness and volume: sources that are late, and runs that met too few records or too many."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from db.queries.freshness import judge_lateness
from db.queries.totals import roll_up
from testkit.fake_server import FakeServer, Response
from testkit.runner import SourceRunner
from web.app import create_app


def shop(**more: Any) -> dict[str, Any]:
    return {"name": "shop", "type": "csv", "file": "shop.csv", **more}


def write(runner: SourceRunner, count: int, price: int = 1) -> None:
    runner.write("shop.csv", "id,price\n" + "".join(f"{n},{price}\n" for n in range(count)))


def run(runner: SourceRunner, count: int) -> list[str]:
    """What a run that meets so many records says of it."""
    run.price = getattr(run, "price", 0) + 1  # type: ignore[attr-defined]
    write(runner, count, run.price)  # type: ignore[attr-defined]
    found = runner.run("shop")
    return runner.sql(
        "SELECT event || coalesce(' ' || (detail ->> 'expected'), '') FROM etl_run_events "
        "WHERE run_id = :id AND event IN ('empty', 'odd_size')",
        id=found["run_id"],
    )


def judge(runner: SourceRunner, *, is_scheduling: bool = True) -> list[str]:
    runner.database.transact(roll_up)
    return list(runner.database.transact(judge_lateness, is_scheduling=is_scheduling))


def pass_time(runner: SourceRunner, hours: float) -> None:
    for table, column in (("sources", "updated_at"), ("etl_checkpoints", "last_read_at")):
        runner.sql(f"UPDATE {table} SET {column} = {column} - make_interval(secs => :s)", s=hours * 3600)


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


def flags(client: FlaskClient) -> tuple[list[str], set[str]]:
    """The flags of the source, as /health and /stats have them, and the reasons of /health."""
    health = client.get("/health").get_json()
    shown = health["sources"][0]
    counted = client.get("/stats").get_json()["source_statistics"][0]
    names = ["late", "empty", "odd_size"]
    assert [shown[name] for name in names] == [counted[name] for name in names]
    reasons = {reason["code"] for reason in health["reasons"]} & set(names)
    return [name for name in names if shown[name]], reasons


def test_a_source_that_never_runs_is_late(runner: SourceRunner, client: FlaskClient) -> None:
    runner.declare(shop(expect_every="1h"))
    assert judge(runner) == []
    assert flags(client) == ([], set())
    pass_time(runner, 1.1)
    assert judge(runner) == ["shop"]
    assert judge(runner) == []
    assert flags(client) == (["late"], {"late"})
    (reason,) = [one for one in client.get("/health").get_json()["reasons"] if one["code"] == "late"]
    assert reason["message"] == "not read for too long: shop"
    assert reason["since"]
    write(runner, 3)
    runner.run("shop")
    assert judge(runner) == []
    assert flags(client) == ([], set())


def test_the_last_run_tells_that_its_source_is_late(runner: SourceRunner) -> None:
    write(runner, 3)
    runner.declare(shop())
    read = runner.run("shop")
    assert judge(runner) == []
    # Three slots of half an hour.
    pass_time(runner, 1.4)
    assert judge(runner) == []
    pass_time(runner, 0.2)
    assert judge(runner) == ["shop"]
    assert runner.sql("SELECT event FROM etl_run_events WHERE run_id = :id AND event = 'late'", id=read["run_id"])


def test_a_failed_run_makes_nothing_fresh_and_an_unchanged_file_does(runner: SourceRunner) -> None:
    write(runner, 3)
    runner.declare(shop(expect_every="1h"))
    runner.run("shop")
    judge(runner)
    pass_time(runner, 2)
    (runner.folder / "shop.csv").rename(runner.folder / "away.csv")
    assert runner.run("shop")["status"] == "failed"
    runner.sql("UPDATE etl_checkpoints SET last_read_at = now() - interval '2 h'")
    assert judge(runner) == ["shop"]
    (runner.folder / "away.csv").rename(runner.folder / "shop.csv")
    assert runner.run("shop")["records_extracted"] == 0
    assert judge(runner) == []
    assert runner.sql("SELECT late_since FROM sources") == [None]


@pytest.mark.parametrize(
    "change",
    [
        "enabled = false",
        "gone_reason = 'gone'",
        "paused_until = now() + interval '1 h'",
        "not_before = now() + interval '1 h', not_before_reason = 'asked'",
    ],
)
def test_what_is_not_to_be_read_is_not_late(runner: SourceRunner, change: str) -> None:
    runner.declare(shop(expect_every="1h"))
    judge(runner)
    pass_time(runner, 5)
    runner.sql(f"UPDATE sources SET {change}")
    assert judge(runner) == []


def test_without_a_scheduler_only_what_declares_it_is_late(runner: SourceRunner) -> None:
    runner.declare(shop(), shop(name="other", expect_every="1h"))
    judge(runner)
    pass_time(runner, 5)
    assert judge(runner, is_scheduling=False) == ["other"]


def test_an_edit_counts_at_once(runner: SourceRunner) -> None:
    runner.declare(shop(expect_every="1h"))
    judge(runner)
    pass_time(runner, 2)
    runner.declare(shop(expect_every="3h"))
    runner.sql("UPDATE sources SET updated_at = now() - interval '2 h'")
    assert judge(runner) == []


def test_the_declared_number_of_records_is_held(runner: SourceRunner, client: FlaskClient) -> None:
    runner.declare(shop(expect_rows="3..5"))
    assert [run(runner, count) for count in (3, 5, 2, 6)] == [[], [], ["odd_size 3..5"], ["odd_size 3..5"]]
    assert flags(client) == (["odd_size"], {"odd_size"})
    assert run(runner, 0) == ["empty 3..5"]
    assert flags(client) == (["empty"], {"empty"})
    # An unchanged file says nothing new.
    assert runner.run("shop")["records_extracted"] == 0
    assert flags(client) == (["empty"], {"empty"})
    assert run(runner, 4) == []
    assert flags(client) == ([], set())


def test_what_is_usual_is_learned(runner: SourceRunner) -> None:
    runner.declare(shop(max_rejected=100))
    assert [run(runner, count) for count in (100, 2, 100, 110, 90)] == [[]] * 5
    runner.sql("UPDATE etl_checkpoints SET sizes = '{100,90,110,100,100}'")
    assert [run(runner, count) for count in (45, 220)] == [[], []]
    runner.sql("UPDATE etl_checkpoints SET sizes = '{100,90,110,100,100}'")
    assert run(runner, 44) == ["odd_size 45..220"]
    assert run(runner, 44) == []
    assert run(runner, 221) == ["odd_size 22..220"]


def test_an_empty_run_is_odd_once_another_was_not(runner: SourceRunner) -> None:
    runner.declare(shop())
    assert run(runner, 0) == []
    assert run(runner, 1) == []
    assert run(runner, 0) == ["empty"]


def test_empty_may_be_expected(runner: SourceRunner) -> None:
    runner.declare(shop(expect_rows="..5"))
    assert [run(runner, count) for count in (5, 0, 6)] == [[], [], ["odd_size ..5"]]


def test_a_304_and_a_run_that_broke_off_are_neither(runner: SourceRunner, fake_server: FakeServer) -> None:
    headers = {"Content-Type": "application/json", "ETag": '"a"'}
    answers = [Response(b'[{"id": 1}]', headers=headers), Response(status=304), Response(b"no", 403)]
    runner.declare(
        {
            "name": "shop",
            "type": "api",
            "request": {"url": fake_server.on("/items", answers)},
            "expect_rows": "1..",
        }
    )
    for _ in range(3):
        runner.run("shop")
    assert runner.sql("SELECT sizes, size_flag FROM etl_checkpoints") == [([1], None)]


def test_a_source_that_is_being_read_is_not_late(runner: SourceRunner) -> None:
    write(runner, 3)
    runner.declare(shop())
    run_id = runner.queue("shop")
    judge(runner)
    runner.sql("UPDATE etl_runs SET status = 'running', stage = 'extracting' WHERE run_id = :id", id=run_id)
    pass_time(runner, 5)
    assert judge(runner) == []
    # One that waits is.
    runner.sql("UPDATE etl_runs SET stage = 'waiting' WHERE run_id = :id", id=run_id)
    assert judge(runner) == ["shop"]


def test_many_cron_lines_are_learned_at_once(runner: SourceRunner) -> None:
    lines = [f"{minute} {hour}-22 * * 1-5" for minute in range(20) for hour in range(10)]
    runner.declare(
        *(shop(name=f"s{n}", schedule={"cron": line}) for n, line in enumerate(lines)), shop(schedule={"every": "1h"})
    )
    started = time.monotonic()
    for _ in range(3):
        judge(runner)
    assert time.monotonic() - started < 20
    assert runner.sql("SELECT count(*) FROM sources WHERE late_after IS NULL") == [0]
    # From Friday evening to Monday morning.
    assert runner.sql("SELECT min(late_after) > 2 * 86400 FROM sources WHERE name LIKE 's_'") == [True]


def test_another_expectation_is_judged_anew(runner: SourceRunner, client: FlaskClient) -> None:
    runner.declare(shop(expect_rows="100.."))
    assert run(runner, 50) == ["odd_size 100.."]
    assert flags(client)[0] == ["odd_size"]
    runner.declare(shop(expect_rows="10.."))
    assert flags(client)[0] == []
