"""What grows with time: kept for as long as was promised, and no more than so many."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from db.queries.events import MOST_OF_A_RUN, record_event
from db.queries.quarantine import purge_cases
from db.queries.versions import purge_versions
from testkit.runner import SourceRunner

DAY = timedelta(days=1)


def versions(runner: SourceRunner, name: str = "shop") -> list[int]:
    return runner.sql(f"SELECT version FROM source_versions WHERE source_name = '{name}' ORDER BY version")


def with_versions(runner: SourceRunner, many: int, name: str = "shop") -> None:
    runner.write("shop.csv", "id,title\n1,a\n")
    runner.declare({"name": name, "type": "csv", "file": "shop.csv"})
    runner.sql(f"""
        INSERT INTO source_versions (source_name, version, mapping_version, mapped_since, reader, made_by, document)
        SELECT source_name, n, mapping_version, mapped_since, reader, made_by, document
        FROM source_versions, generate_series(2, {many}) n WHERE source_name = '{name}'
    """)
    runner.sql(f"UPDATE sources SET version = {many} WHERE name = '{name}'")


def test_old_versions_go_but_for_the_newest(runner: SourceRunner) -> None:
    with_versions(runner, 50)
    runner.sql("UPDATE source_versions SET made_at = made_at - interval '2 days' WHERE version <= 45")
    assert runner.database.transact(purge_versions, 3 * DAY, 1000) == 0
    assert runner.database.transact(purge_versions, DAY, 1000) == 30
    assert versions(runner) == list(range(31, 51))


def test_too_many_versions_go_however_new(runner: SourceRunner) -> None:
    with_versions(runner, 1010)
    run_id = runner.queue("shop")
    # A run goes on by the version that it began with.
    runner.sql(f"UPDATE etl_runs SET source_version = 3 WHERE run_id = '{run_id}'")
    assert runner.database.transact(purge_versions, DAY, 5000) == 9
    assert versions(runner) == [3, *range(11, 1011)]


def test_of_a_deleted_source_the_last_version_stays(runner: SourceRunner) -> None:
    with_versions(runner, 5)
    runner.sql("DELETE FROM sources")
    runner.sql("UPDATE source_versions SET made_at = made_at - interval '2 days'")
    runner.database.transact(purge_versions, DAY, 1000)
    assert versions(runner) == [5]


def test_settled_cases_go_when_they_were_not_seen_for_long(runner: SourceRunner) -> None:
    runner.write("shop.csv", "id,title,price\n1,a,x\n2,b,y\n3,c,z\n4,d,w\n5,e,1\n")
    runner.declare(
        {
            "name": "shop",
            "type": "csv",
            "file": "shop.csv",
            "max_rejected": 100,
            "map": {"external_id": "id", "title": "title", "amount": "price"},
        }
    )
    runner.run("shop")
    cases = runner.sql("SELECT id FROM rejected_records ORDER BY id")
    assert len(cases) == 4
    for case, state, days in zip(cases, ("discarded", "redriven", "superseded", "open"), (2, 2, 0, 2), strict=True):
        runner.sql(
            f"UPDATE rejected_records SET state = '{state}', last_seen_at = now() - interval '{days} days' WHERE id = {case}"
        )
    assert runner.database.transact(purge_cases, DAY, 100) == 2
    left = runner.sql("SELECT state FROM rejected_records ORDER BY id")
    assert left == ["superseded", "open"]


def test_a_run_has_so_many_events_and_its_end(runner: SourceRunner) -> None:
    runner.write("shop.csv", "id,title\n1,a\n")
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    run_id = runner.queue("shop")
    runner.sql(f"""
        INSERT INTO etl_run_events (run_id, event)
        SELECT '{run_id}', 'claimed' FROM generate_series(1, {MOST_OF_A_RUN})
    """)
    before = runner.sql("SELECT count(*) FROM etl_run_events")[0]
    with runner.database.transaction() as connection:
        record_event(connection, UUID(str(run_id)), "claimed")
        record_event(connection, UUID(str(run_id)), "success")
    assert runner.sql("SELECT count(*) FROM etl_run_events")[0] == before + 1
