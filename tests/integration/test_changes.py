"""A mirror misses nothing: not what commits late, not what is deleted, and not that the database was restored."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import psycopg2
import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from bench.bounds import pages_of
from db.queries import changes
from db.queries.source_removal import remove_some
from testkit.runner import SourceRunner
from testkit.service import Servers, wait_until
from web.app import create_app
from web.cursors import ChangeCursor, pack, unpack


@pytest.fixture(scope="module", autouse=True)
def no_autovacuum(servers: Servers) -> Iterator[None]:
    """Its ANALYZE is a transaction that has written something: it holds changes up as any other."""
    with closing(psycopg2.connect(servers.postgres.url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()

        def are_gone() -> bool:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'autovacuum %'")
            return cursor.fetchone() == (0,)

        cursor.execute("ALTER SYSTEM SET autovacuum = off")
        cursor.execute("SELECT pg_reload_conf()")
        wait_until(are_gone)
        yield
        cursor.execute("ALTER SYSTEM RESET autovacuum")
        cursor.execute("SELECT pg_reload_conf()")


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


class Mirror:
    """A copy of the items, by their ids."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client
        self.items: dict[int, dict[str, Any]] = {}
        self.cursor: str | None = None
        self.resets = 0

    def step(self, limit: int = 3) -> dict[str, Any]:
        cursor = f"&cursor={self.cursor}" if self.cursor else ""
        answer = self.client.get(f"/data/changes?limit={limit}{cursor}")
        if answer.status_code == 410:
            assert answer.get_json()["type"] == "urn:kasparro:problem:mirror_reset"
            self.items, self.cursor, self.resets = {}, None, self.resets + 1
            return self.step(limit)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.get_json()
        self.items |= {item["id"]: item for item in told["changes"]}
        self.cursor = told["next_cursor"]
        return told

    def sync(self, limit: int = 3) -> None:
        while self.step(limit)["has_more"]:
            pass

    @property
    def titles(self) -> dict[str, str | None]:
        return {item["external_id"]: item["title"] for item in self.items.values() if item["status"] == "active"}


def write(connection: Any, *ids: str, title: str = "a", source: str = "shop") -> None:
    connection.execute(
        text("""
            INSERT INTO unified_items (source_type, source_name, external_id, title, raw_data_id, raw_ingested_at,
                run_id, content_hash, mapping_version)
            SELECT 'csv', :source, unnest(CAST(:ids AS text[])), :title, 1, now(), gen_random_uuid(), '\\x00', 1
            ON CONFLICT (source_name, external_id) DO UPDATE SET title = excluded.title,
                change_xid = pg_current_xact_id()
        """),
        {"ids": list(ids), "title": title, "source": source},
    )


@contextmanager
def overlapping(runner: SourceRunner) -> Iterator[None]:
    """Between the end of a transaction that began later, and the end of one that began first."""
    with runner.database.engine.connect() as early:
        early.begin()
        write(early, "early")
        with runner.database.transaction() as late:
            write(late, "late")
        yield
        early.commit()


def table(runner: SourceRunner) -> dict[str, str | None]:
    return dict(runner.sql("SELECT external_id, title FROM unified_items WHERE status = 'active'"))


def test_what_commits_late_is_not_missed(runner: SourceRunner, client: FlaskClient) -> None:
    mirror = Mirror(client)
    with overlapping(runner):
        mirror.sync()
        # Nothing after an open transaction is told yet, and for how long is.
        assert mirror.titles == {}
        assert mirror.step()["behind_seconds"] > 0
    mirror.sync()
    assert set(mirror.titles) == {"early", "late"}
    assert mirror.step()["behind_seconds"] == 0


def test_the_bound_is_what_makes_it_so(
    runner: SourceRunner, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, as a clock or a sequence would have it, the first test fails."""
    unbound = text(
        str(changes._PAGE).replace("change_xid < CAST(:horizon AS xid8)", "CAST(:horizon AS xid8) IS NOT NULL")
    )
    monkeypatch.setattr(changes, "_PAGE", unbound)
    mirror = Mirror(client)
    with overlapping(runner):
        mirror.sync()
    mirror.sync()
    assert set(mirror.titles) == {"late"}


def test_what_is_committed_is_told_at_once(runner: SourceRunner, client: FlaskClient) -> None:
    mirror = Mirror(client)
    for turn in range(20):
        with runner.database.transaction() as connection:
            write(connection, "a", title=str(turn))
        assert mirror.step()["behind_seconds"] == 0
        assert mirror.titles == {"a": str(turn)}


def marks(runner: SourceRunner) -> int:
    return int(runner.sql("SELECT count(*) FROM mirror_marks")[0])


def test_who_asks_often_writes_no_mark_that_covers_no_more(runner: SourceRunner, client: FlaskClient) -> None:
    mirror = Mirror(client)
    with overlapping(runner):
        mirror.sync()
        before = marks(runner)
        for _ in range(5):
            assert mirror.step()["behind_seconds"] > 0
        assert marks(runner) == before
    mirror.sync()
    assert (set(mirror.titles), marks(runner)) == ({"early", "late"}, before + 1)


@pytest.mark.parametrize("hours", [1, 12, 720])
def test_a_mirror_need_not_begin_again_though_nothing_changes(runner: SourceRunner, hours: int) -> None:
    """It stays away for nine tenths of the time for which marks are kept, again and again."""
    retention = timedelta(hours=hours)
    settings = replace(runner.settings, deleted_retention=retention)
    with create_app(settings, runner.database).test_client() as client:
        mirror = Mirror(client)
        with runner.database.transaction() as connection:
            write(connection, "a")
        for _ in range(4):
            mirror.sync()
            runner.sql(f"UPDATE mirror_marks SET at = at - {hours} * interval '54 min'")
            runner.database.transact(changes.purge_marks, retention, 100)
        for _ in range(40):
            mirror.sync()
            runner.sql(f"UPDATE mirror_marks SET at = at - {hours} * interval '6 min'")
            runner.database.transact(changes.purge_marks, retention, 100)
    assert (mirror.titles, mirror.resets) == ({"a": "a"}, 0)


def test_how_old_the_oldest_change_is_that_waits(runner: SourceRunner, client: FlaskClient) -> None:
    mirror = Mirror(client)
    with overlapping(runner):
        assert 0 < mirror.step()["behind_seconds"] < 30
        runner.sql("UPDATE unified_items SET updated_at = now() - interval '2 hours'")
        assert 7200 <= mirror.step()["behind_seconds"] < 7230
        runner.sql("UPDATE unified_items SET updated_at = now() + interval '2 hours'")
        assert 0 < mirror.step()["behind_seconds"] < 1
    mirror.sync()
    assert mirror.step()["behind_seconds"] == 0


def test_changes_and_deletions_come_again(runner: SourceRunner, client: FlaskClient) -> None:
    mirror = Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, *"abcdefg")
    mirror.sync()
    assert mirror.titles == dict.fromkeys("abcdefg", "a")
    empty = mirror.step()
    assert (empty["changes"], empty["has_more"], bool(empty["next_cursor"])) == ([], False, True)
    with runner.database.transaction() as connection:
        write(connection, "c", title="new")
        connection.execute(
            text("""
                UPDATE unified_items SET status = 'deleted', deleted_at = now(), change_xid = pg_current_xact_id()
                WHERE external_id IN ('a', 'f')
            """)
        )
    told = mirror.step(100)
    assert sorted(item["external_id"] for item in told["changes"]) == ["a", "c", "f"]
    assert [item["deleted_at"] is not None for item in told["changes"] if item["status"] == "deleted"] == [True, True]
    assert mirror.titles == table(runner)


def test_whatever_happens_in_whatever_order(runner: SourceRunner, client: FlaskClient) -> None:
    """Writers that overlap at random, and a mirror that reads in between."""
    chance = random.Random(7)
    mirror = Mirror(client)
    # Each writer has names of its own while it is open, so that none waits for another.
    free, open_ones = list(range(4)), list[tuple[int, Any]]()
    for turn in range(150):
        if chance.random() < 0.5 and free:
            slot, connection = free.pop(), runner.database.engine.connect()
            connection.begin()
            write(connection, *{f"{slot}-{chance.randrange(5)}" for _ in range(3)}, title=str(turn))
            open_ones.append((slot, connection))
        elif open_ones:
            slot, connection = open_ones.pop(chance.randrange(len(open_ones)))
            (connection.commit if chance.random() < 0.8 else connection.rollback)()
            connection.close()
            free.append(slot)
        if chance.random() < 0.4:
            mirror.step(chance.choice((1, 2, 50)))
    for _, connection in open_ones:
        connection.commit()
        connection.close()
    mirror.sync()
    assert mirror.titles == table(runner)
    assert mirror.resets == 0


def test_items_removed_for_good_need_a_mirror_that_saw_them_go(runner: SourceRunner, client: FlaskClient) -> None:
    behind, ahead = Mirror(client), Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, "a", "b")
    behind.sync()
    ahead.sync()
    with runner.database.transaction() as connection:
        connection.execute(
            text(
                "UPDATE unified_items SET status = 'deleted', change_xid = pg_current_xact_id() WHERE external_id = 'a'"
            )
        )
    ahead.sync()
    with runner.database.transaction() as connection:
        gone = connection.execute(text("DELETE FROM unified_items WHERE external_id = 'a' RETURNING change_xid::text"))
        changes.raise_floor(connection, gone.scalar_one())
    for mirror in (behind, ahead):
        mirror.sync()
        assert mirror.titles == {"b": "a"}
    assert (behind.resets, ahead.resets) == (1, 0)


def test_a_restore_to_an_earlier_point_resets_what_saw_more(runner: SourceRunner, client: FlaskClient) -> None:
    """The tables as they were at some time, by copies of them; the transactions of the cluster go on."""
    before, after = Mirror(client), Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, "a", "b")
    for mirror in (before, after):
        mirror.sync()
    runner.sql("CREATE TABLE kept_items AS SELECT * FROM unified_items")
    runner.sql("CREATE TABLE kept_marks AS SELECT * FROM mirror_marks")
    try:
        with runner.database.transaction() as connection:
            write(connection, "c")
            write(connection, "a", title="lost")
        after.sync()
        runner.sql("DELETE FROM unified_items WHERE external_id = 'c'")
        runner.sql(
            "UPDATE unified_items i SET title = k.title, change_xid = k.change_xid FROM kept_items k WHERE k.id = i.id"
        )
        runner.sql("DELETE FROM mirror_marks WHERE nonce NOT IN (SELECT nonce FROM kept_marks)")
    finally:
        runner.sql("DROP TABLE kept_items, kept_marks")
    for mirror in (before, after):
        mirror.sync()
        assert mirror.titles == {"a": "a", "b": "a"}
    assert (before.resets, after.resets) == (0, 1)


def test_another_cluster_resets(runner: SourceRunner, client: FlaskClient) -> None:
    mirror = Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, "a")
    mirror.sync()
    assert mirror.cursor is not None
    mirror.cursor = pack(msgspec.structs.replace(unpack(mirror.cursor, ChangeCursor), cluster="42"))
    mirror.sync()
    assert (mirror.titles, mirror.resets) == ({"a": "a"}, 1)


def test_marks_of_another_cluster_say_nothing_of_this_one(runner: SourceRunner, client: FlaskClient) -> None:
    """As after a restore into a fresh one, whose transactions have lower numbers."""
    with runner.database.transaction() as connection:
        write(connection, "a")
        connection.execute(text("UPDATE unified_items SET change_xid = '999999998'"))
    client.get("/data/changes")
    runner.sql("UPDATE mirror_marks SET cluster = '42', horizon = '999999999'")
    mirror = Mirror(client)
    mirror.sync()
    assert mirror.titles == {}
    runner.database.transact(changes.renumber)
    with runner.database.transaction() as connection:
        write(connection, "b")
    mirror.sync()
    assert (set(mirror.titles), mirror.resets) == ({"a", "b"}, 0)


def test_the_floor_of_another_cluster_says_nothing_of_this_one(runner: SourceRunner, client: FlaskClient) -> None:
    with runner.database.transaction() as connection:
        write(connection, "a")
        changes.raise_floor(connection, "999999999")
    runner.sql("UPDATE mirror_floor SET cluster = '42'")
    mirror = Mirror(client)
    mirror.sync()
    assert (set(mirror.titles), mirror.resets) == ({"a"}, 0)
    with runner.database.transaction() as connection:
        changes.raise_floor(connection, "3")
    assert runner.sql("SELECT xid::text FROM mirror_floor") == ["3"]


def test_a_mirror_that_begins_after_items_were_removed_need_not_begin_again(
    runner: SourceRunner, client: FlaskClient
) -> None:
    with runner.database.transaction() as connection:
        write(connection, *"abcdefgh")
    with runner.database.transaction() as connection:
        write(connection, "gone")
    with runner.database.transaction() as connection:
        gone = connection.execute(
            text("DELETE FROM unified_items WHERE external_id = 'gone' RETURNING change_xid::text")
        )
        changes.raise_floor(connection, gone.scalar_one())
    mirror = Mirror(client)
    for _ in range(2):
        mirror.sync()
    assert (sorted(mirror.titles), mirror.resets) == (list("abcdefgh"), 0)


def write_ahead(runner: SourceRunner) -> None:
    """One item whose change lies ahead of all transactions, and one as all others."""
    with runner.database.transaction() as connection:
        write(connection, "a", "b")
        connection.execute(text("UPDATE unified_items SET change_xid = '999999999' WHERE external_id = 'a'"))


def test_changes_that_lie_ahead_of_all_transactions_are_put_among_them(
    runner: SourceRunner, client: FlaskClient
) -> None:
    mirror = Mirror(client)
    write_ahead(runner)
    mirror.sync()
    assert set(mirror.titles) == {"b"}
    assert runner.database.transact(changes.renumber) == 1
    assert runner.database.transact(changes.renumber) == 0
    mirror.sync()
    assert set(mirror.titles) == {"a", "b"}


def test_who_asks_while_changes_lie_ahead_is_behind_and_writes_no_marks(
    runner: SourceRunner, client: FlaskClient
) -> None:
    mirror = Mirror(client)
    write_ahead(runner)
    mirror.sync()
    before = marks(runner)
    for _ in range(5):
        assert mirror.step()["behind_seconds"] > 0
    assert marks(runner) == before
    runner.database.transact(changes.renumber)
    mirror.sync()
    assert mirror.step()["behind_seconds"] == 0


def test_what_is_removed_while_it_lies_ahead_resets_nobody(runner: SourceRunner, client: FlaskClient) -> None:
    """Not even while a transaction is open that keeps a mirror from its first change."""
    with runner.database.transaction() as connection:
        write(connection, "gone")
        connection.execute(text("UPDATE unified_items SET change_xid = '999999999'"))
    runner.sql("UPDATE unified_items SET status = 'deleted', deleted_at = now() - interval '2 days'")
    runner.sql(
        "INSERT INTO source_removals (source_name, asked_at, emptied_at) VALUES ('shop', '2026-01-01', '2026-01-01')"
    )
    mirror = Mirror(client)
    with overlapping(runner):
        assert runner.database.transact(remove_some, timedelta(days=1))
        mirror.sync()
        mirror.sync()
    mirror.sync()
    assert (set(mirror.titles), mirror.resets) == ({"early", "late"}, 0)


def test_an_answer_looks_at_few_pages_however_many_items_there_are(runner: SourceRunner, client: FlaskClient) -> None:
    with runner.database.transaction() as connection:
        write(connection, *(str(n) for n in range(30_000)))
    runner.sql("ANALYZE unified_items")
    mirror = Mirror(client)
    mirror.step(50)
    # Nothing new, the beginning, and further on.
    for cursor in ("", f"&cursor={mirror.cursor}"):
        assert pages_of(client, runner.database, f"/data/changes?limit=50{cursor}") < 400


@pytest.mark.parametrize("cursor", ["x", "AAAA", "W10", "WyIxIiwieCIsMSwxXQ"])
def test_what_is_no_cursor_of_ours(client: FlaskClient, cursor: str) -> None:
    assert client.get(f"/data/changes?cursor={cursor}").status_code == 422


def test_old_marks_are_removed(runner: SourceRunner, client: FlaskClient) -> None:
    mirror = Mirror(client)
    mirror.sync()
    runner.sql("UPDATE mirror_marks SET at = at - interval '32 days'")
    assert runner.database.transact(changes.purge_marks, timedelta(days=30), 100) >= 1
    mirror.sync()
    assert mirror.resets == 1
