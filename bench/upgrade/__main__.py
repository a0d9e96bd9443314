"""`python -m bench.upgrade [--items 1000000] [--from 0011] [--longest-lock 2] [--control]`.

A database at an older revision, by default the one before the newest, is filled, with runs at work, and migrated while there is a writer on
each table and a reader that stays. It fails when a row has changed, a committed write is missing, a writer was refused,
or a lock kept others from writing for too long, who waits for it included: they stand in line behind him. `--control` takes such a lock instead of migrating.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING

import alembic.command
import psycopg2
from alembic.script import ScriptDirectory

from bench.upgrade.contents import WRITES, filling
from bench.upgrade.traffic import Reader, Watch, Writer
from db.__main__ import alembic_config
from testkit.service import make_database, running_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

# Before and after the migration the traffic goes on for so long: seconds.
AROUND = 2.0
_CONTROL = """
    ALTER TABLE unified_items ADD CONSTRAINT control CHECK (status <> 'control');
    SELECT pg_sleep(3)
"""
_NOT_VALID = "SELECT conname FROM pg_constraint WHERE NOT convalidated"


def main() -> int:
    """Run it; 0 when nothing was lost and nobody was kept waiting."""
    arguments = _parser().parse_args()
    with running_servers("kasparro-upgrade-") as (servers, _):
        url = make_database(servers, "upgrade")
        revision = arguments.since or before_newest()
        alembic.command.upgrade(alembic_config(url), revision)
        database = Contents(url)
        database.fill(arguments.items)
        print(f"from {revision}: {arguments.items} items, and as many raw records")
        before = database.sums()
        with traffic(url) as (writers, watch):
            started = time.monotonic()
            control(url) if arguments.control else alembic.command.upgrade(alembic_config(url), "head")
            took = time.monotonic() - started
        return report(writers, watch, database.changed(before), took, arguments.longest_lock)


def before_newest() -> str:
    """The revision before the newest one."""
    scripts = ScriptDirectory.from_config(alembic_config())
    newest = scripts.get_revision("head")
    assert newest
    assert isinstance(newest.down_revision, str)
    return newest.down_revision


class Contents:
    """The rows that no writer touches, table by table."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True
        self._cursor = self._connection.cursor()

    def fill(self, items: int) -> None:
        """Put in what there is before."""
        for statement in filling(items):
            self._cursor.execute(statement)
        self._cursor.execute("VACUUM (ANALYZE)")

    def sums(self) -> dict[str, tuple[str, object]]:
        """Per table the query for the number and the sum of its rows, in the columns that it has now; and its answer."""
        return {writes.table: self._sum(writes.table, writes.others) for writes in WRITES}

    def _sum(self, table: str, others: str) -> tuple[str, object]:
        self._cursor.execute(
            "SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) "
            "FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s",
            (table,),
        )
        (columns,) = self._cursor.fetchall()[0]
        query = f"SELECT count(*), sum(hashtextextended(ROW({columns})::text, 0)) FROM {table} WHERE {others}"
        return query, self._answer(query)

    def _answer(self, query: str) -> object:
        self._cursor.execute(query)
        return self._cursor.fetchall()

    def changed(self, before: dict[str, tuple[str, object]]) -> list[str]:
        """The tables whose rows are not what they were, and the checks that nobody has validated."""
        complaints = [
            f"{table} has changed" for table, (query, answer) in before.items() if self._answer(query) != answer
        ]
        self._cursor.execute(_NOT_VALID)
        return complaints + [f"{name} is not validated" for (name,) in self._cursor.fetchall()]


@contextlib.contextmanager
def traffic(url: str) -> Iterator[tuple[list[Writer], Watch]]:
    """Those who write, read and watch, for a while before and after what is done meanwhile."""
    stopped = threading.Event()
    writers, watch = [Writer(url, writes, stopped) for writes in WRITES], Watch(url, stopped)
    readers = [
        Reader(url, "SELECT status, stage FROM etl_runs JOIN etl_batches USING (run_id) LIMIT 20", stopped),
        Reader(url, "SELECT * FROM unified_items ORDER BY created_at DESC, id DESC LIMIT 20", stopped),
        Reader(url, "SELECT * FROM rejected_records LIMIT 20", stopped, stays=1.0),
    ]
    threads = [*writers, *readers, watch]
    for thread in threads:
        thread.start()
    time.sleep(AROUND)
    try:
        yield writers, watch
        time.sleep(AROUND)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def control(url: str) -> None:
    """A migration as it must not be."""
    with psycopg2.connect(url, application_name="kasparro-migrate") as connection, connection.cursor() as cursor:
        cursor.execute(_CONTROL)


def report(writers: list[Writer], watch: Watch, complaints: list[str], took: float, longest: float) -> int:
    """Say what was seen, and whether that is good."""
    print(f"migrated in {took:.1f} s; pg_locks was looked at {watch.looks} times")
    for (table, mode, granted), seconds in sorted(watch.longest.items()):
        print(f"  {table:20} {mode:24} {'held' if granted else 'waited for'} at most {seconds * 1000:.0f} ms")
    for writer in writers:
        print(f"  {writer.writes.table:20} {writer.committed} writes, the longest took {writer.longest * 1000:.0f} ms")
        complaints = [*complaints, *writer.errors]
        if lost := writer.lost:
            complaints.append(f"{writer.writes.table}: {lost} committed writes are missing")
    if watch.blocked() > longest:
        complaints.append(f"a lock kept others from writing for {watch.blocked():.1f} s")
    for complaint in complaints:
        print(f"error: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.upgrade", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--from", dest="since", metavar="REVISION", help="by default the one before the newest")
    parser.add_argument("--longest-lock", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--control", action="store_true", help="take a long lock, and fail")
    return parser


if __name__ == "__main__":
    sys.exit(main())
