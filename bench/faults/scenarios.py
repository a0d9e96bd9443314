"""The faults, one function each. A function breaks things while records are loaded; the oracle judges afterwards."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import requests

from bench.faults import naive
from bench.faults.alerts import alerts
from bench.faults.lanes import deletions, lanes
from bench.faults.oracle import Verdict
from bench.faults.proxy import Proxy
from bench.faults.strikes import crash_points, database_crashes
from testkit.service import PYTHON, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.faults.arena import Arena

WORKERS = ("one", "two")
KEY = "fault-suite"
HELD = """SELECT (SELECT count(*) FROM etl_runs WHERE lease_expires_at > clock_timestamp())
    + (SELECT count(*) FROM etl_batches WHERE lease_expires_at > clock_timestamp())"""


def kills(arena: Arena, count: int) -> Verdict:
    """SIGKILL of whole workers at random moments."""
    _start(arena)
    for _ in range(count):
        time.sleep(arena.dice.uniform(0.3, 3))
        arena.keep_busy()
        arena.kill_worker(arena.dice.choice(WORKERS))
        if arena.dice.random() < 0.25:
            arena.await_progress()
    return arena.settle()


def default_lease(arena: Arena, count: int) -> Verdict:
    """The only worker is killed with the default lease of a minute; each time it is measured when work goes on."""
    arena.service.environment["LEASE_SECONDS"] = "60"
    arena.service.start_web()
    arena.start_worker("one")
    arena.queue_all()
    for _ in range(count):
        time.sleep(arena.dice.uniform(1, 3))
        arena.keep_busy()
        wait_until(lambda: arena.service.sql(HELD)[0] > 0, 60)
        arena.kill_worker("one")
        arena.await_release()
    return arena.settle()


def flushes(arena: Arena, count: int) -> Verdict:
    """FLUSHALL every five seconds."""
    _start(arena)
    for _ in range(count):
        time.sleep(5)
        arena.keep_busy()
        arena.service.flush_broker()
        arena.report.count("FLUSHALL")
    return arena.settle()


def broker_away(arena: Arena, count: int) -> Verdict:
    """Redis is gone for `count` seconds; runs are asked for all the while."""
    _start(arena)
    wait_until(lambda: not arena.active(), 300)
    arena.servers.kill("valkey")
    arena.report.count("Redis stopped")
    answers, until = [], time.monotonic() + count
    while time.monotonic() < until:
        answers.append(arena.ask(arena.dice.choice(arena.truth.names)))
        time.sleep(0.2)
    arena.servers.start("valkey")
    slowest = sorted(seconds for seconds, _ in answers)
    arena.report.figures |= {
        "asked": len(answers),
        "p50": round(slowest[len(slowest) // 2], 2),
        "p99": round(slowest[int(len(slowest) * 0.99)], 2),
        "5xx": sum(status >= 500 for _, status in answers),
    }
    arena.await_progress()
    return arena.settle()


def database_restarts(arena: Arena, count: int) -> Verdict:
    """PostgreSQL stopped at once (SIGQUIT) and started again, every five seconds."""
    _start(arena)
    for _ in range(count):
        time.sleep(5)
        arena.keep_busy()
        arena.servers.signal("postgres", signal.SIGQUIT)
        arena.servers.processes["postgres"].wait(30)
        arena.report.count("PostgreSQL restart")
        arena.servers.start("postgres")
        arena.await_progress()
    return arena.settle()


def broker_hung(arena: Arena, count: int) -> Verdict:
    """Redis stops answering for `count` seconds, with its connections open; runs are asked for."""
    _start(arena)
    wait_until(lambda: not arena.active(), 300)
    arena.truth.round += 1
    arena.servers.signal("valkey", signal.SIGSTOP)
    arena.report.count("Redis hung")
    try:
        answers = [arena.ask(name) for name in arena.truth.names]
        time.sleep(count)
    finally:
        arena.servers.signal("valkey", signal.SIGCONT)
    arena.report.figures |= {"slowest": round(max(seconds for seconds, _ in answers), 2)}
    arena.report.figures |= {"5xx": sum(status >= 500 for _, status in answers)}
    arena.await_progress()
    return arena.settle()


def broker_full(arena: Arena, count: int) -> Verdict:
    """Redis refuses every write for `count` seconds, because its memory is used up."""
    _start(arena)
    time.sleep(2)
    arena.service.broker().config_set("maxmemory", "1kb")
    arena.report.count("Redis full")
    time.sleep(count)
    arena.service.broker().config_set("maxmemory", "512mb")
    arena.await_progress()
    verdict = arena.settle()
    arena.report.figures["workers_exited"] = sum(not arena.service.is_running(name) for name in WORKERS)
    return verdict


def half_open(arena: Arena, count: int) -> Verdict:
    """The workers' connections to Redis stay open and carry nothing any more."""
    with _proxies(arena) as (broker, _):
        _start(arena)
        for _ in range(count):
            time.sleep(3)
            arena.keep_busy()
            broker.black_hole()
            arena.report.count("half-open Redis link")
            arena.await_progress()
        return arena.settle()


def lost_answers(arena: Arena, count: int) -> Verdict:
    """For `count` seconds, answers of Redis and PostgreSQL are lost on the way, those to COMMIT and BRPOP among them."""
    with _proxies(arena) as (broker, database):
        _start(arena)
        broker.lose_answers, database.lose_answers = 0.02, 0.005
        until = time.monotonic() + count
        while time.monotonic() < until:
            time.sleep(1)
            with contextlib.suppress(requests.RequestException, psycopg2.Error):
                arena.keep_busy()
        broker.lose_answers = database.lose_answers = 0
        arena.report.faults |= {"lost Redis answers": broker.lost, "lost PostgreSQL answers": database.lost}
        return arena.settle()


@contextlib.contextmanager
def _proxies(arena: Arena) -> Iterator[tuple[Proxy, Proxy]]:
    """Put proxies between the service and its servers."""
    servers, seed, environment = arena.servers, arena.report.seed, arena.service.environment
    with Proxy(servers.valkey.port, seed) as broker, Proxy(servers.postgres.port, seed) as database:
        environment["REDIS_URL"] = environment["REDIS_URL"].replace(f":{servers.valkey.port}/", f":{broker.port}/")
        environment["DATABASE_URL"] = environment["DATABASE_URL"].replace(
            f":{servers.postgres.port}/", f":{database.port}/"
        )
        yield broker, database


def zombies(arena: Arena, count: int) -> Verdict:
    """Workers stopped beyond their lease, then woken: what they write then must be refused."""
    _start(arena)
    for _ in range(count):
        time.sleep(arena.dice.uniform(1, 3))
        arena.keep_busy()
        time.sleep(arena.dice.uniform(0, 1))
        name = arena.dice.choice(WORKERS)
        arena.freeze(name)
        arena.report.count("SIGSTOP past the lease")
        time.sleep(9)
        arena.thaw(name)
    verdict = arena.settle()
    arena.report.figures["fenced_out"] = sum(arena.service.log(name).count("lease_lost") for name in WORKERS)
    return verdict


def repeats(arena: Arena, count: int) -> Verdict:
    """Every message `count` times, shuffled with older ones."""
    arena.service.start_web()
    for name in WORKERS:
        arena.start_worker(name, {"REPEAT": str(count), "SEED": str(arena.report.seed)})
    arena.queue_all()
    verdict = arena.settle()
    arena.report.faults[f"messages x {count}"] = 1
    return verdict


def beats(arena: Arena, count: int) -> Verdict:
    """Three beats for `count` slots of every source."""
    arena.truth.trouble = 0
    text = (arena.service.folder / "sources.yaml").read_text().replace("type: api", "schedule: {every: 2s}, type: api")
    arena.service.declare(text)
    arena.service.start_web()
    for name in WORKERS:
        arena.start_worker(name)
    for number in range(3):
        arguments = ("-A", "worker", "beat", "--pidfile=")
        arena.service.start(f"beat{number}", "celery", *arguments, ENABLE_SCHEDULER="true")
    wait_until(lambda: arena.service.sql("SELECT count(DISTINCT scheduled_for) FROM etl_runs")[0] >= count, 600)
    arena.service.declare(text.replace("type: api", "enabled: false, type: api"))
    query = """SELECT count(*), count(DISTINCT (source_name, scheduled_for)), count(DISTINCT scheduled_for), sum(slots_missed)
               FROM etl_runs"""
    runs, slots, moments, missed = arena.service.sql(query)[0]
    arena.report.figures |= {"slots": int(moments), "runs": int(runs), "distinct": int(slots), "missed": int(missed)}
    arena.report.faults["beats at once"] = 3
    verdict = arena.settle()
    if runs != slots:
        verdict.complaints.append(f"{runs - slots} slots were run twice")
    return verdict


def cancels(arena: Arena, count: int) -> Verdict:
    """Runs cancelled at random moments; nothing of them may be stored afterwards, and the last runs load all."""
    arena.service.environment["API_KEYS"] = KEY
    _start(arena)
    for _ in range(count):
        time.sleep(arena.dice.uniform(0, 0.5))
        active = arena.service.sql("SELECT run_id::text FROM etl_runs WHERE status IN ('queued', 'running')")
        if not active:
            arena.truth.round += 1
            arena.queue_all()
            continue
        address = f"{arena.service.url}/runs/{arena.dice.choice(active)}/cancel"
        if requests.post(address, headers={"X-API-Key": KEY}, timeout=30).status_code == 202:
            arena.report.count("cancel")
    wait_until(lambda: not arena.active(), 300)
    arena.truth.round += 1
    arena.queue_all()
    return arena.settle()


def skew(arena: Arena, count: int) -> Verdict:
    """One worker's clock is two hours ahead, another's two behind, while `count` workers are killed. Needs libfaketime."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        return Verdict(complaints=["libfaketime is missing: apt-get install faketime"])
    clocks = {
        name: {"LD_PRELOAD": str(library), "FAKETIME": hours, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        for name, hours in zip(WORKERS, ("+2h", "-2h"), strict=True)
    }
    arena.service.start_web()
    for name in WORKERS:
        arena.start_worker(name, clocks[name])
    arena.report.faults["clocks off by two hours"] = len(WORKERS)
    arena.queue_all()
    for _ in range(count):
        time.sleep(arena.dice.uniform(1, 3))
        arena.keep_busy()
        name = arena.dice.choice(WORKERS)
        arena.kill_worker(name, clocks[name])
    return arena.settle()


def control(arena: Arena, count: int) -> Verdict:
    """The naive chain under the same kills. It is expected to lose records."""
    arena.truth.trouble = 0
    arena.service.sql(naive.TABLE)
    arguments = ("-A", "bench.faults.naive", "worker", "-Q", "naive", "--concurrency=2")
    for name in WORKERS:
        arena.service.start(name, "celery", *arguments, f"--hostname={name}@naive")
    for name in arena.truth.names:
        _send_naive(arena, f"{arena.url}/{name}")
    wait_until(lambda: arena.service.sql("SELECT count(*) FROM naive_items")[0] > 0, 60)
    for _ in range(count):
        # It is done in seconds: the kills have to fall into them, as they do into the product's longer runs.
        time.sleep(arena.dice.uniform(0.2, 0.8))
        name = arena.dice.choice(WORKERS)
        arena.service.kill(name)
        arena.report.count("SIGKILL")
        arena.service.start(name, "celery", *arguments, f"--hostname={name}@naive")
    _await_still(arena)
    expected = arena.truth.sources * len(arena.truth.good())
    found = arena.service.sql("SELECT count(*) FROM naive_items")[0]
    return Verdict(records=arena.truth.sources * arena.truth.records, lost=expected - found)


def _send_naive(arena: Arena, url: str) -> None:
    arena.service.command(
        *(PYTHON, "-m", "celery", "-A", "bench.faults.naive", "call", "bench.faults.naive.extract"),
        f'--args=["{url}", 1]',
    )


def _await_still(arena: Arena) -> None:
    """Until nothing has been loaded for fifteen seconds."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 15:
        now = arena.service.sql("SELECT count(*) FROM naive_items")[0]
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.5)


def _start(arena: Arena) -> None:
    arena.service.start_web()
    for name in WORKERS:
        arena.start_worker(name)
    with contextlib.suppress(requests.RequestException):
        arena.queue_all()


SCENARIOS: dict[str, tuple[Callable[[Arena, int], Verdict], int, int]] = {
    # name: function, its count when short, its count when long
    "kills": (kills, 10, 200),
    "default_lease": (default_lease, 1, 5),
    # Of these two: one of how many points, 0 for all and by every kind of crash.
    "crash_points": (crash_points, 2, 0),
    "database_crashes": (database_crashes, 1, 0),
    "lanes": (lanes, 2, 0),
    "deletions": (deletions, 1, 0),
    "alerts": (alerts, 15, 15),
    "flushes": (flushes, 4, 12),
    "broker_away": (broker_away, 10, 60),
    "database_restarts": (database_restarts, 3, 20),
    "zombies": (zombies, 2, 10),
    "broker_hung": (broker_hung, 5, 60),
    "broker_full": (broker_full, 5, 20),
    "half_open": (half_open, 1, 5),
    "lost_answers": (lost_answers, 10, 120),
    "repeats": (repeats, 5, 5),
    "beats": (beats, 5, 20),
    "cancels": (cancels, 20, 500),
    "skew": (skew, 3, 20),
    "control": (control, 10, 40),
}
