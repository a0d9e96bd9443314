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
from db.queries import changes, marks
from db.queries.source_removal import remove_some
from etl.errors import StorageUnavailableError
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
        try:
            cursor.execute("SELECT pg_reload_conf()")
            wait_until(are_gone)
            yield
        finally:
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


def marks_of(runner: SourceRunner) -> int:
    return int(runner.sql("SELECT count(*) FROM mirror_marks")[0])


def test_who_asks_often_writes_no_mark_that_covers_no_more(runner: SourceRunner, client: FlaskClient) -> None:
    mirror = Mirror(client)
    with overlapping(runner):
        mirror.sync()
        before = marks_of(runner)
        for _ in range(5):
            assert mirror.step()["behind_seconds"] > 0
        assert marks_of(runner) == before
    mirror.sync()
    assert (set(mirror.titles), marks_of(runner)) == ({"early", "late"}, before + 1)


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
            runner.database.transact(marks.purge_marks, retention, 100)
        for _ in range(40):
            mirror.sync()
            runner.sql(f"UPDATE mirror_marks SET at = at - {hours} * interval '6 min'")
            runner.database.transact(marks.purge_marks, retention, 100)
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


def delete(runner: SourceRunner, *ids: str) -> None:
    """As if it was two days ago, but for the transaction."""
    with runner.database.transaction() as connection:
        query = """
            UPDATE unified_items SET status = 'deleted', deleted_at = now() - interval '2 days',
                change_xid = pg_current_xact_id() WHERE external_id = ANY (:ids)
        """
        connection.execute(text(query), {"ids": list(ids)})


def remove(runner: SourceRunner) -> None:
    """What was deleted more than a day ago, for good."""
    with runner.database.transaction() as connection:
        removal = "('shop', '2026-01-01', '2026-01-01')"
        connection.execute(text(f"INSERT INTO source_removals (source_name, asked_at, emptied_at) VALUES {removal}"))
        assert remove_some(connection, timedelta(days=1))
    assert runner.sql("SELECT 1 FROM unified_items WHERE status = 'deleted'") == []


def test_items_removed_for_good_need_a_mirror_that_saw_them_go(runner: SourceRunner, client: FlaskClient) -> None:
    behind, ahead = Mirror(client), Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, "a", "b", "c")
    behind.sync()
    ahead.sync()
    delete(runner, "a")
    ahead.sync()
    # One that lies ahead of all transactions is removed with it.
    delete(runner, "c")
    runner.sql("UPDATE unified_items SET change_xid = '999999999' WHERE external_id = 'c'")
    remove(runner)
    behind.sync()
    assert (behind.titles, behind.resets) == ({"b": "a"}, 1)
    ahead.sync()
    assert ahead.resets == 0


def test_who_has_half_of_what_one_transaction_deleted_begins_again(runner: SourceRunner, client: FlaskClient) -> None:
    half, whole = Mirror(client), Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, *"abcdefg")
    for mirror in (half, whole):
        mirror.sync()
    delete(runner, *"abcdef")
    assert half.step(3)["has_more"]
    whole.step(3)
    assert not whole.step(3)["has_more"]
    remove(runner)
    for mirror in (half, whole):
        mirror.sync()
        assert mirror.titles == {"g": "a"}
    assert (half.resets, whole.resets) == (1, 0)


def test_a_removal_resets_a_mirror_once_though_a_transaction_is_open(runner: SourceRunner, client: FlaskClient) -> None:
    """That keeps a mirror, which begins again, from the change up to which items were removed."""
    begun = Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, *"abcdefg", "gone")
    begun.step(3)
    with overlapping(runner):
        delete(runner, "gone")
        remove(runner)
        mirror = Mirror(client)
        for each in (begun, mirror, mirror, begun, begun):
            each.sync()
    for each in (begun, mirror):
        each.sync()
        assert set(each.titles) == {*"abcdefg", "early", "late"}
    assert (begun.resets, mirror.resets) == (1, 0)


@contextmanager
def restored(runner: SourceRunner) -> Iterator[None]:
    """The tables as they are now, by copies of them, are brought back at the end; the transactions of the cluster go on."""
    kept = ("unified_items", "mirror_marks", "mirror_floor")
    for table in kept:
        runner.sql(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
    try:
        yield
        for table in kept:
            columns = runner.sql(f"""
                SELECT string_agg(quote_ident(column_name), ',') FROM information_schema.columns
                WHERE table_name = '{table}' AND is_generated = 'NEVER'
            """)[0]
            runner.sql(f"DELETE FROM {table}")
            runner.sql(f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM kept_{table}")
    finally:
        for table in kept:
            runner.sql(f"DROP TABLE kept_{table}")


def test_a_restore_to_an_earlier_point_resets_what_saw_more(runner: SourceRunner, client: FlaskClient) -> None:
    before, after = Mirror(client), Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, "a", "b")
    for mirror in (before, after):
        mirror.sync()
    with restored(runner):
        with runner.database.transaction() as connection:
            write(connection, "c")
            write(connection, "a", title="lost")
        after.sync()
    for mirror in (before, after):
        mirror.sync()
        assert mirror.titles == {"a": "a", "b": "a"}
    assert (before.resets, after.resets) == (0, 1)


@pytest.mark.parametrize("is_late", [False, True])
def test_a_restore_brings_back_what_was_passed_over_since_it_was_newer(
    runner: SourceRunner, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    """While a transaction is open: the newer one cannot be told yet, and the older one lies behind the mirror.

    It is written before the mirror asks, or just before the answer is read.
    """

    def update() -> None:
        with runner.database.transaction() as connection:
            write(connection, "x", title="newer")

    def read_late(*args: Any) -> changes.Changes:
        update()
        return changes.read_changes(*args)

    mirror = Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, "x", title="older")
    with runner.database.transaction() as connection:
        write(connection, "y", "z")
    with runner.database.engine.connect() as early:
        early.begin()
        write(early, "early")
        assert Mirror(client).step()["changes"]
        with restored(runner):
            if is_late:
                monkeypatch.setattr("web.blueprints.data.read_changes", read_late)
            else:
                update()
            mirror.sync()
            monkeypatch.undo()
            assert set(mirror.titles) == {"y", "z"}
        early.rollback()
    mirror.sync()
    assert (mirror.titles, mirror.resets) == ({"x": "older", "y": "a", "z": "a"}, 1)


def test_what_is_removed_before_its_mark_is_written_gets_one(
    runner: SourceRunner, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No change can be seen any more that was not there at the mark before, but the mirror has come further."""

    def read_and_remove(*args: Any) -> changes.Changes:
        found = changes.read_changes(*args)
        remove(runner)
        return found

    mirror = Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, "a", "gone")
    mirror.sync()
    with restored(runner):
        delete(runner, "gone")
        monkeypatch.setattr("web.blueprints.data.read_changes", read_and_remove)
        mirror.step()
        monkeypatch.undo()
        assert set(mirror.titles) == {"a"}
    mirror.sync()
    assert (set(mirror.titles), mirror.resets) == ({"a", "gone"}, 1)


def test_a_life_that_goes_on_from_a_mark_gives_the_numbers_after_it_again(
    runner: SourceRunner, client: FlaskClient
) -> None:
    """What was deleted under one of them was not deleted before the mirror began."""
    with runner.database.transaction() as connection:
        write(connection, "a", "gone")
    Mirror(client).sync()
    with runner.database.transaction() as connection:
        lost = connection.execute(text("SELECT pg_current_xact_id()::text")).scalar_one()
    mirror = Mirror(client)
    mirror.sync()
    with runner.database.transaction() as connection:
        connection.execute(text("DELETE FROM unified_items WHERE external_id = 'gone'"))
        changes.raise_floor(connection, lost)
    mirror.sync()
    assert (set(mirror.titles), mirror.resets) == ({"a"}, 1)


@pytest.mark.parametrize("table", ["unified_items", "mirror_marks"])
def test_another_database_answers_for_no_reading_of_this_one(runner: SourceRunner, table: str) -> None:
    found = runner.database.read(changes.read_changes, None, 10)
    assert runner.database.transact(marks.set_mark, found.life, timedelta(days=1))
    assert runner.database.read(marks.find_mark, found.life, timedelta(days=1))
    runner.sql(f"TRUNCATE {table} CASCADE")
    assert runner.database.read(marks.find_mark, found.life, timedelta(days=1)) is None
    with runner.database.engine.begin() as connection, pytest.raises(StorageUnavailableError, match="restored"):
        marks.set_mark(connection, found.life, timedelta(days=1))


def mark(runner: SourceRunner) -> str | None:
    """The number of the mark that is handed out now, if none need be written."""
    life = runner.database.read(changes.read_changes, None, 1).life
    found = runner.database.read(marks.find_mark, life, timedelta(days=1))
    return found.nonce if found else None


@pytest.mark.parametrize("was_open", [False, True])
def test_a_mark_is_written_after_what_it_answers_for(runner: SourceRunner, client: FlaskClient, was_open: bool) -> None:
    """What commits between a reading and its mark, and what was open at the mark before, gets another mark."""
    mirror = Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, "a")
    if was_open:
        with overlapping(runner):
            mirror.sync()
            before = mark(runner)
    else:
        mirror.sync()
        before = mark(runner)
        with runner.database.transaction() as connection:
            write(connection, "b")
    assert before is not None
    assert mark(runner) is None
    mirror.sync()
    assert mark(runner) not in {None, before}


def test_a_copy_of_the_files_with_later_tables_resets(runner: SourceRunner, client: FlaskClient) -> None:
    """It has the name of the cluster from which the tables were dumped; their numbers lie ahead."""
    mirror = Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, "a", "gone")
        changes.raise_floor(connection, "999999999")
    mirror.sync()
    runner.sql("DELETE FROM unified_items WHERE external_id = 'gone'")
    runner.sql("UPDATE mirror_marks SET seen = '999999990:999999999:'")
    mirror.sync()
    assert (mirror.titles, mirror.resets) == ({"a": "a"}, 1)
    with overlapping(runner):
        mirror.sync()
    for each in (mirror, Mirror(client)):
        each.sync()
        assert set(each.titles) == {"a", "early", "late"}
    assert mirror.resets == 1
    assert runner.sql("SELECT xid FROM mirror_floor") == []


def test_who_comes_back_with_the_database_from_another_cluster_begins_again(
    runner: SourceRunner, client: FlaskClient
) -> None:
    mirror = Mirror(client)
    with runner.database.transaction() as connection:
        write(connection, "a", "b")
    mirror.sync()
    here = runner.sql("SELECT cluster FROM mirror_marks LIMIT 1")[0]
    # There it was restored, and something changed; the numbers are low there.
    runner.sql("UPDATE mirror_marks SET cluster = '42'")
    runner.database.transact(marks.forget_foreign)
    runner.sql("DELETE FROM unified_items WHERE external_id = 'a'")
    runner.sql(f"UPDATE mirror_marks SET cluster = '{here}'")
    mirror.sync()
    assert (mirror.titles, mirror.resets) == ({"b": "a"}, 1)


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
    runner.sql("UPDATE mirror_marks SET cluster = '42', seen = '999999999:999999999:'")
    mirror = Mirror(client)
    mirror.sync()
    assert mirror.titles == {}
    runner.database.transact(changes.renumber)
    with runner.database.transaction() as connection:
        write(connection, "b")
    mirror.sync()
    assert (set(mirror.titles), mirror.resets) == ({"a", "b"}, 0)


@pytest.mark.parametrize(("xid", "cluster"), [("300", "'42'"), ("999999999", "cluster")])
def test_the_floor_of_another_cluster_says_nothing_of_this_one(
    runner: SourceRunner, client: FlaskClient, xid: str, cluster: str
) -> None:
    """Nor that of a later life of this one."""
    with runner.database.transaction() as connection:
        write(connection, "a")
        changes.raise_floor(connection, xid)
        connection.execute(text(f"UPDATE mirror_floor SET cluster = {cluster}"))
    runner.database.transact(changes.raise_floor, "3")
    assert runner.sql("SELECT xid::text FROM mirror_floor") == ["3"]
    mirror = Mirror(client)
    mirror.sync()
    mirror.sync()
    assert (set(mirror.titles), mirror.resets) == ({"a"}, 0)


def test_a_mirror_that_begins_after_items_were_removed_need_not_begin_again(
    runner: SourceRunner, client: FlaskClient
) -> None:
    """Nor one that began after they were deleted, and has not come that far."""
    with runner.database.transaction() as connection:
        write(connection, *"abcdefgh", "gone")
    delete(runner, "gone")
    begun = Mirror(client)
    begun.step(3)
    remove(runner)
    mirror = Mirror(client)
    for each in (mirror, mirror, begun):
        each.sync()
        assert (sorted(each.titles), each.resets) == (list("abcdefgh"), 0)


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
    before = marks_of(runner)
    for _ in range(5):
        assert mirror.step()["behind_seconds"] > 0
    assert marks_of(runner) == before
    runner.database.transact(changes.renumber)
    mirror.sync()
    assert mirror.step()["behind_seconds"] == 0


def test_what_is_removed_while_it_lies_ahead_resets_nobody(runner: SourceRunner, client: FlaskClient) -> None:
    """Not even while a transaction is open that keeps a mirror from its first change."""
    with runner.database.transaction() as connection:
        write(connection, "gone")
        connection.execute(text("UPDATE unified_items SET change_xid = '999999999'"))
    runner.sql("UPDATE unified_items SET status = 'deleted', deleted_at = now() - interval '2 days'")
    mirror = Mirror(client)
    with overlapping(runner):
        remove(runner)
        mirror.sync()
        mirror.sync()
    mirror.sync()
    assert (set(mirror.titles), mirror.resets) == ({"early", "late"}, 0)


def test_an_answer_looks_at_few_pages_however_many_items_there_are(runner: SourceRunner, client: FlaskClient) -> None:
    mirror = Mirror(client)
    with runner.database.transaction() as still_open:
        still_open.execute(text("SELECT pg_current_xact_id()"))
        with runner.database.transaction() as connection:
            write(connection, *(str(n) for n in range(30_000)))
        mirror.step(50)
    runner.sql("ANALYZE unified_items")
    mirror.step(50)
    # The beginning, and further on, under a mark of when a transaction was open.
    assert marks_of(runner) == 1
    for cursor in ("", f"&cursor={mirror.cursor}"):
        assert pages_of(client, runner.database, f"/data/changes?limit=50{cursor}") < 400


@pytest.mark.parametrize("cursor", ["x", "AAAA", "W10", "WyIxIiwieCIsMSwxXQ"])
def test_what_is_no_cursor_of_ours(client: FlaskClient, cursor: str) -> None:
    assert client.get(f"/data/changes?cursor={cursor}").status_code == 422


def test_old_marks_are_removed(runner: SourceRunner, client: FlaskClient) -> None:
    mirror = Mirror(client)
    mirror.sync()
    runner.sql("UPDATE mirror_marks SET at = at - interval '32 days'")
    assert runner.database.transact(marks.purge_marks, timedelta(days=30), 100) >= 1
    mirror.sync()
    assert mirror.resets == 1
