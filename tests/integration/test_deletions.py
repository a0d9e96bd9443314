"""Deletions: items that a complete run of their source does not meet any more."""

from __future__ import annotations

import signal
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from db.queries.closing import close_run
from db.queries.deletions import delete_some, forget_seen
from db.queries.run_requests import request_runs
from db.queries.runs import claim_run
from db.queries.stats import known_items, overall, source_totals
from db.queries.totals import recount, roll_up
from etl.declare.source import parse
from etl.errors import ConfigError, NoSnapshotError
from etl.extract.csv_files import CsvFiles
from etl.runs.outcome import Trigger
from etl.runs.run_requests import Requested
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.runner import SourceRunner
from testkit.service import Servers


def shop(**more: Any) -> dict[str, Any]:
    return {"name": "shop", "type": "csv", "file": "shop.csv", "full_snapshot": True, **more}


def write(runner: SourceRunner, ids: range | list[int], name: str = "shop.csv", price: int = 1) -> None:
    runner.write(name, "id,name,price\n" + "".join(f"{n},pot {n},{price}\n" for n in ids))


def served(runner: SourceRunner) -> int:
    """How many items are served: as the table, `/data` and `/stats` count them, which must agree."""
    rows: int = runner.sql("SELECT count(*) FROM unified_items WHERE status = 'active'")[0]
    for _ in range(2):
        with runner.database.transaction() as connection:
            totals = source_totals(connection, limit=100)
            counted = {
                known_items(connection, None, "shop"),
                known_items(connection, None, None),
                overall(connection).items,
                sum(row.items for row in totals),
            }
        assert counted == {rows}
        runner.database.transact(roll_up)
        runner.database.transact(recount)
    return rows


def accept(runner: SourceRunner) -> dict[str, Any]:
    answer = runner.database.transact(request_runs, ["shop"], Trigger.API, accept_deletions=True)
    assert isinstance(answer, Requested)
    runner.messages += answer.messages
    runner.drain()
    return runner.show(answer.queued[0])


def events(runner: SourceRunner, run: dict[str, Any]) -> list[str]:
    return runner.sql("SELECT event FROM etl_run_events WHERE run_id = :id ORDER BY event_id", id=run["run_id"])


def test_what_is_missing_is_deleted_and_comes_back(runner: SourceRunner) -> None:
    write(runner, range(100))
    runner.declare(shop())
    assert runner.run("shop")["items_deleted"] == 0
    before = runner.sql("SELECT max(updated_at) FROM unified_items")[0]
    write(runner, range(5, 100))
    run = runner.run("shop")
    assert (run["status"], run["items_deleted"], run["records_extracted"]) == ("success", 5, 95)
    assert run["records_unchanged"] == 95
    gone = runner.sql("SELECT external_id, deleted_at, updated_at, title FROM unified_items WHERE status = 'deleted'")
    assert sorted(row[0] for row in gone) == ["0", "1", "2", "3", "4"]
    assert all(isinstance(row[1], datetime) and row[2] > before and row[3] for row in gone)
    assert served(runner) == 95
    write(runner, range(3, 100))
    run = runner.run("shop")
    assert (run["items_deleted"], run["records_updated"], run["records_unchanged"]) == (0, 2, 95)
    assert runner.sql("SELECT count(*) FROM unified_items WHERE status = 'active' AND deleted_at IS NULL") == [97]
    assert served(runner) == 97


def test_more_than_the_limit_is_deleted_only_when_somebody_says_so(runner: SourceRunner) -> None:
    write(runner, range(100))
    runner.declare(shop())
    runner.run("shop")
    write(runner, range(10, 100))
    run = runner.run("shop")
    assert (run["status"], run["items_deleted"]) == ("success", 10)
    write(runner, range(20, 100))
    run = runner.run("shop")
    assert (run["status"], run["items_deleted"], run["error"]["code"]) == ("partial", 0, "too_many_deletions")
    assert run["error"]["message"] == (
        "10 of 90 items are missing from the source; the limit is 10 % (`max_deleted`), so none was deleted. "
        "If they are meant to go, run it once by `POST /runs` with `accept_deletions`"
    )
    assert "too_many_deletions" in events(runner, run)
    assert served(runner) == 90
    # An unchanged file is read again: it must not look well.
    assert runner.run("shop")["error"]["code"] == "too_many_deletions"
    run = accept(runner)
    assert (run["status"], run["items_deleted"]) == ("success", 10)
    assert served(runner) == 80
    # It holds for one run.
    write(runner, range(40, 100))
    assert runner.run("shop")["items_deleted"] == 0
    runner.declare(shop(max_deleted={"records": 20}))
    assert runner.run("shop")["items_deleted"] == 20


def test_an_empty_snapshot_deletes_nothing(runner: SourceRunner) -> None:
    write(runner, range(100))
    runner.declare(shop())
    runner.run("shop")
    write(runner, [])
    run = runner.run("shop")
    assert (run["status"], run["items_deleted"], run["error"]["code"]) == ("failed", 0, "too_many_deletions")
    run = accept(runner)
    assert (run["status"], run["items_deleted"]) == ("success", 100)
    assert served(runner) == 0


def test_unchanged_and_rejected_records_are_there(runner: SourceRunner) -> None:
    runner.declare(shop(map={"external_id": "id", "title": "name", "amount": "price"}))
    write(runner, range(50))
    runner.run("shop")
    # 1 is not read as a number now, and 2 to 4 are gone.
    runner.write(
        "shop.csv", "id,name,price\n0,pot 0,1\n1,pot 1,x\n" + "".join(f"{n},pot {n},1\n" for n in range(5, 50))
    )
    run = runner.run("shop")
    assert (run["status"], run["records_failed"], run["items_deleted"]) == ("partial", 1, 3)
    # The next one meets 1 in quarantine.
    run = runner.run("shop")
    assert (run["records_failed"], run["items_deleted"]) == (1, 0)
    assert served(runner) == 47


def test_a_record_without_an_id_may_be_any(runner: SourceRunner) -> None:
    runner.declare(shop())
    write(runner, range(50))
    runner.run("shop")
    runner.write("shop.csv", "id,name,price\n,pot 0,1\n" + "".join(f"{n},pot {n},1\n" for n in range(1, 50)))
    run = runner.run("shop")
    assert (run["status"], run["items_deleted"], run["error"]["code"]) == ("partial", 0, "deletions_held")
    assert run["error"]["message"].startswith("no item was deleted: 1 records have no id")
    assert served(runner) == 50


@pytest.mark.parametrize("rows", ["x" * 30, "1" * 10 + "x" * 40])
def test_a_run_that_fails_by_its_records_deletes_nothing(runner: SourceRunner, rows: str) -> None:
    runner.declare(shop(map={"external_id": "id", "title": "name", "amount": "price"}, max_deleted=100))
    write(runner, range(50))
    runner.run("shop")
    runner.write("shop.csv", "id,name,price\n" + "".join(f"{n},pan {n},{mark}\n" for n, mark in enumerate(rows)))
    run = runner.run("shop")
    assert (run["status"], run["items_deleted"], run["error"]["code"]) == ("failed", 0, "too_many_rejected")
    assert runner.sql("SELECT count(*) FROM unified_items WHERE status = 'deleted'") == [0]


def test_a_snapshot_that_is_cut_off_deletes_nothing(runner: SourceRunner, fake_server: FakeServer) -> None:
    pages = {str(page): [{"id": 10 * page + n} for n in range(10)] for page in range(1, 6)}
    cut = {"at": "9"}

    def answer(request: Request) -> Response:
        page = request.query["page"]
        return Response(b"no", 403) if page == cut["at"] else as_json(pages.get(page, []))

    runner.declare(
        {
            "name": "shop",
            "type": "api",
            "full_snapshot": True,
            "max_deleted": 100,
            "request": {"url": fake_server.on("/items", answer)},
            "paginate": {"style": "page", "param": "page"},
        }
    )
    assert runner.run("shop")["records_inserted"] == 50
    cut["at"] = "3"
    run = runner.run("shop")
    assert (run["status"], run["items_deleted"], run["records_extracted"]) == ("partial", 0, 20)
    assert served(runner) == 50
    cut["at"], pages["3"] = "9", pages["3"][:4]
    assert runner.run("shop")["items_deleted"] == 6
    assert served(runner) == 44


def test_an_answer_that_is_not_modified_deletes_nothing(runner: SourceRunner, fake_server: FakeServer) -> None:
    answers = [
        Response(b'[{"id": 1}, {"id": 2}]', headers={"Content-Type": "application/json", "ETag": '"a"'}),
        Response(b"", 304),
    ]
    document = {
        "name": "shop",
        "type": "api",
        "full_snapshot": True,
        "max_deleted": 0,
        "request": {"url": fake_server.on("/items", answers)},
    }
    runner.declare(document)
    runner.run("shop")
    run = runner.run("shop")
    assert (run["status"], run["records_extracted"], run["items_deleted"]) == ("success", 0, 0)
    assert served(runner) == 2


def test_files_are_a_snapshot_together(runner: SourceRunner) -> None:
    """One that has not changed is read again when another one has, and one that is gone takes its items along."""
    runner.declare(shop(file="*.csv", max_deleted=100))
    write(runner, range(10), "a.csv")
    write(runner, range(10, 20), "b.csv")
    assert runner.run("shop")["records_inserted"] == 20
    assert runner.run("shop")["records_extracted"] == 0
    write(runner, range(10, 18), "b.csv")
    run = runner.run("shop")
    assert (run["records_unchanged"], run["items_deleted"]) == (18, 2)
    (runner.folder / "a.csv").unlink()
    run = runner.run("shop")
    assert (run["records_unchanged"], run["items_deleted"]) == (8, 10)
    (runner.folder / "b.csv").unlink()
    run = runner.run("shop")
    assert (run["status"], run["items_deleted"]) == ("success", 0)
    assert served(runner) == 8


def test_deleting_goes_in_steps_and_goes_on_after_each_of_them(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.queries.deletions.MOST_COUNTED", 7)
    monkeypatch.setattr("db.queries.deletions.MOST_DELETED", 3)
    runner.settings = replace(runner.settings, batch_size=10)
    runner.declare(shop(max_deleted=100))
    write(runner, range(40))
    runner.run("shop")
    write(runner, range(0, 40, 2))
    run_id = runner.queue("shop")
    # A slice that is over at once takes one batch, or one step.
    runner.slice_seconds = 0
    while not runner.sql(
        "SELECT 1 FROM etl_runs WHERE run_id = :id AND stage = 'queued' AND items_deleted > 0", id=run_id
    ):
        runner.step()
    claim = runner.database.transact(claim_run, run_id, "one", 60)
    assert claim is not None
    steps = 0
    while True:
        step = runner.database.transact(delete_some, claim, 60)
        # Whoever does not know whether it was stored asks again.
        assert runner.database.transact(delete_some, claim, 60) == step
        if step.is_last:
            break
        steps += 1
        assert runner.sql("SELECT stage FROM etl_runs WHERE run_id = :id", id=run_id) == ["deleting"]
        runner.sql("UPDATE etl_runs SET lease_expires_at = now() - interval '1 s' WHERE run_id = :id", id=run_id)
        claim = runner.database.transact(claim_run, run_id, "another", 60)
        assert claim is not None
        assert claim.position == step.position
    assert steps > 5
    runner.messages = []
    runner.database.transact(close_run, run_id)
    run = runner.show(run_id)
    assert (run["status"], run["items_deleted"], run["records_extracted"]) == ("success", 20, 20)
    assert served(runner) == 20


@pytest.mark.parametrize("phase", ["loaded", "counting", "deleting"])
def test_ids_that_a_crash_has_emptied_delete_nothing_more(
    runner: SourceRunner, servers: Servers, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setattr("db.queries.deletions.MOST_COUNTED", 20)
    monkeypatch.setattr("db.queries.deletions.MOST_DELETED", 5)
    runner.declare(shop(max_deleted=100))
    write(runner, range(40))
    runner.run("shop")
    write(runner, range(0, 40, 2))
    run_id = runner.queue("shop")
    crashed = False

    def crash_then(connection: Any, claim: Any, lease: float) -> Any:
        nonlocal crashed
        at = (claim.position.cursor or {}).get("phase", "loaded")
        if at == phase and not crashed:
            crashed = True
            # Else what all tests before have written is written again, for longer than the patience of this one.
            runner.sql("CHECKPOINT")
            servers.crash("postgres", signal.SIGKILL)
            servers.start("postgres")
        return delete_some(connection, claim, lease)

    monkeypatch.setattr("worker.deleting.delete_some", crash_then)
    runner.drain()
    assert crashed
    run = runner.show(run_id)
    assert (run["status"], run["error"]["code"]) == ("partial", "deletions_held")
    # Nothing that the file has was deleted.
    assert runner.sql("SELECT count(*) FROM unified_items WHERE status = 'deleted' AND external_id::int % 2 = 0") == [0]
    assert served(runner) == 40 - run["items_deleted"]
    run = runner.run("shop")
    assert run["status"] == "success"
    assert served(runner) == 20


def test_ids_of_runs_that_are_over_are_forgotten(runner: SourceRunner) -> None:
    write(runner, range(50))
    runner.declare(shop())
    runner.run("shop")
    runner.queue("shop")
    runner.step()
    active = runner.sql("SELECT run_id FROM etl_runs WHERE status = 'running'")
    assert runner.sql("SELECT count(*), count(DISTINCT run_id) FROM seen_ids") in ([(50, 1)], [(100, 2)])
    for _ in range(10):
        runner.database.transact(forget_seen, 20)
    left = set(runner.sql("SELECT run_id FROM seen_ids"))
    assert left <= set(active)


def test_a_replay_neither_deletes_nor_revives(runner: SourceRunner) -> None:
    write(runner, range(50))
    runner.declare(shop(map={"external_id": "id", "title": "name"}))
    runner.run("shop")
    write(runner, range(3, 50))
    runner.run("shop")
    runner.declare(shop(map={"external_id": "id", "title": "price"}))
    run = runner.replay("shop")
    assert (run["items_deleted"], run["status"]) == (0, "success")
    assert runner.sql("SELECT count(*) FROM unified_items WHERE status = 'deleted'") == [3]
    assert served(runner) == 47


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {
                "type": "api",
                "request": {"url": "http://a.example"},
                "incremental": {"field": "at", "param": "since"},
            },
            "`full_snapshot`: with `incremental` only a part of the source is read",
        ),
        ({"type": "csv", "file": "a.csv", "mode": "append"}, "`full_snapshot`: in mode append only what was added"),
        ({"type": "csv", "file": "a.csv", "max_deleted": 101}, "max_deleted"),
        ({"type": "csv", "file": "a.csv", "max_deleted": {"records": -1}}, "max_deleted"),
    ],
)
def test_what_contradicts_a_snapshot_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        parse({"name": "shop", "full_snapshot": True, **document})


def test_deletions_of_no_snapshot_are_not_accepted(runner: SourceRunner) -> None:
    write(runner, range(5))
    runner.declare(shop(full_snapshot=False))
    with pytest.raises(NoSnapshotError, match="`accept_deletions`: the source 'shop' is no `full_snapshot`"):
        accept(runner)
    assert runner.sql("SELECT count(*) FROM etl_runs") == [0]


def test_a_feed_that_is_not_well_formed_deletes_nothing(runner: SourceRunner, fake_server: FakeServer) -> None:
    def feed(ids: list[int], mistake: str = "") -> Response:
        items = "".join(f"<item><guid>{n}</guid><title>t{n}</title></item>" for n in ids)
        body = f"<rss version='2.0'><channel><title>t</title>{items}{mistake}</channel></rss>"
        return Response(body.encode(), headers={"Content-Type": "application/rss+xml"})

    answers = [feed(list(range(20))), feed(list(range(1, 20)), "<item><title>&nope;</item>"), feed(list(range(1, 20)))]
    url = fake_server.on("/feed", answers)
    runner.declare({"name": "shop", "type": "rss", "full_snapshot": True, "request": {"url": url}})
    runner.run("shop")
    assert runner.run("shop")["items_deleted"] == 0
    assert runner.run("shop")["items_deleted"] >= 1


def test_a_file_that_changes_between_two_looks_is_read_again(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.declare(shop(file="*.csv", max_deleted=100))
    write(runner, range(10), "a.csv")
    write(runner, range(10, 20), "b.csv")
    runner.run("shop")
    real = CsvFiles._are_known

    def change_then(self: CsvFiles, found: Any) -> bool:
        known = real(self, found)
        write(runner, range(10, 15), "b.csv")
        return known

    monkeypatch.setattr(CsvFiles, "_are_known", change_then)
    assert runner.run("shop")["items_deleted"] == 0
    monkeypatch.setattr(CsvFiles, "_are_known", real)
    assert runner.run("shop")["items_deleted"] == 5
    assert served(runner) == 15
