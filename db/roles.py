"""The roles that the service's processes log in as: who owns the tables, and who serves them.

Neither is a superuser. The owner makes and changes the tables; the web reads all, and writes what a run that is asked
for or cancelled needs, and no record. They are named by `DATABASE_URL` and `WEB_DATABASE_URL`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql
from sqlalchemy import make_url

from db.models.runs import RunRow
from db.patience import LOCK_WAIT, patiently
from db.statement import text
from etl.errors import StorageUnavailableError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as PgConnection  # noqa: N812 -- SQLAlchemy has a Connection too
    from sqlalchemy import Connection

ROLES_LOCK = 7236150425
BUSY = "a table that is to change hands is in use, and stays so"

# What the web writes: runs that it queues, cancels and notes, and the pauses that hosts asked for.
_WEB_WRITES = (
    "INSERT, UPDATE ON etl_runs",
    "INSERT ON etl_run_events, etl_plans, erasures, audit_log, alert_outbox, alert_deliveries",
    "INSERT, UPDATE ON api_keys, idempotency_keys, sessions, exports, alert_mutes",
    "UPDATE ON etl_batches, etl_checkpoints",
    "UPDATE (state, reason) ON rejected_records",
    "INSERT, UPDATE, DELETE ON sources",
    "INSERT, UPDATE ON source_removals",
    "INSERT ON source_versions, mirror_marks",
    "DELETE ON source_fields, mirror_marks, mirror_floor",
)


@dataclass(frozen=True)
class Role:
    """A role that logs in, by a password or by other means."""

    name: str
    password: str | None

    @classmethod
    def of(cls, url: str) -> Role | None:
        """The one that an address names."""
        parsed = make_url(url) if url else None
        if parsed is None or not parsed.username:
            return None
        return cls(parsed.username, None if parsed.password is None else str(parsed.password))


def make_roles(admin_url: str, owner: Role, web: Role | None) -> None:
    """Make both, give them their passwords, and let the owner have what is in the database already.

    Whoever works with the tables meanwhile may go on.

    Raises:
        StorageUnavailableError: it cannot be reached.
        StorageConflictError: a table stays in use.
    """
    try:
        connection = psycopg2.connect(admin_url, connect_timeout=5, application_name="kasparro-roles")
    except psycopg2.OperationalError as error:
        raise StorageUnavailableError(f"the database cannot be reached: {str(error).strip()}") from error
    connection.autocommit = True
    try:
        _do(connection, f"SELECT pg_advisory_lock({ROLES_LOCK})")
        _do(connection, f"SET lock_timeout = '{LOCK_WAIT}'")
        for role in filter(None, (owner, web)):
            _make(connection, role)
        _hand_over(connection, owner.name)
    finally:
        connection.close()


def grant_web(connection: Connection, web_url: str) -> None:
    """Let the web's role do what the web does, if it is one of its own."""
    role = Role.of(web_url)
    if role is None or role.name == connection.execute(text("SELECT current_user")).scalar_one():
        return
    # Two who grant the same at once would disturb each other.
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ROLES_LOCK})
    name = connection.dialect.identifier_preparer.quote(role.name)
    reading = f"SELECT ON alembic_version, {', '.join(sorted(RunRow.metadata.tables))}"
    (database,) = connection.execute(text("SELECT current_database()")).one()
    # What a preview checks is put into temporary tables.
    temporary = f"TEMPORARY ON DATABASE {connection.dialect.identifier_preparer.quote(database)}"
    for what in ("USAGE ON SCHEMA public", temporary, reading, *_WEB_WRITES):
        connection.exec_driver_sql(f"GRANT {what} TO {name}".replace("%", "%%"))


def lacking(connection: Connection) -> list[str]:
    """What is missing between the role that is logged in and the records, for who serves them to others."""
    row = connection.execute(_RIGHTS).one()
    found = []
    if row.is_superuser:
        found.append(f"the role {row.name} is a superuser of the database: name one in DATABASE_URL that is not")
    if row.may_change:
        found.append(f"the role {row.name} may change records: name one in WEB_DATABASE_URL that only reads them")
    return found


_RIGHTS = text("""
    SELECT rolname AS name, rolsuper AS is_superuser,
        coalesce(has_table_privilege(to_regclass('unified_items')::oid, 'DELETE'), false) AS may_change
    FROM pg_roles WHERE rolname = current_user
""")


def _make(connection: PgConnection, role: Role) -> None:
    known = _rows(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = %s", role.name)
    verb = "ALTER" if known else "CREATE"
    options: sql.Composable = sql.SQL("LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION")
    if role.password is not None:
        options += sql.SQL(" PASSWORD {}").format(sql.Literal(role.password))
    _do(connection, sql.SQL(verb + " ROLE {} ").format(sql.Identifier(role.name)) + options)


# What is ours: the tables of the models with the partitions of one, and two things beside them. Sequences of columns
# and indexes go with their tables.
_OTHERS_OWN = """
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'S')
      AND (c.relname = ANY (%s) OR c.relname LIKE 'raw\\_data\\_%%' AND c.relkind <> 'S')
      AND c.relowner <> CAST(%s AS regrole)
"""
_BESIDE = ("alembic_version", "raw_data_id_seq")


def _hand_over(connection: PgConnection, owner: str) -> None:
    name = sql.Identifier(owner)
    (database,) = _rows(connection, "SELECT current_database()")[0]
    _do(connection, sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database), name))
    _do(connection, sql.SQL("ALTER SCHEMA public OWNER TO {}").format(name))
    # To say who holds a table that is to be changed.
    _do(connection, sql.SQL("GRANT pg_read_all_stats TO {}").format(name))
    ours = [*RunRow.metadata.tables, *_BESIDE]
    for kind, relation in _rows(connection, _OTHERS_OWN, ours, sql.Identifier(owner).as_string(connection)):
        change = sql.SQL("ALTER {} {} OWNER TO {}").format(sql.SQL(kind), sql.Identifier(relation), name)
        patiently(partial(_do, connection, change), lambda: BUSY)


def _do(connection: PgConnection, statement: str | sql.Composable) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _rows(connection: PgConnection, query: str, *values: str | list[str]) -> list[tuple[str, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return list(cursor.fetchall())
