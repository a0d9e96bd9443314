"""A rig for tests and benchmarks: real servers and real processes of the service, made to be broken."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alembic.command
import psycopg2
import psycopg2.extensions
import redis
import requests

from config import settings
from config.settings import PROJECT
from db.__main__ import alembic_config
from etl.runs.outcome import ENDED
from stack import account, ports
from stack.postgres import Postgres
from stack.valkey import Valkey
from testkit.tree import PRESENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testkit.tree import Tree

__all__ = ["Servers", "Service", "alembic_config", "isolate", "make_database", "running_servers", "wait_until"]

PYTHON = sys.executable


def isolate(state: Path) -> None:
    """See neither the developer's `.env` nor a stack that runs in this folder."""
    known = (PROJECT / "config" / "settings.py").read_text()
    for name in [name for name in os.environ if name.isupper() and f'"{name}"' in known]:
        del os.environ[name]
    os.environ |= {
        "STATE_DIR": str(state),
        "ENV_FILE": os.devnull,
        "ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
        "LOG_LEVEL": "WARNING",
    }
    settings.load.cache_clear()


@dataclass
class Servers:
    """The running servers; they can be stopped and started by a test that needs them gone."""

    folder: Path
    postgres: Postgres
    valkey: Valkey
    processes: dict[str, subprocess.Popen[bytes]]

    @classmethod
    def make(cls, folder: Path) -> Servers:
        """Set up both, on free ports; nothing is started."""
        folder.mkdir(mode=0o700, parents=True)
        postgres = Postgres(account.server_folder(folder), ports.free_port(), "test")
        valkey = Valkey(folder / "valkey", ports.free_port(), "test")
        postgres.initialise()
        valkey.initialise()
        return cls(folder, postgres, valkey, {})

    def start(self, name: str) -> None:
        """Start `postgres` or `valkey`, and wait until it answers."""
        self.launch(name)
        (self.postgres if name == "postgres" else self.valkey).await_ready(30)

    def keep(self, name: str) -> None:
        """Start one that has ended, as a supervisor would."""
        if self.processes[name].poll() is not None:
            self.launch(name)

    def launch(self, name: str) -> None:
        """Start `postgres` or `valkey`."""
        server = self.postgres if name == "postgres" else self.valkey
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                server.command, cwd="/", stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """End it at once; its data stays."""
        self.processes[name].kill()
        self.processes[name].wait(20)

    def crash(self, name: str, number: int) -> None:
        """End it by a signal, in the middle of everything, and wait until its children are gone too."""
        process = self.processes[name]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(number)
        process.wait(30)
        wait_until(lambda: not any(map(_runs, children)))

    def signal(self, name: str, number: int) -> None:
        """Send a signal, such as SIGSTOP."""
        self.processes[name].send_signal(number)

    def remove(self) -> None:
        """End both, and remove their files."""
        for name in list(self.processes):
            self.kill(name)
        shutil.rmtree(self.postgres.folder, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def running_servers(prefix: str, parent: str | None = None) -> Iterator[tuple[Servers, Path]]:
    """Servers with a migrated template database, and a folder to work in; both are gone at the end."""
    # Also when it is ended from outside, nothing of it stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name:
        folder = Path(name)
        isolate(folder / "state")
        servers = Servers.make(folder / "servers")
        try:
            servers.start("postgres")
            servers.start("valkey")
            os.environ |= {"DATABASE_URL": servers.postgres.url, "REDIS_URL": servers.valkey.url}
            alembic.command.upgrade(alembic_config(make_database(servers, "migrated")), "head")
            yield servers, folder
        finally:
            servers.remove()


def _runs(process_id: str) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def make_database(servers: Servers, name: str, *, template: str = "template1") -> str:
    """An empty database, or a copy of one; its address."""
    connection = psycopg2.connect(servers.postgres.url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    connection.close()
    return servers.postgres.url.rsplit("/", 1)[0] + f"/{name}"


class Service:
    """The service's processes, on free ports."""

    def __init__(self, servers: Servers, url: str, folder: Path, tree: Tree = PRESENT) -> None:
        """`tree` is whose code they run."""
        self.folder = folder
        self.tree = tree
        self.database_url = url
        self.port = ports.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._valkey = servers.valkey
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._connection: psycopg2.extensions.connection | None = None
        self.environment = {
            # Tests and benchmarks ask as fast as they can.
            "RATE_LIMIT": "0",
            **os.environ,
            "DATABASE_URL": url,
            "REDIS_URL": servers.valkey.url,
            "STATE_DIR": str(folder / "state"),
            "SOURCES_FILE": str(folder / "sources.yaml"),
            "CSV_ROOTS": str(folder),
            "PYTHONPATH": str(tree.path),
            # A process that is killed leaves its temporary folders behind.
            "TMPDIR": str(folder),
            "WEB_PORT": str(self.port),
            "LEASE_SECONDS": "3",
            "BATCH_SIZE": "500",
            "ENABLE_SCHEDULER": "false",
            "LOG_LEVEL": "INFO",
        }

    def declare(self, text: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "sources.yaml").write_text(text)
        return self.command(self.tree.python, "-m", "db", "sources")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, cwd=self.tree.path, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def start(self, name: str, *arguments: str, **environment: str) -> None:
        """Start a module of the service."""
        self.launch(name, "-m", *arguments, **environment)

    def launch(self, name: str, *arguments: str, **environment: str) -> None:
        """Start an interpreter with these arguments."""
        log = (self.folder / f"{name}.log").open("ab")
        self._processes[name] = subprocess.Popen(
            [self.tree.python, *arguments],
            cwd=self.tree.path,
            env={**self.environment, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def start_worker(self, name: str = "worker", **environment: str) -> None:
        self.start(
            name, *("celery", "-A", "worker", "worker", "--concurrency=2", f"--hostname={name}@test"), **environment
        )

    def start_web(self, *arguments: str) -> None:
        self.start("web", "gunicorn", "-c", "web/gunicorn_config.py", *(arguments or ("--workers=1",)), "web.wsgi:app")
        wait_until(lambda: self.get("/health/ready")["status"] == "ready")

    def pid(self, name: str) -> int:
        """The process that was started."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """The whole group at once, as a machine would die."""
        process = self._processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def stop(self, name: str) -> int:
        """Ask it to end, and wait; its exit code."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(60)

    def process_id(self, name: str) -> int:
        """The leader of a process's group."""
        return self._processes[name].pid

    def stop_all(self) -> None:
        for name in list(self._processes):
            self.kill(name)

    def get(self, path: str) -> dict[str, Any]:
        return dict(requests.get(self.url + path, timeout=10).json())

    def post(self, path: str, body: object, key: str | None = None) -> requests.Response:
        headers = {"X-API-Key": key} if key else None
        return requests.post(self.url + path, json=body, headers=headers, timeout=10)

    def run(self, source: str) -> str:
        response = self.post("/runs", {"source": source})
        assert response.status_code == 202, response.text
        return str(response.json()["runs"][0]["run_id"])

    def await_end(self, run_id: str, seconds: float = 90) -> dict[str, Any]:
        wait_until(lambda: self.get(f"/runs/{run_id}")["status"] in ENDED, seconds)
        return self.get(f"/runs/{run_id}")

    def sql(self, query: str) -> list[Any]:
        """The rows of a query, over a connection that is kept; after a restart of the server over a new one."""
        try:
            return self._rows(query)
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            if self._connection is not None and not self._connection.closed:
                raise
            return self._rows(query)

    def _rows(self, query: str) -> list[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg2.connect(self.database_url)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            rows = cursor.fetchall() if cursor.description else []
        return [row[0] if len(row) == 1 else row for row in rows]

    def broker(self) -> redis.Redis:
        """A client of the message broker itself."""
        return redis.Redis.from_url(self._valkey.url)

    def flush_broker(self) -> None:
        self.broker().flushall()

    def has(self, name: str) -> bool:
        """Whether a process was started and not stopped."""
        return name in self._processes

    def is_running(self, name: str) -> bool:
        """Whether a process has not ended by itself."""
        return self._processes[name].poll() is None

    def write_csv(self, count: int, *, price: int = 1) -> None:
        lines = "".join(f"{n},thing {n},{price}\n" for n in range(count))
        (self.folder / "shop.csv").write_text("id,name,price\n" + lines)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


def wait_until(condition: Callable[[], bool], seconds: float = 30, *, every: float = 0.1) -> None:
    """Poll; connection errors on the way count as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (requests.RequestException, KeyError, psycopg2.Error):
            pass
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every)
