"""The local stack as a whole: which servers, which programs, up and down."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import sys
from pathlib import Path

from config import settings
from config.settings import PROJECT
from etl.access.keys import hash_key
from stack import account, ports
from stack.postgres import OWNER, WEB, Postgres, new_password
from stack.supervisor import Program, Supervisor
from stack.valkey import Valkey
from web.exposure import check_exposure

SERVERS = ("postgres", "valkey")
APPS = ("samples", "web", "worker", "beat", "flower")
READY_SECONDS = 60
# So many tasks Flower remembers, at some 6 kB each.
FLOWER_TASKS = 10_000
# What the service's processes are made of, beside `celeryconfig.py`.
CODE = ("alembic", "broker", "config", "db", "etl", "requirements", "stack", "web", "worker")
# What an operator may choose for a stack, and cannot change while it runs.
CHOSEN = ("WEB_HOST", "WEB_PORT", "FLOWER_PORT", "SAMPLES_PORT")


class LocalStack:
    """Embedded servers, unless the operator names real ones, and the service's processes."""

    def __init__(self) -> None:
        """Read the settings as they are now; nothing is started.

        Of a running stack they are those it runs with; to start one counts what the operator says, not what an
        earlier start said.
        """
        self.explicit = settings.explicit_environment()
        self.settings = settings.read(self.explicit)
        self.supervisor = Supervisor(self.settings.state_dir)
        self.runtime = settings.read_file(self.runtime_file)
        if self.supervisor.running:
            self.settings = settings.read({**settings.environment(), **self._chosen()})
        self._postgres: Postgres | None = None
        self._valkey: Valkey | None = None

    @property
    def runtime_file(self) -> Path:
        """What other processes learn about the running stack from."""
        return self.settings.state_dir / "runtime.env"

    def differences(self) -> list[str]:
        """What the operator says now and the running stack does otherwise, as `NAME=value`."""
        running = self._chosen()
        return [
            f"{name}={self.explicit[name]}"
            for name in running
            if self.explicit.get(name, running[name]) != running[name]
        ]

    @property
    def is_outdated(self) -> bool:
        """Whether the code, `.env` or the servers are others than when the running stack was started."""
        return self.runtime.get("KASPARRO_CODE") != self._fingerprint()

    def _fingerprint(self) -> str:
        return _fingerprint(*(self.explicit.get(name, "") for name in ("DATABASE_URL", "REDIS_URL")))

    def stop(self) -> None:
        """Stop it. The ports that it was given are those of the next start, unless another is named."""
        if self.supervisor.running:
            os.environ.update({name: port for name, port in self._chosen().items() if name not in self.explicit})
        self.supervisor.stop()

    def migrating(self) -> dict[str, str]:
        """What the migration needs to know beside the settings: the superuser of the embedded cluster."""
        kept = settings.read_file(self.runtime_file).get("KASPARRO_POSTGRES")
        if not kept or "DATABASE_URL" in self.explicit:
            return {}
        return {"ADMIN_DATABASE_URL": self._make_postgres(kept, as_it_is=True).url}

    def _chosen(self) -> dict[str, str]:
        return {name: self.runtime[name] for name in CHOSEN if name in self.runtime}

    def prepare(self) -> None:
        """Choose ports, passwords and the admin key, and set up the embedded servers' files."""
        self.settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        runtime = dict[str, str]()
        if "DATABASE_URL" not in self.explicit:
            kept = self.runtime.get("KASPARRO_POSTGRES", "")
            self._postgres = self._make_postgres(kept)
            runtime |= {
                # Drawn anew by each start; whoever migrates gives them to the roles.
                "DATABASE_URL": self._postgres.url_of(OWNER, new_password()),
                "WEB_DATABASE_URL": self._postgres.url_of(WEB, new_password()),
                "KASPARRO_POSTGRES": _pair(self._postgres),
            }
            self._postgres.initialise(fresh_password=self._postgres.password != _kept(kept)[1])
        if "REDIS_URL" not in self.explicit:
            self._valkey = self._make_valkey(self.runtime.get("KASPARRO_VALKEY", ""))
            runtime |= {"REDIS_URL": self._valkey.url, "KASPARRO_VALKEY": _pair(self._valkey)}
            self._valkey.initialise()
        self._write_runtime(runtime)

    def check_ports(self) -> None:
        """Refuse to start when a port of the service is taken."""
        current = self.settings
        ports.require(
            {
                "WEB_PORT": (current.web_port, current.web_host),
                "FLOWER_PORT": (current.flower_port, "127.0.0.1"),
                "SAMPLES_PORT": (current.samples_port, "127.0.0.1"),
            }
        )

    def start_servers(self) -> None:
        """Start the supervisor, and wait until the embedded servers answer."""
        self.supervisor.start(self._programs(), self._environment())
        if self._postgres:
            self._postgres.await_ready(READY_SECONDS)
        if self._valkey:
            self._valkey.await_ready(READY_SECONDS)

    def start_apps(self) -> None:
        """Start the service's processes."""
        for name in APPS:
            self.supervisor.start_program(name)
        for name in APPS:
            self.supervisor.await_program(name)

    def clean(self) -> None:
        """Remove everything the stack has stored."""
        account.remove(self.settings.state_dir)
        shutil.rmtree(self.settings.state_dir, ignore_errors=True)

    def _make_postgres(self, kept: str, *, as_it_is: bool = False) -> Postgres:
        port, password = _kept(kept)
        used = port if port and as_it_is else ports.free_port(port)
        return Postgres(account.server_folder(self.settings.state_dir), used, password or new_password())

    def _make_valkey(self, kept: str) -> Valkey:
        port, password = _kept(kept)
        return Valkey(self.settings.state_dir / "valkey", ports.free_port(port), password or new_password())

    def _write_runtime(self, servers: dict[str, str]) -> None:
        """Everything the stack decided; what the operator set is repeated, so that a later shell finds it too."""
        current = self.settings
        values = {
            **servers,
            "WEB_HOST": current.web_host,
            "WEB_PORT": str(current.web_port),
            "FLOWER_PORT": str(current.flower_port),
            "SAMPLES_PORT": str(current.samples_port),
            "SAMPLES_URL": f"http://127.0.0.1:{current.samples_port}",
            "ALLOWED_PRIVATE_HOSTS": f"127.0.0.1:{current.samples_port}",
            "API_KEYS": hash_key(self._admin_key()),
            "FLOWER_BASIC_AUTH": self._flower_login(),
            "KASPARRO_CODE": self._fingerprint(),
        }
        partial = self.runtime_file.with_suffix(".new")
        partial.touch(mode=0o600)
        partial.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
        partial.replace(self.runtime_file)
        self.settings = settings.read(settings.environment())
        check_exposure(self.settings)

    def _environment(self) -> dict[str, str]:
        """What the operator set, and what the stack needs besides."""
        current = self.settings
        merged = {
            "API_KEYS": [*current.api_keys, hash_key(self._admin_key())],
            "ALLOWED_PRIVATE_HOSTS": [*current.allowed_private_hosts, f"127.0.0.1:{current.samples_port}"],
        }
        login = {"FLOWER_BASIC_AUTH": self._flower_login()}
        return {name: " ".join(dict.fromkeys(values)) for name, values in merged.items()} | login

    def _admin_key(self) -> str:
        told = "An admin key was written to {}; send it as `Authorization: Bearer <key>`."
        return _kept_secret(self.settings.key_file, secrets.token_urlsafe(32), told)

    def _flower_login(self) -> str:
        """What the operator says, else one that is made once."""
        given = self.explicit.get("FLOWER_BASIC_AUTH")
        told = "The login of Flower, user:password, was written to {}."
        return given or _kept_secret(self.settings.flower_file, f"admin:{new_password()}", told)

    def _programs(self) -> list[Program]:
        return [*self._server_programs(), *self._app_programs()]

    def _server_programs(self) -> list[Program]:
        programs = []
        if self._postgres:
            programs.append(Program("postgres", self._postgres.command, first=True, stop_signal="INT"))
        if self._valkey:
            programs.append(Program("valkey", self._valkey.command, first=True))
        return programs

    def _app_programs(self) -> list[Program]:
        current = self.settings
        python = (
            os.path.relpath(sys.executable, PROJECT) if Path(sys.executable).is_relative_to(PROJECT) else sys.executable
        )
        gunicorn, celery = [python, "-m", "gunicorn"], [python, "-m", "celery", "-A", "worker"]
        sample_options = ["--bind", f"127.0.0.1:{current.samples_port}", "--no-control-socket", "--threads", "4"]
        flower = ["--address=127.0.0.1", f"--port={current.flower_port}", f"--max_tasks={FLOWER_TASKS}"]
        level = f"--loglevel={current.log_level}"
        return [
            Program("samples", [*gunicorn, *sample_options, "stack.samples:app"]),
            Program("web", [*gunicorn, "-c", "web/gunicorn_config.py", "web.wsgi:app"]),
            Program("worker", [*celery, "worker", level, f"--concurrency={current.worker_processes}"], stop_seconds=90),
            Program("beat", [*celery, "beat", level, "--pidfile="]),
            Program("flower", [*celery, "flower", *flower], stop_seconds=10),
        ]


def _kept_secret(path: Path, fresh: str, told: str) -> str:
    """What a file of ours has; a fresh one is said once."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(fresh + "\n")
        print(told.format(shown(path)))
    return path.read_text().strip()


def _fingerprint(*servers: str) -> str:
    """Tells one state of the code, of `.env` and of the servers that are named from another."""
    digest = hashlib.blake2b("\0".join(servers).encode(), digest_size=16)
    code = sorted(path for folder in CODE for path in (PROJECT / folder).rglob("*") if path.suffix not in {".pyc", ""})
    for path in [*code, PROJECT / "celeryconfig.py", settings.env_file()]:
        if path.is_file():
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _pair(server: Postgres | Valkey) -> str:
    return f"{server.port}:{server.password}"


def _kept(pair: str) -> tuple[int | None, str]:
    port, _, password = pair.partition(":")
    return (int(port), password) if port.isdecimal() else (None, "")


def shown(path: Path) -> str:
    """A path as a person in the project's folder would write it."""
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
