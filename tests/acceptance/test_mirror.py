"""The client of the documentation keeps a copy through loads, deletions, a crash and a restore, and misses nothing."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.settings import PROJECT
from testkit.service import Servers, Service, make_database, wait_until

CLIENT = PROJECT / "docs" / "mirror_client.py"
SHOP = "sources:\n  - {name: shop, type: csv, file: shop.csv, full_snapshot: true, max_deleted: 100}\n"
COUNT = 2000


def sync(service: Service, copy: Path) -> str:
    """What the client says in the end: nothing if it failed."""
    command = [sys.executable, str(CLIENT), service.url, str(copy)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=False).stdout


def await_last(service: Service, copy: Path) -> None:
    """Whatever has been committed is in the copy. A worker that writes something of its own holds it up for a moment."""
    wait_until(lambda: sync(service, copy) == "up to date\n", 30)


@contextmanager
def syncing(service: Service, copy: Path) -> Iterator[None]:
    """All the while, whatever comes of it."""
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            sync(service, copy)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def start(service: Service) -> None:
    service.start_web()
    service.start_worker()


def stop(service: Service) -> None:
    for name in ("web", "worker"):
        service.stop(name)


def write(service: Service, chance: random.Random) -> None:
    rows = (f"{n},thing {n} {chance.randrange(3)}" for n in range(COUNT) if chance.random() < 0.9)
    (service.folder / "shop.csv").write_text("id,title\n" + "\n".join(rows) + "\n")


def run(service: Service, chance: random.Random) -> None:
    write(service, chance)
    assert service.await_end(service.run("shop"))["status"] == "success"


def held(copy: Path) -> list[tuple[int, str, str | None]]:
    rows = sqlite3.connect(copy).execute("SELECT id, item FROM items ORDER BY id").fetchall()
    items = [(number, json.loads(item)) for number, item in rows]
    return [(number, item["status"], item["title"]) for number, item in items]


def test_a_copy_stays_equal(service: Service, servers: Servers, tmp_path: Path) -> None:
    chance, copy = random.Random(3), tmp_path / "copy.db"
    assert service.declare(SHOP).returncode == 0
    start(service)
    run(service, chance)
    with syncing(service, copy):
        run(service, chance)
        servers.crash("postgres", signal.SIGKILL)
        servers.start("postgres")
        run(service, chance)
    stop(service)
    make_database(servers, "backup", template="acceptance")
    start(service)
    with syncing(service, copy):
        run(service, chance)
    await_last(service, copy)
    lost = held(copy)
    stop(service)
    make_database(servers, "acceptance", template="backup")
    start(service)
    with syncing(service, copy):
        run(service, chance)
    await_last(service, copy)
    assert held(copy) == service.sql("SELECT id, status, title FROM unified_items ORDER BY id")
    assert held(copy) != lost
    assert {status for _, status, _ in held(copy)} == {"active", "deleted"}
