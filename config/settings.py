"""Everything the environment may say, read once and typed.

Order of precedence: the process environment, then `.env`, then `$STATE_DIR/runtime.env`, which the running local stack
writes. This is the only module that reads the environment.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dotenv import dotenv_values

from config import values
from etl.declare.duration import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from etl.alerts.destination import Destination

PROJECT = Path(__file__).resolve().parent.parent
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PLACEHOLDERS = ("changeme", "change-me", "your-", "example", "placeholder", "xxx", "todo")

T = TypeVar("T")


class SettingError(Exception):
    """A setting is missing or wrong; the message names it."""


@dataclass(frozen=True)
class Settings:
    """The typed settings of one process."""

    database_url: str = field(repr=False)
    web_database_url: str = field(repr=False)
    admin_database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    sources_file: Path
    state_dir: Path
    web_host: str
    web_port: int
    flower_port: int
    samples_port: int
    worker_processes: int
    worker_memory: int
    etl_interval: timedelta
    enable_scheduler: bool
    batch_size: int
    max_record: int
    max_retries: int
    breaker_threshold: int
    breaker_reset: timedelta
    lease: timedelta
    runs_retention: timedelta
    audit_retention: timedelta
    cases_retention: timedelta
    deleted_retention: timedelta
    read_timeout: timedelta
    rate_limit: int
    allowed_private_hosts: tuple[str, ...]
    csv_roots: tuple[Path, ...]
    api_keys: tuple[str, ...] = field(repr=False)
    session_secret: str = field(repr=False)
    flower_basic_auth: str | None = field(repr=False)
    alert_urls: tuple[Destination, ...] = field(repr=False)
    alert_schemes: tuple[str, ...]
    alert_secret: bytes = field(repr=False)
    alert_digest: timedelta
    alert_reminder: timedelta
    alerts_retention: timedelta
    heartbeat_url: str = field(repr=False)
    log_level: str
    log_format: str
    environment: Mapping[str, str] = field(repr=False)

    @property
    def public(self) -> bool:
        """True when the web listens on more than the loopback interface."""
        return self.web_host not in LOOPBACK

    @property
    def key_file(self) -> Path:
        """Where the local stack keeps its admin key."""
        return self.state_dir / "admin-key"

    @property
    def flower_file(self) -> Path:
        """Where the local stack keeps the login of Flower that it made."""
        return self.state_dir / "flower-login"

    def secret(self, name: str) -> str | None:
        """The value that `${name}` in a source stands for, or None when it is not set or not for sources.

        What has been written into `.env` since the process started counts.

        Raises:
            SettingError: it stands in a file that cannot be read.
        """
        if is_own(name):
            return None
        places = (os.environ, _env_file(), self.environment)
        found = next(filter(None, (place.get(name, "").strip() for place in places)), None)
        if found is None and (path := next(filter(None, (place.get(f"{name}_FILE") for place in places)), None)):
            found = _content(f"{name}_FILE", path) or None
        return found


@cache
def load() -> Settings:
    """The settings of this process.

    Raises:
        SettingError: a value does not fit; the message names the variable.
    """
    return read(environment())


def load_connected() -> Settings:
    """The settings of a process that needs the database.

    Raises:
        SettingError: there is none.
    """
    settings = load()
    if not settings.database_url:
        raise SettingError("DATABASE_URL: is not set; `make up` brings a database, or name one in .env")
    return settings


def environment() -> dict[str, str]:
    """Merge the three places settings come from."""
    merged = explicit_environment()
    running = read_file(PROJECT / (merged.get("STATE_DIR") or ".local") / "runtime.env")
    if "DATABASE_URL" in merged:
        running.pop("WEB_DATABASE_URL", None)
    return {**running, **merged}


def explicit_environment() -> dict[str, str]:
    """What the operator said: the process environment, then `.env`. An empty value is no value."""
    given = {name: value.strip() for name, value in {**_env_file(), **os.environ}.items() if value.strip()}
    in_files = {name: given[f"{name}_FILE"] for name in _SECRET if name not in given and f"{name}_FILE" in given}
    return given | {name: _content(f"{name}_FILE", path) for name, path in in_files.items()}


# Settings that may stand in a file of their own, which `NAME_FILE` names.
_SECRET = (
    *("DATABASE_URL", "WEB_DATABASE_URL", "ADMIN_DATABASE_URL", "REDIS_URL"),
    *("API_KEYS", "SESSION_SECRET", "FLOWER_BASIC_AUTH", "ALERT_URLS", "ALERT_SECRET", "HEARTBEAT_URL"),
)
LONGEST_SECRET = 65_536


def _content(name: str, path: str) -> str:
    """What a file holds that a variable names."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            content = file.read(LONGEST_SECRET + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise SettingError(f"{name}: the file that it names cannot be read: {reason}") from error
    if len(content) > LONGEST_SECRET:
        raise SettingError(f"{name}: the file that it names is too long for a secret")
    return content.strip()


def read(env: Mapping[str, str]) -> Settings:
    """Type the settings found in `env`."""
    return Settings(
        database_url=_get(env, "DATABASE_URL", values.postgres_url, ""),
        web_database_url=_get(env, "WEB_DATABASE_URL", values.postgres_url, env.get("DATABASE_URL", "")),
        admin_database_url=_get(env, "ADMIN_DATABASE_URL", values.postgres_url, ""),
        redis_url=_get(env, "REDIS_URL", values.redis_url, ""),
        sources_file=_get(env, "SOURCES_FILE", _path, "sources.yaml"),
        state_dir=_get(env, "STATE_DIR", _path, ".local"),
        web_host=_get(env, "WEB_HOST", str, "127.0.0.1"),
        web_port=_get(env, "WEB_PORT", values.port, "8000"),
        flower_port=_get(env, "FLOWER_PORT", values.port, "5555"),
        samples_port=_get(env, "SAMPLES_PORT", values.port, "8001"),
        worker_processes=_get(env, "WORKER_PROCESSES", values.count, str(os.cpu_count() or 1)),
        worker_memory=_get(env, "WORKER_MEMORY", values.memory, "512MiB"),
        etl_interval=_get(env, "ETL_INTERVAL", values.positive_duration, "30m"),
        enable_scheduler=_get(env, "ENABLE_SCHEDULER", values.flag, "true"),
        batch_size=_get(env, "BATCH_SIZE", values.count, "5000"),
        max_record=_get(env, "MAX_RECORD", values.record_size, "4 MiB"),
        max_retries=_get(env, "MAX_RETRIES", values.natural, "3"),
        breaker_threshold=_get(env, "BREAKER_THRESHOLD", values.count, "5"),
        breaker_reset=_get(env, "BREAKER_RESET", values.positive_duration, "60s"),
        lease=timedelta(seconds=_get(env, "LEASE_SECONDS", values.count, "60")),
        runs_retention=_get(env, "RUNS_RETENTION", values.positive_duration, "90d"),
        deleted_retention=_get(env, "DELETED_RETENTION", values.positive_duration, "30d"),
        cases_retention=_get(env, "CASES_RETENTION", values.positive_duration, "365d"),
        audit_retention=_get(env, "AUDIT_RETENTION", values.positive_duration, "365d"),
        read_timeout=_get(env, "READ_TIMEOUT", values.positive_duration, "5s"),
        rate_limit=_get(env, "RATE_LIMIT", values.natural, "6000"),
        allowed_private_hosts=_get(env, "ALLOWED_PRIVATE_HOSTS", values.hosts, ""),
        csv_roots=tuple(_path(word) for word in _get(env, "CSV_ROOTS", values.words, "data")),
        api_keys=_get(env, "API_KEYS", values.words, ""),
        session_secret=_get(env, "SESSION_SECRET", str, _of_other_secrets(env)),
        flower_basic_auth=_get(env, "FLOWER_BASIC_AUTH", str, "") or None,
        alert_urls=_get(env, "ALERT_URLS", lambda text: values.destinations(text, env), ""),
        alert_schemes=_get(env, "ALERT_SCHEMES", values.schemes, ""),
        alert_secret=_get(env, "ALERT_SECRET", values.alert_secret, ""),
        alert_digest=_get(env, "ALERT_DIGEST", duration, "1m"),
        alert_reminder=_get(env, "ALERT_REMINDER", values.positive_duration, "24h"),
        alerts_retention=_get(env, "ALERTS_RETENTION", values.positive_duration, "90d"),
        heartbeat_url=_get(env, "HEARTBEAT_URL", values.web_address, ""),
        log_level=_get(env, "LOG_LEVEL", values.one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
        log_format=_get(env, "LOG_FORMAT", values.one_of("console", "json"), "console"),
        environment={"SAMPLES_URL": f"http://127.0.0.1:{_get(env, 'SAMPLES_PORT', values.port, '8001')}", **env},
    )


def _of_other_secrets(env: Mapping[str, str]) -> str:
    """What signs cookies where nothing is said: the same in all processes of the web, and known to none outside."""
    secrets = (env.get(name, "") for name in ("DATABASE_URL", "WEB_DATABASE_URL", "API_KEYS"))
    return hashlib.sha256("\n".join(("cookies", *secrets)).encode()).hexdigest()


# What the service is configured with beside the fields of `Settings`: a source must not send it anywhere.
_OWN = {
    *("LEASE_SECONDS", "POSTGRES_PASSWORD", "OWNER_PASSWORD", "WEB_PASSWORD", "REDIS_PASSWORD"),
    *("PUBLISH_HOST", "ENV_FILE"),
}


def is_own(name: str) -> bool:
    """Whether a variable is one of the service's own; sources may name all others."""
    plain = name.upper()
    # `NAME_FILE` names a file with the value of `NAME`.
    forms = {plain, plain.removesuffix("_FILE"), f"{plain}_FILE"}
    own = _OWN | {field.name.upper() for field in fields(Settings)}
    return plain.startswith("KASPARRO_") or not own.isdisjoint(forms)


def is_placeholder(value: str) -> bool:
    """True for a secret that was never filled in."""
    return any(word in value.lower() for word in PLACEHOLDERS)


def env_file() -> Path:
    """The file that the operator writes settings and secrets into."""
    return Path(os.environ.get("ENV_FILE", PROJECT / ".env"))


def _env_file() -> dict[str, str]:
    try:
        status = env_file().stat()
    except OSError:
        return {}
    return _as_it_is(env_file(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _as_it_is(path: Path, *_: int) -> dict[str, str]:
    """Read again when it has changed."""
    return read_file(path)


def read_file(path: Path) -> dict[str, str]:
    """The variables of one env file; `$` stays as it is written."""
    if not path.is_file():
        return {}
    return {name: value or "" for name, value in dotenv_values(path, interpolate=False).items()}


def _get(env: Mapping[str, str], name: str, convert: Callable[[str], T], default: str) -> T:
    try:
        return convert(env.get(name, "").strip() or default)
    except ValueError as error:
        raise SettingError(f"{name}: {error}") from error


def _path(text: str) -> Path:
    return PROJECT / Path(text).expanduser()
