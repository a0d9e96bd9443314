"""Servers of the tests' own: an embedded PostgreSQL and Redis-compatible server on free ports, gone at the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import alembic.command
import pytest
from sqlalchemy import text

from config import settings
from db.session import Database
from testkit.fake_server import FakeServer
from testkit.runner import SourceRunner
from testkit.service import Servers, alembic_config, isolate, make_database

# Made when the first test needs servers.
STATE = Path(tempfile.gettempdir()) / f"kasparro-test-{os.getpid()}"
isolate(STATE)

TABLES = (
    "sources, source_versions, etl_plans, etl_runs, etl_batches, etl_run_events, etl_checkpoints, raw_data, staged_items, seen_ids, unified_items, "
    "erasures, etl_requests, "
    "rejected_records, source_fields, etl_workers, etl_totals, etl_alarms, etl_looks, "
    "alert_sightings, alert_members, alert_incidents, alert_deliveries, alert_outbox, alert_mutes, "
    "exports, mirror_marks, mirror_floor, etl_sizes, etl_hours, etl_counters, source_removals, sessions, api_keys, audit_log, idempotency_keys"
)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    started = Servers.make(STATE)
    try:
        started.start("postgres")
        started.start("valkey")
        os.environ |= {"DATABASE_URL": started.postgres.url, "REDIS_URL": started.valkey.url}
        yield started
    finally:
        started.remove()


@pytest.fixture(scope="session")
def migrated(servers: Servers) -> str:
    """The address of a migrated database; the name is free to be used as a template."""
    url = make_database(servers, "migrated")
    alembic.command.upgrade(alembic_config(url), "head")
    return url


@pytest.fixture(scope="session")
def _database(servers: Servers, migrated: str) -> Iterator[Database]:
    url = make_database(servers, "integration", template="migrated")
    database = Database(url, name="tests", pool_size=10, patience=10)
    yield database
    database.close()


@pytest.fixture
def database(_database: Database) -> Database:
    """A migrated, empty database."""
    with _database.transaction() as connection:
        connection.execute(text(f"TRUNCATE {TABLES} RESTART IDENTITY CASCADE"))
    return _database


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    """A server that plays the outside world."""
    with FakeServer() as server:
        yield server


@pytest.fixture
def runner(database: Database, servers: Servers, tmp_path: Path) -> SourceRunner:
    """Runs sources in this process, message by message."""
    current = settings.read(
        {
            **os.environ,
            "DATABASE_URL": database.engine.url.render_as_string(hide_password=False).replace("+psycopg2", ""),
            "REDIS_URL": servers.valkey.url,
            "CSV_ROOTS": str(tmp_path),
            "SOURCES_FILE": str(tmp_path / "sources.yaml"),
            "STATE_DIR": str(tmp_path / "state"),
            "MAX_RETRIES": "1",
        }
    )
    return SourceRunner(database, current, tmp_path)
