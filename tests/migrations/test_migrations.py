"""Models and migrations say the same, upwards and downwards."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.exc import IntegrityError

from db.models.base import TYPES, Base
from db.session import Database
from etl.errors import StorageConflictError
from testkit.service import Servers, alembic_config, make_database

ischema_names.update(TYPES)


def tables(url: str) -> list[str]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as connection:
        query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S', 'v')"
        found = sorted(connection.execute(text(query)).scalars())
    engine.dispose()
    return found


def test_there_is_one_head() -> None:
    assert len(ScriptDirectory.from_config(alembic_config("x")).get_heads()) == 1


def test_up_from_empty_down_to_empty_and_up_again(servers: Servers) -> None:
    url = make_database(servers, "updown")
    alembic.command.upgrade(alembic_config(url), "head")
    there = tables(url)
    assert {"unified_items", "raw_data", "raw_data_default", "etl_runs"} <= set(there)
    alembic.command.downgrade(alembic_config(url), "base")
    assert tables(url) == ["alembic_version"]
    alembic.command.upgrade(alembic_config(url), "head")
    assert tables(url) == there


def test_models_and_migrations_agree(servers: Servers, migrated: str) -> None:
    url = make_database(servers, "drift", template="migrated")
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_name": lambda name, kind, _: not (kind == "table" and name.startswith("raw_data_")),
                # Of an expression Alembic does not read the collation; the next test compares these word by word.
                "include_object": lambda _, name, kind, *__: not (kind == "index" and name.endswith("by_title")),
            },
        )
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_models_and_migrations_agree_on_defaults_and_checks(servers: Servers, migrated: str) -> None:
    """What Alembic does not compare: the same schema made from the models has the same columns and constraints."""
    query = text("""
        SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable,
                      coalesce(column_default, '') || coalesce(generation_expression, '') || is_identity)
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE 'raw_data_%'
          AND table_name <> 'alembic_version'
        UNION ALL
        SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text NOT LIKE 'raw_data_%'
          AND conrelid::regclass::text <> 'alembic_version' AND contype <> 'n'
        UNION ALL
        SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename NOT LIKE 'raw_data_%'
          AND tablename <> 'alembic_version'
        ORDER BY 1
    """)
    found = []
    for name, template in (("from_models", "template1"), ("from_migrations", "migrated")):
        url = make_database(servers, name, template=template)
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
        with engine.begin() as connection:
            if name == "from_models":
                connection.execute(text("CREATE EXTENSION btree_gin"))
                connection.execute(text("CREATE SEQUENCE raw_data_id_seq"))
                Base.metadata.create_all(connection)
            found.append(list(connection.execute(query).scalars()))
        engine.dispose()
    assert found[0] == found[1]


def test_two_migrations_at_once_do_not_disturb_each_other(servers: Servers) -> None:
    url = make_database(servers, "together")
    # Alembic's context is one per process.
    script = f"import alembic.command; from testkit.service import alembic_config; alembic.command.upgrade(alembic_config({url!r}), 'head')"
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]


def test_a_migration_does_not_wait_for_a_lock_for_ever(servers: Servers) -> None:
    url = make_database(servers, "locked", template="migrated")
    name = {"application_name": "a report"}
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"), connect_args=name)
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE unified_items IN ACCESS SHARE MODE"))
        started = time.monotonic()
        impatient = alembic_config(url)
        impatient.attributes["patience"] = 3.0
        with pytest.raises(StorageConflictError, match=r"in use, by a reader .*: process \d+ \(a report, for \d+ s\)"):
            alembic.command.downgrade(impatient, "base")
        assert time.monotonic() - started < 30
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO etl_runs (run_id, source_name, trigger, status, stage) VALUES (gen_random_uuid(), 'a', 'api', 'done', 'done')",
        "INSERT INTO etl_runs (run_id, source_name, trigger, status, stage) VALUES (gen_random_uuid(), 'a', 'api', 'queued', 'idle')",
        "INSERT INTO etl_runs (run_id, source_name, trigger, status, stage) VALUES (gen_random_uuid(), 'a', 'me', 'queued', 'queued')",
    ],
)
def test_a_state_that_there_is_not_is_refused(database: Database, statement: str) -> None:
    with pytest.raises(IntegrityError, match="ck_etl_runs_"), database.engine.begin() as connection:
        connection.execute(text(statement))


def test_a_busy_table_makes_a_check_wait_but_nobody_behind_it(servers: Servers) -> None:
    url = make_database(servers, "busy", template="migrated")
    alembic.command.downgrade(alembic_config(url), "0006")
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    with ThreadPoolExecutor(1) as pool, engine.connect() as reader, engine.connect() as writer:
        reader.execute(text("LOCK TABLE etl_runs IN ACCESS SHARE MODE"))
        migrating = pool.submit(alembic.command.upgrade, alembic_config(url), "0007")
        longest, until = 0.0, time.monotonic() + 3
        while time.monotonic() < until:
            started = time.monotonic()
            writer.execute(text("UPDATE etl_runs SET pages = pages"))
            writer.commit()
            longest = max(longest, time.monotonic() - started)
            time.sleep(0.02)
        assert not migrating.done()
        reader.rollback()
        migrating.result(30)
    # Without the short waits it would have stood behind the migration until that gave up: five seconds.
    assert longest < 3, longest
    engine.dispose()
