"""After a storm everything that is told of the service is true: its metrics, and a mirror of its items."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from config.settings import PROJECT
from db.queries.item_paths import SHOWN
from stack.account import binaries
from testkit.service import Servers, Service, make_database, wait_until

KEY = "a" * 40
CLIENT = PROJECT / "docs" / "mirror_client.py"
HOSTS = ("first", "second")
OUTCOMES = ("extracted", "inserted", "updated", "unchanged", "duplicate", "failed")
MAP = "map: {external_id: id, title: title, amount: price}"
# Those that are large, change, say things twice, are wrong in part, are wrong altogether, are not there at first, are
# never there, and stay as they are.
MANY = f"""\
sources:
  - {{name: shop, type: csv, file: shop.csv, full_snapshot: true, max_deleted: 100, TITLE}}
  - {{name: large, type: csv, file: large.csv, {MAP}}}
  - {{name: doubled, type: csv, file: doubled.csv, {MAP}}}
  - {{name: flawed, type: csv, file: flawed.csv, {MAP}}}
  - {{name: wrong, type: csv, file: wrong.csv, {MAP}}}
  - {{name: tardy, type: csv, file: tardy.csv, {MAP}}}
  - {{name: absent, type: csv, file: absent.csv, {MAP}}}
  - {{name: calm, type: csv, file: calm.csv, {MAP}}}
"""
ONE = "sources:\n  - {name: shop, type: csv, file: shop.csv, full_snapshot: true, max_deleted: 100, TITLE}\n"
# What a replay drives again to.
TITLES = (MAP, "map: {external_id: id, title: other, amount: price}")
QUIET = """
    SELECT NOT EXISTS (SELECT 1 FROM etl_runs WHERE completed_at IS NULL OR NOT rolled_up)
        AND NOT EXISTS (SELECT 1 FROM etl_batches WHERE NOT rolled_up)
"""
# Processes, by the name of their machine and their number.
AT_WORK = "SELECT worker FROM etl_runs WHERE lease_expires_at > now() AND completed_at IS NULL"
LAST = """
    SELECT DISTINCT ON (source_name) source_name, status FROM etl_runs
    WHERE lane = 'fetch' AND status <> 'skipped' ORDER BY source_name, completed_at DESC
"""
TRUTH = f"""
    SELECT 'kasparro_runs_total', status, count(*) FROM etl_runs
    WHERE lane = 'fetch' AND completed_at IS NOT NULL GROUP BY status
    UNION ALL SELECT 'kasparro_items', '', count(*) FROM unified_items WHERE status = 'active'
    UNION ALL SELECT 'kasparro_rejected_records_open', '', count(*) FROM rejected_records WHERE state = 'open'
    UNION ALL SELECT 'kasparro_sources', 'failing', count(*) FROM ({LAST}) last WHERE status = 'failed'
    UNION ALL SELECT 'kasparro_sources', 'in_part', count(*) FROM ({LAST}) last WHERE status = 'partial'
""" + "".join(
    f" UNION ALL SELECT 'kasparro_records_total', '{one}', sum(records_{one}) FROM etl_runs WHERE lane <> 'replay'"
    for one in OUTCOMES
)
COUNTERS = ("kasparro_runs_total", "kasparro_records_total")
REQUESTS = "kasparro_http_request_seconds_count"

Metrics = dict[tuple[str, ...], float]


def declare(service: Service, sources: str, turn: int) -> None:
    done = service.declare(sources.replace("TITLE", TITLES[turn % 2]))
    assert done.returncode == 0, done.stderr


def write(service: Service, name: str, count: int, row: Callable[[int], str]) -> None:
    rows = (row(n) for n in range(count))
    (service.folder / f"{name}.csv").write_text("id,title,other,price\n" + "".join(filter(None, rows)))


def write_some(service: Service, chance: random.Random, count: int) -> None:
    """A shop of which some is new, some has changed, and some is gone."""
    texts = ("{0},thing {0} {1},other {0},1\n", "")
    write(service, "shop", count, lambda n: texts[chance.random() < 0.1].format(n, chance.randrange(3)))


def write_all(service: Service, chance: random.Random, turn: int) -> None:
    write_some(service, chance, 8000)
    write(service, "large", 12_000, lambda n: f"{n},thing {n} {chance.randrange(3)},o,1\n")
    write(service, "doubled", 300, lambda n: f"{n},thing {turn},o,1\n" * 2)
    write(service, "flawed", 200, lambda n: f"{n},thing {turn},o,{'wrong' if n % 10 == turn else 1}\n")
    write(service, "wrong", 50, lambda n: f"{n},thing {turn},o,wrong\n")
    write(service, "calm", 100, lambda n: f"{n},thing,o,1\n")
    if turn:
        write(service, "tardy", 100, lambda n: f"{n},thing,o,1\n")


def replay(service: Service) -> str:
    answer = service.post("/replays", {"source_name": "shop"}, key=KEY)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


def await_quiet(service: Service) -> None:
    """Nothing runs, and all that ended is in the totals."""
    wait_until(lambda: service.sql(QUIET) == [True], 120)


def scraped(service: Service) -> Metrics:
    answer = requests.get(f"{service.url}/metrics", timeout=60)
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def counted(found: Metrics, operation: str) -> dict[str, float]:
    """How often an operation was asked for, by how it was answered."""
    return {key[3]: value for key, value in found.items() if key[:3] == (REQUESTS, "GET", operation)}


@contextmanager
def meanwhile(go_on: Callable[[], None], over: threading.Event) -> Iterator[None]:
    """Let `go_on` run beside what is done here, until `over` tells it to stop; what it raises is raised here."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(go_on)
        try:
            yield
        finally:
            over.set()
        done.result()


@dataclass
class Visitor:
    """Asks all the while, and counts the answers."""

    service: Service
    answers: Counter[str] = field(default_factory=Counter)
    scrapes: list[Metrics] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> int:
        status = requests.get(f"{self.service.url}/data?page_size=1", timeout=60).status_code
        self.answers[str(status)] += 1
        return status

    def go_on(self) -> None:
        while not self.over.wait(0.05):
            self.ask()
            self.scrapes.append(scraped(self.service))

    def asking(self) -> AbstractContextManager[None]:
        return meanwhile(self.go_on, self.over)

    def series(self) -> dict[tuple[str, ...], list[float]]:
        """What each counter was said to be, one scrape after the other."""
        names = {key for found in self.scrapes for key in found if key[0] in COUNTERS}
        return {name: [found[name] for found in self.scrapes if name in found] for name in names}


def start_round(service: Service, chance: random.Random, turn: int) -> None:
    write_all(service, chance, turn)
    assert service.post("/runs", {}).status_code == 202


def holds_something(service: Service, host: str) -> bool:
    at_work = [int(worker.rpartition(":")[2]) for worker in service.sql(AT_WORK)]
    return service.pid(host) in map(os.getpgid, at_work)


def kill_one(service: Service) -> None:
    """A host dies while it holds something, and comes back."""
    wait_until(lambda: holds_something(service, "first"), every=0.01)
    service.kill("first")
    service.start_worker("first")


def crash_database(service: Service, servers: Servers) -> None:
    """While it loads."""
    wait_until(lambda: service.sql("SELECT count(*) FROM etl_batches WHERE NOT rolled_up")[0] > 2, every=0.01)
    servers.crash("postgres", signal.SIGKILL)
    try:
        assert scraped(service)[("kasparro_database_up",)] == 0
        wait_until(lambda: requests.get(f"{service.url}/health", timeout=60).status_code == 503)
    finally:
        servers.start("postgres")


def storm(service: Service, servers: Servers) -> None:
    chance = random.Random(5)
    start_round(service, chance, 0)
    await_quiet(service)
    start_round(service, chance, 1)
    kill_one(service)
    await_quiet(service)
    start_round(service, chance, 2)
    crash_database(service, servers)
    await_quiet(service)
    declare(service, MANY, 1)
    replay(service)
    start_round(service, chance, 3)
    await_quiet(service)


def truth(service: Service) -> Metrics:
    rows = service.sql(TRUTH)
    return {(name, label) if label else (name,): float(value) for name, label, value in rows}


def told(found: Metrics) -> Metrics:
    """What is asked of the database too. Of the states of sources, two."""
    names = {*COUNTERS, "kasparro_items", "kasparro_rejected_records_open"}
    states = {("kasparro_sources", state) for state in ("failing", "in_part")}
    return {key: value for key, value in found.items() if key[0] in names or key in states}


def processes(service: Service) -> list[psutil.Process]:
    return psutil.Process(service.pid("web")).children()


@contextmanager
def alone(service: Service, process: psutil.Process) -> Iterator[None]:
    """Only this process of the web answers: the others stand still."""
    others = [one for one in processes(service) if one != process]
    for one in others:
        one.suspend()
    try:
        yield
    finally:
        for one in others:
            one.resume()


@pytest.fixture
def stormy(service: Service, servers: Servers) -> Visitor:
    """Somebody who has seen a storm of loads."""
    service.environment["API_KEYS"] = KEY
    declare(service, MANY, 0)
    service.start_web("--workers=3")
    for host in HOSTS:
        service.start_worker(host)
    visitor = Visitor(service)
    with visitor.asking():
        storm(service, servers)
    return visitor


def test_metrics_are_the_truth_after_a_storm(service: Service, stormy: Visitor) -> None:
    expected = truth(service)
    none_ended = {("kasparro_runs_total", status): 0.0 for status in ("cancelled", "skipped")}
    assert set(Counter(key[0] for key in expected)) >= {*COUNTERS, "kasparro_items", "kasparro_sources"}
    assert min(expected.values()) > 0, expected
    assert {key[1] for key in expected if key[0] == "kasparro_runs_total"} >= {"success", "partial", "failed"}
    assert service.sql("SELECT sum(records_updated) > 0 FROM etl_runs WHERE lane = 'replay'") == [True]
    assert len(processes(service)) == 3
    for process in processes(service):
        with alone(service, process):
            # Each has answered this at least.
            assert stormy.ask() == 200
    for process in processes(service):
        with alone(service, process):
            found = scraped(service)
        assert told(found) == none_ended | expected
        assert counted(found, "Data") == stormy.answers
        assert found[("kasparro_takeovers_total",)] >= 1
        assert [found["kasparro_runs", state] for state in ("queued", "running", "waiting")] == [0, 0, 0]
    assert all(values == sorted(values) for values in stormy.series().values()), "a counter fell"
    assert len(stormy.scrapes) > 20


@dataclass
class Mirror:
    """The client of the documentation, which brings its copy up to date again and again, whatever comes of it."""

    service: Service
    copy: Path
    seconds: float = 120
    codes: list[tuple[int, bytes]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def sync(self) -> None:
        command = [sys.executable, str(CLIENT), self.service.url, str(self.copy)]
        done = subprocess.run(command, capture_output=True, timeout=self.seconds, check=False)
        self.codes.append((done.returncode, done.stderr))

    def go_on(self) -> None:
        while not self.over.is_set():
            self.sync()

    def syncing(self) -> AbstractContextManager[None]:
        return meanwhile(self.go_on, self.over)

    def held(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.copy)) as copy:
            return [json.loads(item) for (item,) in copy.execute("SELECT item FROM items ORDER BY id")]


def table(service: Service) -> list[dict[str, Any]]:
    """The items as they are, over a connection that keeps no copy of the database waiting."""
    with closing(psycopg2.connect(service.database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT row_to_json(i) FROM (SELECT {SHOWN}, deleted_at FROM unified_items ORDER BY id) i")
        return [item for (item,) in cursor.fetchall()]


def differing(mirror: Mirror) -> int:
    """How many rows of the table are not in the copy as they are, or in the copy alone."""
    copy, rows = ({item["id"]: item for item in items} for items in (mirror.held(), table(mirror.service)))
    return sum(copy.get(one) != rows.get(one) for one in copy.keys() | rows.keys())


def await_equal(mirror: Mirror) -> list[dict[str, Any]]:
    """All of the table is in the copy, row by row; what that is. A worker puts changes in order once a minute."""
    with suppress(AssertionError):
        wait_until(lambda: differing(mirror) == 0, 75)
    assert differing(mirror) == 0
    return mirror.held()


def resets(service: Service) -> float:
    """How often it was said that a mirror must begin anew, since the web started."""
    return counted(scraped(service), "DataChanges").get("410", 0)


def start(service: Service) -> None:
    service.start_web()
    service.start_worker()


def stop(service: Service) -> None:
    for name in ("worker", "web"):
        service.stop(name)


def ended(service: Service, *run_ids: str) -> None:
    assert {service.await_end(run_id)["status"] for run_id in run_ids} == {"success"}


def load(service: Service, chance: random.Random, turn: int) -> None:
    """Loads, updates and deletions, and a replay beside them, under another mapping each time."""
    declare(service, ONE, turn)
    write_some(service, chance, 2000)
    ended(service, service.run("shop"), replay(service))


def first_load(service: Service, chance: random.Random) -> None:
    declare(service, ONE, 0)
    write_some(service, chance, 2000)
    ended(service, service.run("shop"))


def crash(service: Service, servers: Servers, chance: random.Random) -> None:
    """In the middle of a load."""
    write_some(service, chance, 2500)
    run_id = service.run("shop")
    servers.crash("postgres", signal.SIGKILL)
    servers.start("postgres")
    ended(service, run_id)


def lose(mirror: Mirror, chance: random.Random, turn: int) -> list[dict[str, Any]]:
    """What the mirror has, and no backup."""
    load(mirror.service, chance, turn)
    return await_equal(mirror)


def await_idle(service: Service) -> None:
    """A backup may hold a run that was active then; it is taken up."""
    wait_until(lambda: {value for key, value in scraped(service).items() if key[0] == "kasparro_runs"} == {0}, 60)


def begin_anew(mirror: Mirror, chance: random.Random, turn: int, lost: list[dict[str, Any]]) -> None:
    """After a restore a mirror is told so once, at once, and has all that there is after further loads."""
    assert table(mirror.service) != lost
    mirror.service.start_web()
    # The client asks again after 10 s if it had to ask often.
    wait_until(lambda: resets(mirror.service) == 1, 60)
    mirror.service.start_worker()
    await_idle(mirror.service)
    load(mirror.service, chance, turn)
    assert {item["status"] for item in await_equal(mirror)} == {"active", "deleted"}
    assert resets(mirror.service) == 1


def dump(service: Service, file: Path) -> None:
    """A backup in the middle of a load."""
    run_id = service.run("shop")
    command = [str(binaries() / "bin" / "pg_dump"), "--format=custom", f"--file={file}", service.database_url]
    subprocess.run(command, check=True, capture_output=True)
    ended(service, run_id)


def restore(service: Service, fresh: Servers, file: Path) -> None:
    """Put a backup into another cluster, whose transactions are behind those of the old one."""
    service.database_url = service.environment["DATABASE_URL"] = fresh.postgres.url
    command = [str(binaries() / "bin" / "pg_restore"), "--exit-on-error", f"--dbname={fresh.postgres.url}", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    assert service.sql("SELECT bool_and(change_xid > pg_current_xact_id()) FROM unified_items") == [True]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Servers]:
    """A cluster of its own, with nothing in it."""
    made = Servers.make(tmp_path / "fresh")
    try:
        made.start("postgres")
        yield made
    finally:
        made.remove()


def weather(mirror: Mirror, servers: Servers, chance: random.Random) -> None:
    """Loads, and a crash, of which no mirror need know."""
    load(mirror.service, chance, 1)
    crash(mirror.service, servers, chance)
    load(mirror.service, chance, 2)
    await_equal(mirror)
    assert resets(mirror.service) == 0


def test_a_mirror_is_equal_after_a_storm_and_two_restores(
    service: Service, servers: Servers, fresh: Servers, tmp_path: Path
) -> None:
    chance, mirror = random.Random(3), Mirror(service, tmp_path / "copy.db")
    service.environment["API_KEYS"] = KEY
    start(service)
    first_load(service, chance)
    with mirror.syncing():
        weather(mirror, servers, chance)
        stop(service)
        make_database(servers, "backup", template="acceptance")
        start(service)
        lost = lose(mirror, chance, 3)
        assert resets(service) == 0
        stop(service)
        make_database(servers, "acceptance", template="backup")
        begin_anew(mirror, chance, 5, lost)
        dump(service, tmp_path / "backup")
        lost = lose(mirror, chance, 6)
        stop(service)
        restore(service, fresh, tmp_path / "backup")
        begin_anew(mirror, chance, 8, lost)
    mirror.sync()
    assert mirror.held() == table(service)
    assert {code for code, _ in mirror.codes} == {0}, mirror.codes
