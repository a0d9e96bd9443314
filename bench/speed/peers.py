"""The tools people would pick instead; each is measured where it is installed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2

from bench.speed.data import COLUMNS
from config.settings import PROJECT

PEERS = PROJECT / ".venv" / "peers" / "bin" / "python"

_DLT = """
import csv, os, sys, time
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
import dlt
url, path = sys.argv[1:]
@dlt.resource(name="products", primary_key="id", write_disposition="merge")
def products():
    with open(path, newline="") as file:
        rows = []
        for row in csv.DictReader(file):
            rows.append(row)
            if len(rows) == 5000:
                yield rows
                rows = []
        yield rows
started = time.monotonic()
pipeline = dlt.pipeline("bench", destination=dlt.destinations.postgres(url), dataset_name="dlt", pipelines_dir=sys.argv[2] + ".dlt")
pipeline.run(products())
print(time.monotonic() - started)
"""


def load_with_dlt(url: str, path: Path) -> float | None:
    """Seconds for a merge of the file with dlt, None where it is not installed."""
    if not PEERS.exists():
        return None
    done = subprocess.run([PEERS, "-c", _DLT, url, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout.split()[-1])


def load_with_sling(url: str, path: Path) -> float | None:
    """Seconds to copy the file into a table without indexes with sling, None where the system has none."""
    sling = shutil.which("sling")
    if sling is None:
        return None
    target = ("--tgt-conn", url + "?sslmode=disable", "--tgt-object", "public.sling_products", "--mode", "full-refresh")
    return _timed([sling, "run", "--src-stream", f"file://{path}", *target])


def load_with_pgloader(url: str, path: Path) -> float | None:
    """The same with pgloader, where the system has it."""
    pgloader = shutil.which("pgloader")
    if pgloader is None:
        return None
    columns = ", ".join(f"{name} text" for name in COLUMNS)
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE pgloader_products ({columns})")
    fields = [part for name in COLUMNS for part in ("--field", name)]
    options = ("--type", "csv", "--with", "skip header = 1", "--with", "fields terminated by ','")
    return _timed([pgloader, *options, *fields, str(path), f"{url}?tablename=pgloader_products"])


def _timed(command: list[str | Path]) -> float:
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    return time.monotonic() - started


LOADERS: dict[str, Callable[[str, Path], float | None]] = {
    "dlt merge": load_with_dlt,
    "sling copy": load_with_sling,
    "pgloader": load_with_pgloader,
}
AIMS = {"dlt merge": ">= 3.0"}
