"""`make up` and its sisters, in a folder of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg2
import pytest
import requests

from config.settings import PROJECT
from stack import account, ports
from stack.account import MARK
from stack.postgres import PostgresError
from testkit.service import Servers, make_database, wait_until

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    # A name that a shell, an ini file and a Unix socket would each stumble over.
    return tmp_path / ("a folder; with # odd %(names)s and " + "length-" * 12)


@pytest.fixture
def environment(state: Path) -> dict[str, str]:
    chosen = {name: str(ports.free_port()) for name in ("WEB_PORT", "FLOWER_PORT", "SAMPLES_PORT")}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"DATABASE_URL", "REDIS_URL", "ALLOWED_PRIVATE_HOSTS"}
    }
    return {
        **kept,
        **chosen,
        "STATE_DIR": str(state),
        "ENABLE_SCHEDULER": "false",
        "LEASE_SECONDS": "5",
        "WORKER_PROCESSES": "2",
    }


@pytest.fixture
def stack(environment: dict[str, str], state: Path) -> Iterator[Command]:
    def command(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stack", *arguments],
            cwd=PROJECT,
            env={**environment, **more},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    yield command
    command("clean")
    assert left_behind(state) == []
    assert not state.exists()
    assert not account.is_root() or not account.server_folder(state).exists()


def left_behind(state: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(state.resolve()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_up_down_up_and_clean(stack: Command, environment: dict[str, str], state: Path) -> None:
    first = stack("up")
    assert first.returncode == 0, first.stdout + first.stderr
    for name in ("birdstrikes", "earthquakes", "earthquake_feed"):
        line = next(line for line in first.stdout.splitlines() if line.startswith(name + " "))
        assert " success " in line
    url = f"http://127.0.0.1:{environment['WEB_PORT']}"
    stats = requests.get(f"{url}/stats", timeout=10).json()
    assert stats["total_records"] == 9976 + 1707 + 1707
    rss = requests.get(f"{url}/data?source_type=rss&page_size=5", timeout=10).json()
    assert {item["source_type"] for item in rss["items"]} == {"rss"}
    assert len(rss["items"]) == 5
    _a_killed_worker_is_restarted(stack, state, url)
    _flower_lists_workers(environment)
    urls = dict(line.split("=", 1) for line in stack("urls").stdout.splitlines())
    assert set(urls) == {"DATABASE_URL", "REDIS_URL", "WEB_URL", "FLOWER_URL"}
    for name in ("admin-key", "flower-login", "runtime.env"):
        assert (state / name).stat().st_mode & 0o777 == 0o600
    assert stack("down").returncode == 0
    assert left_behind(state) == []
    again = stack("up")
    assert again.returncode == 0, again.stdout + again.stderr
    assert requests.get(f"{url}/stats", timeout=10).json()["total_records"] == stats["total_records"]


def test_a_stack_is_started_again_whatever_became_of_it(
    stack: Command, environment: dict[str, str], state: Path, tmp_path: Path
) -> None:
    """After its supervisor was killed, after an edit of `.env`, and on the ports that were once given on the line."""
    environment["SOURCES_FILE"] = str(tmp_path / "sources.yaml")
    environment["ENV_FILE"] = str(tmp_path / "env")
    (tmp_path / "sources.yaml").write_text("sources: []\n")
    (tmp_path / "env").write_text("")
    assert stack("up").returncode == 0
    servers = _servers(state)
    assert len(servers) == 2
    _, postgres = servers
    assert not account.is_root() or set(postgres.environ()) == {"PATH", "TZ", MARK}
    os.kill(int((state / "supervisor.pid").read_text()), 9)
    again = stack("up")
    assert again.returncode == 0, again.stdout + again.stderr
    assert not {one.pid for one in servers} & {one.pid for one in _servers(state)}
    assert len(_servers(state)) == 2
    before = {one.pid for one in _servers(state)}
    look = "from stack.local import LocalStack; print(LocalStack().is_outdated)"
    asked = [sys.executable, "-c", look]
    looked = subprocess.run(asked, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    assert looked.stdout == "False\n", "nothing has changed"
    (tmp_path / "env").write_text("A_SECRET=1\n")
    assert "restarting it" in stack("up").stdout
    assert not {one.pid for one in _servers(state)} & before
    port = environment.pop("WEB_PORT")
    assert stack("restart").returncode == 0
    assert requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=10).status_code == 200


def _servers(state: Path) -> list[psutil.Process]:
    """Valkey and PostgreSQL of this stack, without the children of the latter."""
    folders = (state.resolve(), account.server_folder(state))
    found = [one for one in psutil.process_iter() if one.name() in {"postgres", "valkey-server"}]
    ours = [one for one in found if any(Path(one.cwd()).is_relative_to(folder) for folder in folders)]
    return sorted(
        (one for one in ours if one.ppid() not in {other.pid for other in ours}),
        key=lambda one: one.name(),
        reverse=True,
    )


def _a_killed_worker_is_restarted(stack: Command, state: Path, url: str) -> None:
    # The parent is the supervisor's child; its own children are the pool.
    def workers() -> list[psutil.Process]:
        return [
            p
            for p in left_behind(state)
            if "celery" in p.cmdline() and p.cmdline()[-2:-1] != ["flower"] and "worker" in p.cmdline()[5:]
        ]

    before = {process.pid for process in workers()}
    assert before
    for process in workers():
        process.kill()
    wait_until(lambda: bool({process.pid for process in workers()} - before))
    done = stack("run", "birdstrikes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert requests.get(f"{url}/stats", timeout=10).json()["total_records"] == 9976 + 1707 + 1707


def _flower_lists_workers(environment: dict[str, str]) -> None:
    flower = f"http://127.0.0.1:{environment['FLOWER_PORT']}"
    user, password = (Path(environment["STATE_DIR"]) / "flower-login").read_text().strip().split(":")
    with requests.Session() as session:
        assert session.get(f"{flower}/tasks", timeout=5).status_code == 401
        session.auth = (user, password)
        wait_until(lambda: len(session.get(f"{flower}/workers?json=1", timeout=5).json()["data"]) >= 1)
        assert session.get(f"{flower}/tasks", timeout=5).status_code == 200


def test_a_port_that_is_taken_is_named_with_the_way_out(stack: Command, environment: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(environment["WEB_PORT"])))
        taken.listen()
        done = stack("up")
    assert done.returncode == 2
    assert environment["WEB_PORT"] in done.stderr
    assert "WEB_PORT=" in done.stderr


def test_running_a_source_needs_a_running_stack(stack: Command) -> None:
    done = stack("run", "birdstrikes")
    assert done.returncode == 2
    assert "make up" in done.stderr


def test_a_wrong_sources_file_stops_the_start(stack: Command, tmp_path: Path) -> None:
    (tmp_path / "sources.yaml").write_text("sources:\n  - {name: a, type: csv, fiel: x}\n")
    done = stack("up", SOURCES_FILE=str(tmp_path / "sources.yaml"))
    assert done.returncode == 2
    assert "error: sources.yaml: source 'a': unknown key `fiel`" in done.stderr


@pytest.mark.parametrize("noted", [True, False])
def test_a_cluster_that_outlived_its_checkout_takes_the_new_password(tmp_path: Path, noted: bool) -> None:
    servers = Servers.make(tmp_path / "servers")
    try:
        servers.start("postgres")
        make_database(servers, "kept")
        servers.kill("postgres")
        servers.postgres = replace(servers.postgres, password="another")
        if not noted:
            (servers.postgres.folder / "password.sha256").unlink()
        servers.postgres.initialise(fresh_password=not noted)
        servers.start("postgres")
        assert _names(servers) >= {"kept"}
        with pytest.raises(PostgresError, match="cannot be used"):
            replace(servers.postgres, password="a third").initialise()  # pragma: allowlist secret
    finally:
        servers.remove()


def _names(servers: Servers) -> set[str]:
    connection = psycopg2.connect(servers.postgres.url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        found = {name for (name,) in cursor.fetchall()}
    connection.close()
    return found
