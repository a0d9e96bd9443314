"""Connections and transactions.

One `Database` per process. It is made after a fork, never inherited by one. `transaction` is one unit of work;
`transact` repeats a unit of work after deadlocks and lost connections, so the work must check by itself whether it was
done: the outcome of a commit whose answer was lost is unknown.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import psycopg2
import psycopg2.extensions
from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError, TimeoutError as PoolTimeoutError

from db.errors import translate
from etl.errors import StorageError, StorageUnavailableError
from etl.runs.backoff import wait_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from sqlalchemy import Connection, Engine

P = ParamSpec("P")
T = TypeVar("T")
_JSON = psycopg2.extensions.new_type((114,), "JSON", lambda text, _: text)

STATEMENT_SECONDS = 30
LOCK_SECONDS = 5


class Database:
    """An engine, and the rules for using it."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        pool_size: int = 2,
        patience: float = 30.0,
        statement_limit: timedelta | None = None,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        """`url` is libpq's; `name` shows in pg_stat_activity; `patience` is how many seconds `transact` keeps trying.

        No lock is waited for longer than `lock_seconds`.

        A statement that takes longer than `statement_limit` raises TooSlowError and is not tried again; without one,
        it counts as a conflict.
        """
        self._timed = statement_limit is not None
        # With patience a dead connection costs a second try. Without, each one is tested before its use.
        make = partial(
            engine,
            url,
            name=name,
            pool_size=pool_size,
            ping=patience == 0,
            limit=statement_limit,
            lock_seconds=lock_seconds,
        )
        self.engine = make()
        # A second pool for `read`, so that no connection changes its mode back and forth. Both connect on first use.
        self._reading = make(isolation="AUTOCOMMIT")
        self._patience = patience

    @property
    def in_use(self) -> int:
        """Connections that are at work."""
        return sum(one.pool.checkedout() for one in (self.engine, self._reading))  # type: ignore[attr-defined]

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction: committed at the end, rolled back on an error.

        Raises:
            StorageUnavailableError, StorageConflictError: PostgreSQL was lost, or rolled us back.
            TooSlowError: a statement took longer than `statement_limit`.
        """
        with _translated(timed=self._timed), self.engine.begin() as connection:
            yield connection

    def transact(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a unit of work, again after a deadlock or a lost connection until patience ends."""

        def attempt() -> T:
            with self.transaction() as connection:
                return work(connection, *args, **kwargs)

        return self._patiently(attempt)

    def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do work that only reads. Each statement has a snapshot of its own: no BEGIN, no COMMIT."""

        def attempt() -> T:
            with _translated(timed=self._timed), self._reading.connect() as connection:
                return work(connection, *args, **kwargs)

        return self._patiently(attempt)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._patience
        tries = 0
        while True:
            try:
                return attempt()
            except StorageError:
                tries += 1
                wait = wait_before(tries, random.random()) / 4  # noqa: S311 -- spread, not secrecy
                if time.monotonic() + wait > deadline:
                    raise
                time.sleep(wait)

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()
        self._reading.dispose()


@contextmanager
def _translated(*, timed: bool) -> Iterator[None]:
    """Our errors for the driver's."""
    try:
        yield
    except PoolTimeoutError as error:
        raise StorageUnavailableError("no database connection became free in time") from error
    except (DBAPIError, psycopg2.Error) as error:
        translated = translate(error, timed=timed)
        if translated is None:
            raise
        raise translated from error


def engine(
    url: str,
    *,
    name: str,
    pool_size: int,
    ping: bool = True,
    isolation: str | None = None,
    limit: timedelta | None = None,
    lock_seconds: float = LOCK_SECONDS,
) -> Engine:
    """An engine whose sessions cannot hang: every wait on the server or the wire has a limit, a statement its own."""
    made = create_engine(
        url.replace("postgresql://", "postgresql+psycopg2://", 1),
        pool_size=pool_size,
        max_overflow=2,
        pool_timeout=5,
        # The connection used last is used next: its backend is warm, and spare ones stay idle.
        pool_use_lifo=True,
        pool_pre_ping=ping,
        # An error tells what failed, not with which records or keys.
        hide_parameters=True,
        **({} if isolation is None else {"isolation_level": isolation}),
        connect_args={
            "connect_timeout": 4,
            "application_name": name[:60],
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
            "options": _server_options(limit, lock_seconds),
        },
    )
    event.listen(made, "connect", _keep_json)
    return made


def _server_options(limit: timedelta | None, lock_seconds: float) -> str:
    seconds = STATEMENT_SECONDS if limit is None else limit.total_seconds()
    # The wait for a lock has the shorter limit, so that the error says that it was a lock.
    waiting = min(lock_seconds, 0.8 * seconds)
    # The web answers many at once: one slow query must not occupy every core with parallel workers.
    alone = "" if limit is None else " -c max_parallel_workers_per_gather=0"
    return (
        f"-c statement_timeout={seconds * 1e3:.0f} -c lock_timeout={waiting * 1e3:.0f}"
        f" -c idle_in_transaction_session_timeout=15s -c timezone=UTC -c synchronous_commit=on{alone}"
    )


def _keep_json(connection: psycopg2.extensions.connection, _: object) -> None:
    """JSON that PostgreSQL makes for an answer stays text. What is stored is jsonb, and is taken apart."""
    psycopg2.extensions.register_type(_JSON, connection)
