"""The commands behind `make`: up, down, run, ps, logs, urls, clean, db-shell."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from config import settings
from config.settings import PROJECT, SettingError
from etl.runs.outcome import ENDED, Status
from stack import account, containers
from stack.client import Client, ServiceError
from stack.containers import ContainerError
from stack.local import APPS, READY_SECONDS, SERVERS, LocalStack, shown
from stack.ports import PortTakenError
from stack.postgres import PostgresError
from stack.supervisor import SupervisorError
from stack.valkey import ValkeyError

FIRST_RUN_SECONDS = 240
# Of a table of runs.
MOST_LINES = 40
NO_SOURCES = "no source is enabled"
COLUMNS = (
    ("source", "source_name"),
    ("type", "source_type"),
    ("status", "status"),
    ("extracted", "records_extracted"),
    ("changed", "records_changed"),
    ("unchanged", "records_unchanged"),
    ("duplicate", "records_duplicate"),
    ("rejected", "records_failed"),
    ("seconds", "seconds"),
)


class CommandError(Exception):
    """A command did not succeed; the message is for the person who gave it."""


# Errors that a person can mend; anything else is a defect and shows its traceback.
EXPECTED = (
    CommandError,
    ContainerError,
    SettingError,
    PortTakenError,
    PostgresError,
    SupervisorError,
    ServiceError,
    ValkeyError,
)


def up(_: argparse.Namespace) -> int:
    """Start everything, run every enabled source once, and show what came of it."""
    stack = LocalStack()
    if stack.supervisor.running and (changed := stack.differences()):
        raise CommandError(f"the stack runs already, with other settings; make restart {' '.join(changed)}")
    if stack.supervisor.running and stack.is_outdated:
        _say("the code or .env has changed since the stack was started: restarting it")
        stack.stop()
        stack = LocalStack()
    if not stack.supervisor.running:
        # What outlived a supervisor that was killed holds ports, and its files.
        stack.supervisor.sweep()
        stack.check_ports()
        if account.is_root():
            _say("all but the database will run as root; an account of its own is safer")
        _say("setting up the database and the message broker")
        stack.prepare()
        stack.start_servers()
    _say("bringing the schema up to date and applying the sources")
    for command, more in (("migrate", stack.migrating()), ("sources", {})):
        done = subprocess.run([sys.executable, "-m", "db", command], cwd=PROJECT, env=os.environ | more, check=False)
        if done.returncode:
            raise CommandError(f"`python -m db {command}` failed")
    _say("starting " + ", ".join(APPS))
    stack.start_apps()
    client = Client(stack.settings)
    client.await_ready(READY_SECONDS)
    _await_flower(stack)
    status = _run(client, None, FIRST_RUN_SECONDS)
    if status:
        print("The service is up, but not every source succeeded.\n")
    _print_urls(stack, client)
    return 0


def down(_: argparse.Namespace) -> int:
    """Stop everything; the data stays."""
    LocalStack().supervisor.stop()
    _say("stopped; the data is kept (make clean removes it)")
    return 0


def restart(arguments: argparse.Namespace) -> int:
    """Stop and start; ports that were given stay, unless others are."""
    LocalStack().stop()
    return up(arguments)


def run(arguments: argparse.Namespace) -> int:
    """Run a source, or all, and wait; 0 only if every run succeeded."""
    client = Client(LocalStack().settings)
    return _run(client, arguments.source or None, arguments.timeout, full=arguments.full)


def ps(_: argparse.Namespace) -> int:
    """Show the processes of the stack."""
    stack = _running()
    for name, state, description in stack.supervisor.states():
        print(f"{name:<10} {state:<10} {description}")
    return 0


def logs(arguments: argparse.Namespace) -> int:
    """Show the last lines of the logs, and follow them."""
    folder = LocalStack().settings.state_dir / "logs"
    names = {"db": "postgres"}.get(arguments.name, arguments.name)
    files = [folder / f"{name}.log" for name in ([names] if names else [*SERVERS, *APPS])]
    found = [str(file) for file in files if file.exists()]
    if not found:
        raise CommandError("there is no log yet")
    follow = [] if arguments.no_follow else ["-F"]
    os.execvp("tail", ["tail", "-n", str(arguments.lines), *follow, *found])  # noqa: S606 -- replaces this process


def urls(_: argparse.Namespace) -> int:
    """Print the addresses of the running stack, for scripts."""
    current = _running().settings
    print(f"DATABASE_URL={current.database_url}")
    print(f"REDIS_URL={current.redis_url}")
    print(f"WEB_URL={Client(current).url}")
    print(f"FLOWER_URL=http://127.0.0.1:{current.flower_port}")
    return 0


def clean(_: argparse.Namespace) -> int:
    """Stop everything and remove the data."""
    stack = LocalStack()
    stack.supervisor.stop()
    stack.clean()
    _say("stopped, and the data is removed")
    return 0


def db_shell(_: argparse.Namespace) -> int:
    """Open psql on the stack's database."""
    psql = account.binaries() / "bin" / "psql"
    url = _running().settings.database_url
    # Arguments are shown to everybody on this machine, the environment is not.
    password = urlsplit(url).password or ""
    address = url.replace(f":{password}@", "@", 1)
    os.execve(psql, [str(psql), address], os.environ | {"PGPASSWORD": unquote(password)})  # noqa: S606 -- replaces this process


def docker_up(_: argparse.Namespace) -> int:
    """Build and start the containers, and wait until the service answers."""
    env_file = PROJECT / ".env"
    added = containers.add_secrets(env_file)
    if added:
        current = settings.read(settings.environment())
        _say(f"generated {', '.join(added)} in .env; the admin key is in {shown(current.key_file)}")
    current = settings.read(settings.environment())
    containers.write_source_secrets(current.state_dir / "sources.env")
    containers.start()
    client = Client(current)
    client.await_ready(READY_SECONDS)
    print(f"Pages    {client.url}/ui   (make docker-login prints a link that signs you in)")
    print(f"API      {client.url}   (the key is in {shown(current.key_file)})")
    print(f"Flower   http://127.0.0.1:{current.flower_port}   (the login is FLOWER_BASIC_AUTH in .env)")
    return 0


def docker_down(_: argparse.Namespace) -> int:
    """Stop the containers; the data stays in their volumes."""
    containers.compose("down")
    return 0


def _run(client: Client, source: str | None, seconds: float, *, full: bool = False) -> int:
    try:
        queued = client.queue(source, full=full)
    except ServiceError as error:
        if source is None and str(error) == NO_SOURCES:
            _say(NO_SOURCES)
            return 0
        raise
    runs = client.follow(queued.run_ids, seconds, Progress(len(queued.run_ids)))
    _print_table(runs)
    for one in runs if len(runs) <= MOST_LINES else ():
        for warning in client.warnings(one["run_id"]):
            print(f"{one['source_name']}: warning: {warning}")
    going_on = queued.total - sum(one["status"] in ENDED for one in runs)
    if going_on:
        print(f"{going_on} of {queued.total} runs go on; GET {client.url}/runs shows them")
    return 0 if not going_on and all(one["status"] == Status.SUCCESS for one in runs) else 1


class Progress:
    """Prints a line whenever something has changed, at most every two seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._last = ""
        self._at = 0.0

    def __call__(self, active: list[dict[str, Any]], ended: int) -> None:
        """Show where the runs are."""
        few = active[:3]
        states = [f"{r['source_name']}: {r['status']} {r['records_extracted'] - r['records_not_loaded']}" for r in few]
        line = "  ".join([f"{ended} of {self._total} ended", *states])
        if line != self._last and time.monotonic() - self._at > 2:
            _say(line + ("  …" if len(active) > len(few) else ""))
            self._last, self._at = line, time.monotonic()


def _print_table(runs: list[dict[str, Any]]) -> None:
    """One line a run; of many only those that did not succeed, and how many did."""
    told = runs if len(runs) <= MOST_LINES else [one for one in runs if one["status"] != Status.SUCCESS][:MOST_LINES]
    if told:
        _print_lines(told)
    for one in told:
        if one["error"]:
            print(f"{one['source_name']}: {one['error']['code']}: {one['error']['message']}")
        if one["items_deleted"]:
            print(f"{one['source_name']}: {one['items_deleted']} items were deleted, which it has no more")
    if len(told) < len(runs):
        counts = Counter(one["status"] for one in runs)
        print(f"{len(runs)} runs: " + ", ".join(f"{number} {status}" for status, number in counts.most_common()))


def _print_lines(runs: list[dict[str, Any]]) -> None:
    rows = [[title for title, _ in COLUMNS]]
    for one in sorted(runs, key=lambda r: str(r["source_name"])):
        shown = {**one, "seconds": _seconds(one)}
        rows.append([str(shown[key]) for _, key in COLUMNS])
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    print()
    for number, row in enumerate(rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    print()


def _seconds(one: dict[str, Any]) -> str:
    if not one["completed_at"] or not one["started_at"]:
        return "-"
    ended, started = (datetime.fromisoformat(one[key]) for key in ("completed_at", "started_at"))
    return f"{(ended - started).total_seconds():.1f}"


def _print_urls(stack: LocalStack, client: Client) -> None:
    if stack.settings.public:
        print(f"Listens on {stack.settings.web_host}; every call needs a key: {shown(stack.settings.key_file)}")
    print(f"Pages    {_login()}")
    print("         (signs you in, once, within 10 minutes; make login prints another)")
    print(f"API      {client.url}/data   {client.url}/stats   {client.url}/health")
    print(f"Docs     {client.url}/docs   {client.url}/redoc")
    given = "FLOWER_BASIC_AUTH in .env" if "FLOWER_BASIC_AUTH" in stack.explicit else shown(stack.settings.flower_file)
    print(f"Flower   http://127.0.0.1:{stack.settings.flower_port}   (login: {given})")
    print("Next     make run SOURCE=name, make ps, make logs, make down")


def _login() -> str:
    """An address that signs a browser in."""
    command = [sys.executable, "-m", "web", "login"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def _await_flower(stack: LocalStack) -> None:
    """Flower shows tasks from when it listens on; let it hear the first ones."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            requests.get(f"http://127.0.0.1:{stack.settings.flower_port}/healthcheck", timeout=2)
        except requests.RequestException:
            time.sleep(0.2)
        else:
            return


def _running() -> LocalStack:
    stack = LocalStack()
    if not stack.supervisor.running:
        raise CommandError("the stack is not running (make up starts it)")
    return stack


def _say(text: str) -> None:
    print(f"· {text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stack", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for function in (up, down, restart, run, ps, logs, urls, clean, db_shell, docker_up, docker_down):
        command = commands.add_parser(function.__name__.replace("_", "-"), help=function.__doc__)
        command.set_defaults(function=function)
        if function is run:
            command.add_argument("source", nargs="?", default="")
            command.add_argument("--timeout", type=float, default=3600)
            command.add_argument("--full", action="store_true", help="read all again, whatever is known of it")
        if function is logs:
            command.add_argument("name", nargs="?", default="")
            command.add_argument("--lines", type=int, default=40)
            command.add_argument("--no-follow", action="store_true")
    return parser


def main() -> int:
    """Run one command; an error that a person can mend is one line."""
    arguments = _parser().parse_args()
    try:
        return int(arguments.function(arguments))
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
