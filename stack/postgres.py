"""The embedded PostgreSQL: a cluster in a folder, and the command that serves it on a loopback port."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from psycopg2 import sql

from stack import account

# The superuser of the cluster. The service logs in as one of the others.
USER = "kasparro"
OWNER = "kasparro_owner"
WEB = "kasparro_web"
DATABASE = "kasparro"

# Small enough for a laptop, large enough not to be the first thing to tune.
CONFIG = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
}


class PostgresError(Exception):
    """The embedded server could not be set up."""


@dataclass(frozen=True)
class Postgres:
    """One embedded cluster. `folder` is the server's own, see `account`."""

    folder: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """The address of the service's database, for the superuser."""
        return self.url_of(USER, self.password)

    def url_of(self, role: str, password: str) -> str:
        """The address for another role."""
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def command(self) -> list[str]:
        """Runs the server in the foreground, as the account that it may run as."""
        return [*account.as_server(), *self._server]

    @property
    def _server(self) -> list[str]:
        options = {**CONFIG, "port": str(self.port)}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(account.binaries() / "bin" / "postgres"), "-D", str(self.folder / "postgres"), *settings]

    def initialise(self, *, fresh_password: bool = False) -> None:
        """Make the cluster if there is none; a half-made one is made anew. One that exists takes our password.

        `fresh_password` says that it was drawn just now; a cluster that never noted its own has another one, then.
        """
        data = self.folder / "postgres"
        if (data / "PG_VERSION").exists():
            # root's clusters outlive their checkout; what lies at its place next has another password.
            if self._has_another_password(fresh=fresh_password):
                self._change_password(data)
                self._noted.write_text(self._digest())
            return
        account.prepare(self.folder)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            password_file = Path(scratch) / "password"
            password_file.write_text(self.password)
            self._hand_over(Path(scratch), password_file)
            self._initdb(Path(scratch) / "new", password_file)
            self._noted.write_text(self._digest())
            (Path(scratch) / "new").rename(data)

    @property
    def _noted(self) -> Path:
        return self.folder / "password.sha256"

    def _digest(self) -> str:
        return hashlib.sha256(self.password.encode()).hexdigest()

    def _has_another_password(self, *, fresh: bool) -> bool:
        return self._noted.read_text() != self._digest() if self._noted.exists() else fresh

    def _change_password(self, data: Path) -> None:
        """By the server itself, alone on its data: nobody can log in who does not know the old one."""
        command = [str(account.binaries() / "bin" / "postgres"), "--single", "-D", str(data), "postgres"]
        done = self._run_alone(command, f"ALTER ROLE {USER} PASSWORD '{self.password}'\n")
        if done.returncode or "ERROR" in done.stderr:
            raise PostgresError(f"the data of an earlier stack in {data} cannot be used: {done.stderr.strip()}")

    def await_ready(self, seconds: float) -> None:
        """Wait until the server answers, then make sure that the database exists."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._create_database()
            except psycopg2.OperationalError as error:
                if time.monotonic() > deadline:
                    raise PostgresError(f"PostgreSQL does not answer on port {self.port}: {error}") from error
                time.sleep(0.1)
            else:
                return

    def _initdb(self, data: Path, password_file: Path) -> None:
        done = self._run_alone(
            [
                str(account.binaries() / "bin" / "initdb"),
                *("-D", str(data), "-U", USER, "--pwfile", str(password_file)),
                *("--auth=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums"),
            ]
        )
        if done.returncode:
            raise PostgresError(f"initdb failed: {(done.stderr or done.stdout).strip()}")

    def _run_alone(self, command: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program as the server's account."""
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={"PATH": os.defpath, "TZ": "UTC"},
            preexec_fn=account.demote if account.is_root() else None,
        )

    @staticmethod
    def _hand_over(*paths: Path) -> None:
        if account.is_root():
            import pwd

            owner = pwd.getpwnam(account.SERVER_ACCOUNT)
            for path in paths:
                os.chown(path, owner.pw_uid, owner.pw_gid)

    def _create_database(self) -> None:
        connection = psycopg2.connect(self.url.rsplit("/", 1)[0] + "/postgres", connect_timeout=3)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if not cursor.fetchone():
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        finally:
            connection.close()


def new_password() -> str:
    """A password that needs no quoting in a URL."""
    return secrets.token_urlsafe(24).replace("-", "a").replace("_", "b")
