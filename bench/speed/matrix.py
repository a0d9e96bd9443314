"""The matrix of `GET /data`: every order and direction, alone, with each filter and with each pair of filters.

Each line is asked for its first page and for a page behind a thousand items, by cursor: the median of five warm answers,
and the pages of the database (8 KiB each) that its statements look at. Then six clients ask all of it at once.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import statistics
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import psycopg2
import requests

from bench.bounds import pages_of
from bench.slow import KEY, Answers, probe
from bench.speed.outcome import Outcome
from bench.speed.skewed import CHOICES, Choice, fill
from config import settings
from db.queries.item_paths import SORTABLE
from db.session import Database
from web.app import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flask.testing import FlaskClient

    from bench.speed.arms import Bench
    from bench.speed.sizes import Sizes
    from testkit.service import Service

WARM = 5
# So many of the slowest are printed.
WORST = 30
CLIENTS = 6
# The pages of the database that a page of items may look at, however many items there are.
BOUND = 120_000
SLOW_MS, SLOWEST_MS = 50.0, 100.0


@dataclass(frozen=True)
class Line:
    """One question: some filters, an order, a direction."""

    choices: tuple[Choice, ...]
    sort_by: str
    sort_order: str

    @property
    def query(self) -> dict[str, str]:
        return {one.filter: one.value for one in self.choices} | {
            "sort_by": self.sort_by,
            "sort_order": self.sort_order,
        }

    @property
    def is_search(self) -> bool:
        return any(one.filter == "search" for one in self.choices)

    @property
    def may_be_broad(self) -> bool:
        """Whether it may be refused: two filters, or a search in an order of its own."""
        return len(self.choices) > 1 or (self.is_search and (self.sort_by, self.sort_order) != ("created_at", "desc"))

    def __str__(self) -> str:
        filters = " and ".join(f"{one.filter} ({one.share})" for one in self.choices) or "all"
        return f"{filters} by {self.sort_by} {self.sort_order}"


def lines() -> list[Line]:
    """Every line of the matrix."""
    pairs = ((one, other) for one, other in itertools.combinations(CHOICES, 2) if one.filter != other.filter)
    filters: list[tuple[Choice, ...]] = [(), *((one,) for one in CHOICES), *pairs]
    return [Line(*each) for each in itertools.product(filters, SORTABLE, ("asc", "desc"))]


@dataclass(frozen=True)
class Found:
    """What a page of a line took: its status, the median in ms, and the pages of the database."""

    line: Line
    page: str
    status: int
    ms: float
    pages: int

    def __str__(self) -> str:
        return f"{self.ms:8.1f} ms {self.pages:8} pages  {self.status}  {self.page:6}  {self.line}"


def matrix(bench: Bench, sizes: Sizes) -> list[Outcome]:
    """The whole matrix, the worst of it printed."""
    with bench.service(processes=1, database="matrix", API_KEYS=KEY) as service:
        service.stop("worker")
        with contextlib.closing(psycopg2.connect(service.database_url)) as connection:
            connection.autocommit = True
            fill(connection.cursor().execute, sizes.skewed)
        database = Database(service.database_url, name="matrix", statement_limit=timedelta(seconds=30))
        with create_app(settings.load(), database).test_client() as client:
            found = [page for line in lines()[:: sizes.nth] for page in asked(service, client, database, line)]
        database.close()
        idle, busy = at_once(service, 2 * sizes.seconds)
    for page in sorted(found, key=lambda page: -page.ms)[:WORST]:
        print(page, flush=True)
    return _judged(found, idle, busy, sizes.skewed)


def _judged(found: Sequence[Found], idle: Answers, busy: Answers, items: int) -> list[Outcome]:
    times, broad = [page.ms for page in found], [page for page in found if page.status != HTTPStatus.OK]
    assert all(page.status == HTTPStatus.UNPROCESSABLE_ENTITY and page.line.may_be_broad for page in broad), broad
    slow, slowest = sum(ms > SLOW_MS for ms in times), max(times)
    pages = max(page.pages for page in found)
    refused = sum(not page.line.is_search for page in broad if page.page == "first")
    allowed = idle.bound() * 1e3
    ready = busy.p99 * 1e3
    return [
        Outcome("matrix: pages over 50 ms : all", slow, len(found), "", slow / len(found), "<= 0.05", {"items": items}),
        Outcome("matrix: slowest : 100 ms", slowest, SLOWEST_MS, "ms", slowest / SLOWEST_MS, "<= 1.0"),
        Outcome("matrix: median : 50 ms", statistics.median(times), SLOW_MS, "ms", statistics.median(times) / SLOW_MS),
        Outcome("matrix: database pages : bound", pages, BOUND, "8 KiB", pages / BOUND, "<= 1.0"),
        Outcome("matrix: too broad : 10", refused, 10, "lines", refused / 10, "<= 1.0"),
        Outcome("ready, beside six clients : bound", ready, allowed, "ms", ready / allowed, "<= 1.0"),
    ]


def asked(service: Service, client: FlaskClient, database: Database, line: Line) -> Iterator[Found]:
    """Ask for the first page of a line, and for one by cursor."""
    session = requests.Session()
    session.headers["X-API-Key"] = KEY
    many = session.get(f"{service.url}/data", params=line.query | {"page_size": "1000"}, timeout=30).json()
    places = {"first": {"page_size": "50"}}
    if cursor := many.get("pagination", {}).get("next_cursor"):
        places["deeper"] = {"page_size": "50", "cursor": cursor}
    for page, place in places.items():
        address = f"/data?{urlencode(line.query | place)}"
        took = []
        for _ in range(1 + WARM):
            started = time.perf_counter()
            answer = session.get(service.url + address, timeout=30)
            took.append(1e3 * (time.perf_counter() - started))
        pages = pages_of(client, database, address) if answer.ok else 0
        yield Found(line, page, answer.status_code, statistics.median(took[1:]), pages)


def at_once(service: Service, seconds: float) -> tuple[Answers, Answers]:
    """Answers of `/health/ready` when idle, and while six clients ask all of the matrix."""
    probe(service.port, 2)
    idle = probe(service.port, seconds)
    ended = threading.Event()

    def drive(seed: int) -> None:
        session, dice, each = requests.Session(), random.Random(seed), lines()
        session.headers["X-API-Key"] = KEY
        while not ended.is_set():
            session.get(f"{service.url}/data", params=dice.choice(each).query, timeout=60)

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        return idle, probe(service.port, seconds)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
