"""Those who use the database while it is migrated: a writer on each table, and readers that stay for seconds."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg2

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.upgrade.contents import Writes

# A writer pauses so long after each commit, and a reader holds its transaction open so long: seconds.
PAUSE = 0.005
READER_STAYS = 3.0
# What wants a table that a reader has waits so long in the worst of cases; the driver gives up after it.
PATIENCE = "30s"


class Writer(threading.Thread):
    """Writes to one table, one commit after the other, until it is stopped."""

    def __init__(self, url: str, writes: Writes, stopped: threading.Event) -> None:
        super().__init__(name=writes.table, daemon=True)
        self.writes = writes
        self.committed = 0
        self.longest = 0.0
        self.errors: list[str] = []
        self._stopped = stopped
        self._connection = psycopg2.connect(url, options=f"-c lock_timeout={PATIENCE}")
        self._connection.autocommit = True
        self._cursor = self._connection.cursor()
        self._cursor.execute(writes.first)
        self.before = self.counted()

    def counted(self) -> int:
        """How many of its writes the database has."""
        self._cursor.execute(self.writes.count)
        (row,) = self._cursor.fetchall()
        return int(row[0])

    def run(self) -> None:
        """Write; what fails is kept and ends it."""
        while not self._stopped.wait(PAUSE):
            started = time.monotonic()
            try:
                self._cursor.execute(self.writes.write)
            except psycopg2.Error as error:
                self.errors.append(f"{self.writes.table}: {str(error).strip()}")
                return
            self.committed += 1
            self.longest = max(self.longest, time.monotonic() - started)

    @property
    def lost(self) -> int:
        """Committed writes that the database does not have."""
        return self.before + self.committed - self.counted()


class Reader(threading.Thread):
    """Reads in a transaction that stays open for a while, again and again: nobody may come between with a long lock."""

    def __init__(self, url: str, query: str, stopped: threading.Event, *, stays: float = READER_STAYS) -> None:
        super().__init__(daemon=True)
        self._url, self._query, self._stopped, self._stays = url, query, stopped, stays

    def run(self) -> None:
        """Read until stopped."""
        connection = psycopg2.connect(self._url)
        while not self._stopped.is_set():
            with connection, connection.cursor() as cursor:
                cursor.execute(self._query)
                cursor.fetchall()
                self._stopped.wait(self._stays)
            self._stopped.wait(0.5)
        connection.close()


class Watch(threading.Thread):
    """Looks at pg_locks every few milliseconds for what the migration holds, or waits for, that keeps others from writing."""

    def __init__(self, url: str, stopped: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(daemon=True)
        self._url, self._stopped, self._clock = url, stopped, clock
        self._since: dict[tuple[str, str, bool], float] = {}
        self.longest: dict[tuple[str, str, bool], float] = {}
        self.looks = 0

    def run(self) -> None:
        """Look until stopped."""
        connection = psycopg2.connect(self._url)
        connection.autocommit = True
        cursor = connection.cursor()
        while not self._stopped.wait(0.005):
            cursor.execute(_BLOCKING)
            self._note({(str(table), str(mode), bool(granted)) for table, mode, granted in cursor.fetchall()})
        connection.close()

    def _note(self, found: set[tuple[str, str, bool]]) -> None:
        now = self._clock()
        self.looks += 1
        self._since = {one: self._since.get(one, now) for one in found}
        for one, since in self._since.items():
            self.longest[one] = max(self.longest.get(one, 0.0), now - since)

    def blocked(self) -> float:
        """The longest time that others were kept from writing, by a lock or by who stood in line for it before them."""
        return max(self.longest.values(), default=0.0)


# Modes that conflict with ROW EXCLUSIVE, the lock of INSERT, UPDATE and DELETE.
_BLOCKING = """
    SELECT l.relation::regclass::text, l.mode, l.granted
    FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid = l.relation
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.application_name = 'kasparro-migrate' AND l.locktype = 'relation' AND n.nspname = 'public'
      AND c.relkind IN ('r', 'p')
      AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""
