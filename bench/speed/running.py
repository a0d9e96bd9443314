"""Many small runs, and many sources due at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from bench.speed.loading import declare
from bench.speed.outcome import Outcome
from db.queries.slots import claim_slots, seconds_to_next
from db.session import Database
from testkit.fake_server import FakeServer, Request, Response
from testkit.service import PYTHON

if TYPE_CHECKING:
    from bench.speed.arms import Bench
    from bench.speed.sizes import Sizes
    from testkit.service import Service

# A chain of three tasks that do nothing but, at its end, leave a mark; nothing of ours is in it.
_NOOP = """
import os
from celery import Celery
app = Celery("noop", broker=os.environ["BROKER"])
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1)

@app.task
def step(path=None):
    if path:
        with open(path, "ab") as file:
            file.write(b"x")
"""
_DRIVE = """
import os, sys, time
from celery import chain
from noop import step
count, path = int(sys.argv[1]), sys.argv[2]
started = time.monotonic()
for _ in range(count):
    chain(step.si(), step.si(), step.si(path)).apply_async()
while not os.path.exists(path) or os.path.getsize(path) < count:
    time.sleep(0.01)
print(time.monotonic() - started)
"""


def tiny(bench: Bench, sizes: Sizes) -> list[Outcome]:
    """Runs of unchanged sources against Celery's own chain of three tasks that do nothing."""
    count = sizes.tiny
    ours, reference = unchanged_rate(bench, count), count / _noop_chains(bench, count)
    return [Outcome("unchanged runs : no-op chains", ours, reference, "runs/s", ours / reference, ">= 0.333")]


def unchanged_rate(bench: Bench, count: int) -> float:
    """Runs per second of so many sources whose server answers that nothing has changed."""
    with FakeServer() as fake_server, bench.service() as service:
        request = {"url": fake_server.on("/a", _unchanged)}
        names = [f"s{number}" for number in range(count)]
        declare(service, *({"name": name, "type": "api", "request": request} for name in names))
        _run_all(service, names)
        return count / _run_all(service, names)


def _unchanged(asked: Request) -> Response:
    if asked.headers.get("if-none-match"):
        return Response(status=304)
    return Response(b'[{"id": 1}]', headers={"ETag": '"a"'})


def _run_all(service: Service, names: list[str]) -> float:
    started = time.monotonic()
    answer = service.post("/runs", {"sources": names})
    assert answer.status_code == 202, answer.text
    while service.sql("SELECT 1 FROM etl_runs WHERE status IN ('queued', 'running') LIMIT 1"):
        time.sleep(0.02)
    assert service.sql("SELECT count(*) FROM etl_runs WHERE status <> 'success'") == [0]
    return time.monotonic() - started


def _noop_chains(bench: Bench, count: int) -> float:
    """Seconds for so many chains, with two pool processes."""
    folder = bench.folder / "noop"
    folder.mkdir(exist_ok=True)
    (folder / "noop.py").write_text(_NOOP)
    environment = {**os.environ, "PYTHONPATH": str(folder), "BROKER": bench.servers.valkey.url}
    command = [PYTHON, "-m", "celery", "-A", "noop", "worker", "--concurrency=2", "--loglevel=ERROR"]
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _drive(folder, environment, 1, "warm")
        return _drive(folder, environment, count, "done")
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(20)


def _drive(folder: Path, environment: dict[str, str], count: int, mark: str) -> float:
    command = [PYTHON, "-c", _DRIVE, str(count), str(folder / mark)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-1000:]
    return float(done.stdout.split()[-1])


def due(bench: Bench, sizes: Sizes) -> list[Outcome]:
    """Many sources due at once: claimed and published; and the cost of a look when none is."""
    url = bench.database()
    connection = psycopg2.connect(url)
    connection.autocommit = True
    connection.cursor().execute(f"""
        INSERT INTO sources (name, type, config, enabled, origin, next_run_at)
        SELECT 's' || n, 'csv', jsonb_build_object('name', 's' || n, 'type', 'csv', 'file', 'x',
               'schedule', jsonb_build_object('every', '30m')), true, 'file', now() - interval '1 s'
        FROM generate_series(1, {sizes.sources}) n
    """)
    database = Database(url, name="bench")
    started = time.monotonic()
    claimed = 0
    while True:
        runs, count = database.transact(claim_slots)
        claimed += len(runs)
        if not count:
            break
    seconds = time.monotonic() - started
    assert claimed == sizes.sources
    started = time.monotonic()
    for _ in range(50):
        database.transact(claim_slots)
        database.transact(seconds_to_next)
    idle = (time.monotonic() - started) / 50
    database.close()
    detail = {"sources": sizes.sources}
    return [
        Outcome("slots due at once : 30 s", seconds, 30.0, "s", seconds / 30, "<= 1.0", detail),
        Outcome("idle tick : 10 ms", idle * 1e3, 10.0, "ms", idle * 100, "<= 1.0", detail),
    ]
