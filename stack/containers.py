"""The container stack: its secrets, and `docker compose` in whichever form this machine has it."""

from __future__ import annotations

import os
import secrets
import subprocess
from typing import TYPE_CHECKING

from config import settings
from config.settings import PROJECT
from etl.access.keys import hash_key
from stack.postgres import new_password

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class ContainerError(Exception):
    """Docker is missing, or refused."""


def compose_command() -> list[str]:
    """`docker compose`, or the older `docker-compose`."""
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            found = subprocess.run([*command, "version"], capture_output=True, check=False)
        except FileNotFoundError:
            continue
        if found.returncode == 0:
            return command
    raise ContainerError("neither `docker compose` nor `docker-compose` is there")


def compose(*arguments: str) -> None:
    """Run a compose command in the project."""
    if _run(*arguments):
        raise ContainerError(f"docker compose {' '.join(arguments)} failed")


def start() -> None:
    """Build and start all; if that fails, what the migration said is why."""
    if _run("up", "-d", "--build"):
        _run("logs", "--no-log-prefix", "--no-color", "--tail=20", "migrate")
        raise ContainerError("the containers did not start; above is what the migration said, if it got as far")


def _run(*arguments: str) -> int:
    return subprocess.run([*compose_command(), *arguments], cwd=PROJECT, check=False).returncode


def write_source_secrets(path: Path) -> None:
    """What `.env` has beside the settings of the service: for the containers that call sources, and no others."""
    given = settings.read_file(settings.env_file())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    lines = [f"{name}={quoted(value)}\n" for name, value in given.items() if value and not settings.is_own(name)]
    path.write_text("".join(lines))


def quoted(value: str) -> str:
    """A value as compose takes it for what it is: in single quotes nothing is replaced."""
    if "'" not in value and "\n" not in value:
        return f"'{value}'"
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("$", "\\$"), ("\n", "\\n")):
        value = value.replace(plain, escaped)
    return f'"{value}"'


def add_secrets(path: Path) -> list[str]:
    """Generate the secrets that an env file lacks; the names of those added."""
    wanted: dict[str, Callable[[], str]] = {
        "POSTGRES_PASSWORD": new_password,
        "OWNER_PASSWORD": new_password,
        "WEB_PASSWORD": new_password,
        "REDIS_PASSWORD": new_password,
        "API_KEYS": _new_key,
        "SESSION_SECRET": new_password,
        "FLOWER_BASIC_AUTH": lambda: f"admin:{new_password()}",
    }
    known = settings.explicit_environment()
    added = {name: make() for name, make in wanted.items() if name not in known}
    if added:
        old = path.read_text() if path.exists() else ""
        path.touch(mode=0o600)
        path.chmod(0o600)
        separator = "" if not old or old.endswith("\n") else "\n"
        path.write_text(old + separator + "".join(f"{name}={value}\n" for name, value in added.items()))
    return list(added)


def _new_key() -> str:
    """Only the hash goes into the env file; the key itself into a file of its own."""
    path = settings.read(settings.environment()).key_file
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    return hash_key(path.read_text().strip())
