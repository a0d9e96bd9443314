"""Runs the migrations: one at a time, with limits on locks and statements."""

from __future__ import annotations

import time

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.exc import OperationalError

from config.settings import load
from db.models import Base
from db.models.base import TYPES
from db.patience import LOCK_WAIT, PATIENCE, patiently
from etl.errors import StorageConflictError

# Any constant will do, as long as every migrating process uses the same.
MIGRATION_LOCK = 7236150418
# So long another process that migrates is waited for: seconds.
TURN_PATIENCE = 120.0
BUSY = "a table that is to be changed is in use, by a reader or a writer who does not end"


ischema_names.update(TYPES)


def include_name(name: str | None, type_: str, _: object) -> bool:
    """Leave out the monthly partitions of raw_data: they are data, not schema."""
    return not (type_ == "table" and name is not None and name.startswith("raw_data_"))


def run() -> None:
    url = context.config.get_main_option("sqlalchemy.url") or load().database_url
    engine = create_engine(
        url.replace("postgresql://", "postgresql+psycopg2://", 1),
        poolclass=pool.NullPool,
        connect_args={
            "connect_timeout": 5,
            "application_name": "kasparro-migrate",
            "options": f"-c lock_timeout={LOCK_WAIT} -c statement_timeout=300s",
        },
    )
    # The lock is held by a transaction of its own: each migration is one or several others.
    with engine.begin() as turn, engine.connect() as connection:
        _await_turn(turn)
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_name=include_name,
            compare_server_default=False,
            transaction_per_migration=True,
        )
        patiently(
            lambda: _migrate(connection),
            lambda: f"{BUSY}: {_holders(connection)}",
            context.config.attributes.get("patience", PATIENCE),
        )


def _await_turn(turn: Connection) -> None:
    """Wait for another process that migrates. By asking: a statement that waits keeps indexes from being made."""
    until = time.monotonic() + TURN_PATIENCE
    while not turn.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK}).scalar_one():
        if time.monotonic() > until:
            raise StorageConflictError("another process is migrating this database, and does not end")
        time.sleep(0.2)


def _migrate(connection: Connection) -> None:
    try:
        context.run_migrations()
    except OperationalError:
        connection.rollback()
        raise


def _holders(connection: Connection) -> str:
    """Who keeps a table from being changed: those in a transaction, the longest first."""
    rows = connection.execute(
        text("""
        SELECT pid, application_name, usename,
            coalesce(extract(epoch FROM clock_timestamp() - xact_start)::int::text, '?') AS seconds
        FROM pg_stat_activity a
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          -- of other roles a transaction may not be seen
          AND (xact_start IS NOT NULL OR state IS NULL)
          AND EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.granted)
          AND application_name <> 'kasparro-migrate'
        ORDER BY xact_start LIMIT 3
    """)
    )
    found = [f"process {row.pid} ({row.application_name or row.usename}, for {row.seconds} s)" for row in rows]
    return ", ".join(found) or "nobody any more; try again"


run()
