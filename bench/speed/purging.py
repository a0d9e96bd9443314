"""Loading while old runs are removed beside it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg2

from bench.speed import data
from bench.speed.arms import Bench, settle, timed_run
from bench.speed.loading import csv_source, declare
from bench.speed.outcome import Outcome

if TYPE_CHECKING:
    from bench.speed.sizes import Sizes
    from testkit.service import Service

RUNS, OLD = 1_000_000, 100_000
# With three events and a batch each; the oldest are older than what is kept by default.
_RUNS = f"""
    INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, created_at, completed_at, rolled_up)
    SELECT gen_random_uuid(), 's' || n % 10000, 'csv', 'schedule', 'success', 'done',
        now() - CASE WHEN n <= {OLD} THEN interval '100 days' ELSE interval '10 days' END + n * interval '1 ms', now(), true
    FROM generate_series(1, {RUNS}) n;
    INSERT INTO etl_batches (run_id, source_name, number, state, rolled_up)
    SELECT run_id, source_name, 1, 'loaded', true FROM etl_runs;
    INSERT INTO etl_run_events (run_id, event)
    SELECT run_id, event FROM etl_runs, unnest(ARRAY['queued', 'claimed', 'success']) event;
"""


def purging(bench: Bench, sizes: Sizes) -> list[Outcome]:
    """A file loaded while a hundred thousand of a million runs are removed, and while they are kept, in turns."""
    url = bench.database("aged")
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(_RUNS)
    connection.close()
    settle(url)
    aged = Bench(bench.servers, bench.folder / "aged", template="aged")
    aged.folder.mkdir()
    path = bench.folder / "products.csv"
    data.write_csv(path, data.products(sizes.rows))
    rates, removed = [], []
    for _ in range(sizes.rounds):
        kept, _ = _loaded(aged, bench, sizes.rows, "3650d")
        purged, per_second = _loaded(aged, bench, sizes.rows, "90d")
        rates.append((purged, kept))
        removed.append((per_second, 500.0))
    return [
        Outcome.of("load, old runs removed : kept", "records/s", rates, ">= 0.95"),
        Outcome.of("runs removed meanwhile : 500", "runs/s", removed, ">= 1.0"),
    ]


def _loaded(aged: Bench, bench: Bench, rows: int, retention: str) -> tuple[float, float]:
    """Records a second, and runs that were removed a second meanwhile."""
    path = bench.folder / "products.csv"
    with aged.service(RUNS_RETENTION=retention, CSV_ROOTS=str(bench.folder)) as service:
        declare(service, csv_source(path))
        before, started = _runs(service), time.monotonic()
        seconds, _ = timed_run(service, "products")
        return rows / seconds, (before - _runs(service)) / (time.monotonic() - started)


def _runs(service: Service) -> int:
    return int(service.sql("SELECT count(*) FROM etl_runs WHERE status = 'success'")[0])
