"""Everything the environment may say, read once and typed.

Order of precedence: the process environment, then `.env`, then `$STATE_DIR/runtime.env`, which the running local stack
writes. This is the only module that reads the environment.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cache, lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values

from etl.declare.duration import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROJECT = Path(__file__).resolve().parent.parent
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# What a worker process needs before it holds any record: bytes.
LEAST_MEMORY = 128 * 2**20
LARGEST_RECORD = 16 * 1024 * 1024
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
    alert_urls: tuple[str, ...] = field(repr=False)
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
    *("API_KEYS", "SESSION_SECRET", "FLOWER_BASIC_AUTH", "ALERT_URLS"),
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
        database_url=_get(env, "DATABASE_URL", _postgres_url, ""),
        web_database_url=_get(env, "WEB_DATABASE_URL", _postgres_url, env.get("DATABASE_URL", "")),
        admin_database_url=_get(env, "ADMIN_DATABASE_URL", _postgres_url, ""),
        redis_url=_get(env, "REDIS_URL", _redis_url, ""),
        sources_file=_get(env, "SOURCES_FILE", _path, "sources.yaml"),
        state_dir=_get(env, "STATE_DIR", _path, ".local"),
        web_host=_get(env, "WEB_HOST", str, "127.0.0.1"),
        web_port=_get(env, "WEB_PORT", _port, "8000"),
        flower_port=_get(env, "FLOWER_PORT", _port, "5555"),
        samples_port=_get(env, "SAMPLES_PORT", _port, "8001"),
        worker_processes=_get(env, "WORKER_PROCESSES", _count, str(os.cpu_count() or 1)),
        worker_memory=_get(env, "WORKER_MEMORY", _memory, "512MiB"),
        etl_interval=_get(env, "ETL_INTERVAL", _positive_duration, "30m"),
        enable_scheduler=_get(env, "ENABLE_SCHEDULER", _flag, "true"),
        batch_size=_get(env, "BATCH_SIZE", _count, "5000"),
        max_record=_get(env, "MAX_RECORD", _record_size, "4 MiB"),
        max_retries=_get(env, "MAX_RETRIES", _natural, "3"),
        breaker_threshold=_get(env, "BREAKER_THRESHOLD", _count, "5"),
        breaker_reset=_get(env, "BREAKER_RESET", _positive_duration, "60s"),
        lease=timedelta(seconds=_get(env, "LEASE_SECONDS", _count, "60")),
        runs_retention=_get(env, "RUNS_RETENTION", _positive_duration, "90d"),
        deleted_retention=_get(env, "DELETED_RETENTION", _positive_duration, "30d"),
        cases_retention=_get(env, "CASES_RETENTION", _positive_duration, "365d"),
        audit_retention=_get(env, "AUDIT_RETENTION", _positive_duration, "365d"),
        read_timeout=_get(env, "READ_TIMEOUT", _positive_duration, "5s"),
        rate_limit=_get(env, "RATE_LIMIT", _natural, "6000"),
        allowed_private_hosts=_get(env, "ALLOWED_PRIVATE_HOSTS", _hosts, ""),
        csv_roots=tuple(_path(word) for word in _get(env, "CSV_ROOTS", _words, "data")),
        api_keys=_get(env, "API_KEYS", _words, ""),
        session_secret=_get(env, "SESSION_SECRET", str, _of_other_secrets(env)),
        flower_basic_auth=_get(env, "FLOWER_BASIC_AUTH", str, "") or None,
        alert_urls=_get(env, "ALERT_URLS", _words, ""),
        log_level=_get(env, "LOG_LEVEL", _one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
        log_format=_get(env, "LOG_FORMAT", _one_of("console", "json"), "console"),
        environment={"SAMPLES_URL": f"http://127.0.0.1:{_get(env, 'SAMPLES_PORT', _port, '8001')}", **env},
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


def _postgres_url(text: str) -> str:
    if text and not re.match(r"postgres(ql)?(\+psycopg2)?://", text):
        raise ValueError("expected postgresql://user:password@host:port/database")
    _check_address(text)
    return re.sub(r"^postgres(ql)?(\+psycopg2)?://", "postgresql://", text)


def _check_address(url: str) -> None:
    """Refuse one whose parts would be taken for others: what connects would show the rest of the password as a host."""
    try:
        parts = urlsplit(url)
        is_plain = parts.netloc.count("@") <= 1 and (parts.port or True)
    except ValueError:
        is_plain = False
    if not is_plain:
        raise ValueError("not a valid address; in a password, write / @ : ? # as %2F %40 %3A %3F %23") from None


def _redis_url(text: str) -> str:
    if text and not re.match(r"(rediss?|sentinel)://", text):
        raise ValueError("expected redis://, rediss:// or sentinel://")
    for address in text.split(";"):
        _check_address(address)
    return text


def _path(text: str) -> Path:
    return PROJECT / Path(text).expanduser()


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError("expected a port number, 1 to 65535")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("expected a whole number")
    return int(text)


def _count(text: str) -> int:
    if _natural(text) < 1:
        raise ValueError("expected a whole number of at least 1")
    return int(text)


def _size(text: str) -> int:
    """Bytes, or so many KiB, MiB or GiB."""
    match = re.fullmatch(r"(\d{1,15}) ?(KiB|MiB|GiB)?", text)
    if not match or not int(match[1]):
        raise ValueError("expected a number of bytes of at least 1, or one with KiB, MiB or GiB, such as 4 MiB")
    return int(match[1]) * {None: 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}[match[2]]


def _record_size(text: str) -> int:
    """What a worker can hold a few of."""
    if _size(text) > LARGEST_RECORD:
        raise ValueError("expected at most 16 MiB")
    return _size(text)


def _positive_duration(text: str) -> timedelta:
    value = duration(text)
    if not value:
        raise ValueError("expected more than zero")
    return value


def _memory(text: str) -> int:
    size = _size(text)
    if size < LEAST_MEMORY:
        raise ValueError("expected at least 128MiB")
    return size


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
        raise ValueError("expected true or false")
    return text.lower() in {"true", "1", "yes"}


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def _hosts(text: str) -> tuple[str, ...]:
    return tuple(map(_host, _words(text)))


_HOST = re.compile(r"(\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>(?!-)[\w-]{1,63}(\.[\w-]{1,63})*))(:(?P<port>\d+))?")


def _host(word: str) -> str:
    """A name, an address or a network, perhaps with a port, written as hosts are compared."""
    try:
        if "/" in word:
            return str(ip_network(word, strict=False))
        if match := _HOST.fullmatch(word):
            name = match["six"] or match["name"].lower()
            is_address = match["six"] or re.fullmatch(r"[\d.]+", name)
            return (str(ip_address(name)) if is_address else name) + (
                f":{_port(match['port'])}" if match["port"] else ""
            )
        return str(ip_address(word))
    except ValueError as error:
        raise ValueError(f"{word!r}: expected a host, host:port or a network such as 10.1.0.0/16") from error


def _one_of(*choices: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise ValueError(f"expected one of {', '.join(choices)}")

    return convert
