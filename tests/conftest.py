"""Servers of the tests' own: an embedded PostgreSQL and Redis-compatible server on free ports, gone at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Before anything reads settings: neither the developer's .env nor a running stack may be seen by a test.
STATE = Path(tempfile.mkdtemp(prefix="kasparro-test-"))
for _name in [name for name in os.environ if name in Path("settings.py").read_text() and name.isupper()]:
    if _name not in {"PATH", "HOME", "ENV_FILE"}:
        del os.environ[_name]
os.environ |= {
    "STATE_DIR": str(STATE),
    "ENV_FILE": os.devnull,
    "ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
    "LOG_LEVEL": "WARNING",
}

import alembic.command  # noqa: E402
import psycopg2  # noqa: E402
from alembic.config import Config  # noqa: E402
from sqlalchemy import text  # noqa: E402

import settings  # noqa: E402
from db.session import Database  # noqa: E402
from stack import account, ports  # noqa: E402
from stack.postgres import Postgres  # noqa: E402
from stack.valkey import Valkey  # noqa: E402
from tests.outside import Outside  # noqa: E402
from tests.pump import Pump  # noqa: E402

TABLES = (
    "sources, etl_runs, etl_batches, etl_run_events, etl_checkpoints, raw_data, staged_items, unified_items, "
    "rejected_records, etl_workers"
)


@dataclass
class Servers:
    """The running servers; they can be stopped and started by a test that needs them gone."""

    postgres: Postgres
    valkey: Valkey
    processes: dict[str, subprocess.Popen[bytes]]

    def start(self, name: str) -> None:
        server = self.postgres if name == "postgres" else self.valkey
        demote = account.demote if name == "postgres" and account.is_root() else None
        with (STATE / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                server.command, cwd="/", stdout=log, stderr=log, preexec_fn=demote, start_new_session=True
            )
        server.await_ready(30)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait(20)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    folder = account.server_folder(STATE)
    postgres = Postgres(folder, ports.free_port(), "test")
    valkey = Valkey(STATE / "valkey", ports.free_port(), "test")
    postgres.initialise()
    valkey.initialise()
    started = Servers(postgres, valkey, {})
    try:
        started.start("postgres")
        started.start("valkey")
        os.environ |= {"DATABASE_URL": postgres.url, "REDIS_URL": valkey.url}
        settings.load.cache_clear()
        yield started
    finally:
        for name in list(started.processes):
            started.kill(name)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(STATE, ignore_errors=True)


def make_database(servers: Servers, name: str, *, template: str = "template1") -> str:
    """An empty database, or a copy of one; its address."""
    connection = psycopg2.connect(servers.postgres.url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    connection.close()
    return servers.postgres.url.rsplit("/", 1)[0] + f"/{name}"


def alembic_config(url: str) -> Config:
    config = Config(settings.PROJECT / "alembic.ini")
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


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
def outside() -> Iterator[Outside]:
    """A server that plays the outside world."""
    with Outside() as server:
        yield server


@pytest.fixture
def pump(database: Database, servers: Servers, tmp_path: Path) -> Pump:
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
    return Pump(database, current, tmp_path)
