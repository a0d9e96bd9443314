"""Runs the migrations: one at a time, with limits on locks and statements."""

from __future__ import annotations

import time

from alembic import context
from psycopg2.errorcodes import LOCK_NOT_AVAILABLE
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.exc import OperationalError

from config.settings import load
from db.models import Base, Xid8

# Any constant will do, as long as every migrating process uses the same.
MIGRATION_LOCK = 7236150418
# Who waits for a table makes all others wait behind it: the wait is short, and a migration that was undone by it is
# tried again for so many seconds.
LOCK_WAIT = "500ms"
PATIENCE = 25.0


# SQLAlchemy's reflection does not know the type.
ischema_names["xid8"] = Xid8


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
        # A migration that another process is running may take longer than a table lock should.
        turn.execute(text("SET LOCAL lock_timeout = '120s'"))
        turn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_name=include_name,
            compare_server_default=False,
            transaction_per_migration=True,
        )
        _patiently(connection)


def _patiently(connection: Connection) -> None:
    until = time.monotonic() + context.config.attributes.get("patience", PATIENCE)
    while True:
        try:
            context.run_migrations()
        except OperationalError as error:
            connection.rollback()
            if getattr(error.orig, "pgcode", None) != LOCK_NOT_AVAILABLE or time.monotonic() > until:
                raise
            time.sleep(0.5)
        else:
            return


run()
