"""`python -m bench.clients [--only heads,…] [--servers ours,…] [--seconds 15] [--clients 200]`: slow clients, held.

Three servers run the same application, each with two processes of eight threads, one after the other for each kind of
slow client: what `/health/ready` answers meanwhile, what the server's processes take in memory, what a stop and a
killed process cost callers, and plain pages a second.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import psutil
import psycopg2

from bench.slow import KEY, KINDS, PLAIN, ask, probe, slow_clients
from bench.speed.reading import FILL, rate
from config.settings import PROJECT
from testkit.service import Servers, Service, make_database, running_servers, wait_until

GUNICORN = ("gunicorn", "-c", "web/gunicorn_config.py")
SERVERS = {
    "ours": (*GUNICORN, "web.wsgi:app"),
    "gthread": (*GUNICORN, "--worker-class=gthread", "--threads=8", "web.wsgi:app"),
    "granian": (
        *("granian", "--interface=wsgi", "--http=1", "--workers=2", "--blocking-threads=8", "--no-ws"),
        *("--http1-header-read-timeout=10000", "--respawn-failed-workers", "--respawn-interval=0.5", "web.wsgi:app"),
    ),
}
# Where `make clients` puts what the service does without.
_GRANIAN = PROJECT / ".venv" / "clients"
_LARGE = """
    INSERT INTO sources (name, type, config, enabled, origin)
    VALUES ('large', 'csv', jsonb_build_object('name', 'large', 'type', 'csv'), true, 'file');
    INSERT INTO unified_items (source_type, source_name, external_id, title, description, raw_data_id, raw_ingested_at,
        run_id, content_hash, mapping_version, created_at)
    SELECT 'csv', 'large', 'L' || n, 'large', string_agg(md5(n || ' ' || m), ''), n, now(), gen_random_uuid(), '\\x00', 1,
        now() - interval '30 days'
    FROM generate_series(1, 100) n, generate_series(1, 3125) m GROUP BY n;
"""


# What takes longest: every item fits, is looked at word by word, and has to be sorted.
_WORDS = " or ".join(f'"ember fern glass harbour" -nope{number}' for number in range(12))
SLOWEST = "/data?" + urlencode({"search": _WORDS, "sort_by": "title", "page_size": 1000, "page": 10})


class Memory:
    """The largest resident memory of a server's processes together while it is looked at, in MB."""

    def __init__(self, process_id: int) -> None:
        self._process = psutil.Process(process_id)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.largest = 0.0

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            with contextlib.suppress(psutil.Error):
                family = [self._process, *self._process.children(recursive=True)]
                self.largest = max(self.largest, sum(one.memory_info().rss for one in family) / 1e6)


class Arena:
    """A database with many small and some large items, and a server at a time."""

    def __init__(self, servers: Servers, folder: Path, items: int) -> None:
        url = make_database(servers, "clients", template="migrated")
        with contextlib.closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(_LARGE)
            cursor.execute(FILL.format(items=items, sources=100))
            cursor.execute("VACUUM (ANALYZE)")
        self.service = Service(servers, url, folder)
        self.service.environment |= {"API_KEYS": KEY, "LOG_LEVEL": "WARNING"}

    @contextlib.contextmanager
    def serving(self, name: str) -> Iterator[Service]:
        service = self.service
        paths = os.pathsep.join(filter(None, [str(_GRANIAN), os.environ.get("PYTHONPATH", "")]))
        arguments = [*SERVERS[name]]
        if name == "granian":
            arguments[1:1] = ["--host=127.0.0.1", f"--port={service.port}"]
        service.start("web", *arguments, PYTHONPATH=paths)
        try:
            wait_until(lambda: service.get("/health/ready")["status"] == "ready")
            yield service
        finally:
            service.stop_all()


def held(arena: Arena, name: str, kinds: list[str], options: argparse.Namespace) -> None:
    """Each kind of slow client in turn, and what the probe sees of it."""
    for kind in kinds:
        with arena.serving(name) as service:
            probe(service.port, 2)
            idle = probe(service.port, 6)
            with Memory(service.process_id("web")) as memory, slow_clients(service.port, kind, options.clients):
                found = probe(service.port, options.seconds)
        good = not found.failed and found.p99 <= idle.bound()
        print(
            f"{name:8} {kind:16} {'holds' if good else 'FAILS'}  {found}; idle p99 {idle.p99 * 1e3:.1f} ms; "
            f"{memory.largest:.0f} MB",
            flush=True,
        )


def stopped(arena: Arena, name: str) -> None:
    """A stop under load: answers that broke off, and seconds until it was gone."""
    with arena.serving(name) as service, _load(service.port, 8) as answers:
        time.sleep(3)
        started = time.monotonic()
        code = service.stop("web")
        seconds = time.monotonic() - started
    print(
        f"{name:8} stop under load: exit {code} after {seconds:.1f} s, {_count(answers, 200)} answers, "
        f"{_count(answers, 0)} broken",
        flush=True,
    )


def killed(arena: Arena, name: str) -> None:
    """One process killed under load: answers lost, and seconds until there are as many again."""
    with arena.serving(name) as service:
        parent = psutil.Process(service.process_id("web"))
        workers = [one for one in parent.children() if "resource_tracker" not in " ".join(one.cmdline())]
        with _load(service.port, 8) as answers:
            time.sleep(2)
            os.kill(workers[0].pid, signal.SIGKILL)
            started = time.monotonic()
            with contextlib.suppress(AssertionError):
                wait_until(lambda: len(parent.children()) >= len(workers) and not workers[0].is_running(), 20)
            seconds = time.monotonic() - started
            time.sleep(2)
    print(
        f"{name:8} a process killed: replaced after {seconds:.1f} s, {_count(answers, 200)} answers, "
        f"{len(answers) - _count(answers, 200)} lost",
        flush=True,
    )


def _count(answers: list[Answered], status: int) -> int:
    return sum(1 for answer in answers if answer.status == status)


@dataclass(frozen=True)
class Answered:
    """The status of an answer, and seconds until it was there."""

    status: int
    seconds: float


@contextlib.contextmanager
def _load(port: int, clients: int, path: str = PLAIN, after: float = 0) -> Iterator[list[Answered]]:
    """Pages asked for by so many clients, each again some seconds after it was refused; their answers."""
    answers, ended = list[Answered](), threading.Event()

    def drive() -> None:
        while not ended.is_set():
            started = time.monotonic()
            status = ask(port, path, 40)
            answers.append(Answered(status, time.monotonic() - started))
            if status != 200:
                time.sleep(after or 0.05)

    threads = [threading.Thread(target=drive) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def questions(arena: Arena, name: str, options: argparse.Namespace) -> None:
    """Six clients ask what takes longest; the probe and the plain pages meanwhile."""
    seconds = 2 * options.seconds
    with arena.serving(name) as service:
        probe(service.port, 2)
        idle, plain = probe(service.port, 6), rate(service, PLAIN, options.seconds)
        with _load(service.port, 6, SLOWEST, after=0.2) as asked, Busy(arena.service.database_url) as busy:
            found = probe(service.port, seconds / 2)
            meanwhile = rate(service, PLAIN, seconds / 2)
    good = not found.failed and found.p99 <= idle.bound() and meanwhile >= plain / 3 and busy.share >= 0.95
    took = [round(answer.seconds, 1) for answer in asked]
    print(
        f"{name:8} slow questions   {'holds' if good else 'FAILS'}  {found}; idle p99 {idle.p99 * 1e3:.1f} ms; plain pages "
        f"{meanwhile:.0f}/s of {plain:.0f}/s; at work {busy.share:.0%} of the time, {busy.mean:.1f} on average; answers: "
        f"{dict(Counter(answer.status for answer in asked))}, {min(took)} to {max(took)} s",
        flush=True,
    )


class Busy:
    """How many slow statements are at work, looked at ten times a second."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._seen = list[int]()

    def __enter__(self) -> Busy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def share(self) -> float:
        return sum(1 for count in self._seen if count) / len(self._seen)

    @property
    def mean(self) -> float:
        return statistics.mean(self._seen)

    def _look(self) -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%websearch%' AND pid <> pg_backend_pid()"
        with contextlib.closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            time.sleep(1)
            while not self._ended.wait(0.1):
                cursor.execute(query)
                self._seen.append((cursor.fetchone() or (0,))[0])


def rates(arena: Arena, names: list[str], options: argparse.Namespace) -> None:
    """Plain pages a second, the servers alternating."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            with arena.serving(name) as service:
                rate(service, PLAIN, 2)
                found[name].append(rate(service, PLAIN, options.seconds))
    for name, values in found.items():
        print(
            f"{name:8} plain pages: {statistics.median(values):.0f}/s ({min(values):.0f} to {max(values):.0f})",
            flush=True,
        )


def main() -> int:
    """Compare; 0 when it ran, whatever was found."""
    options = _parser().parse_args()
    names = options.servers.split(",")
    parts = options.only.split(",") if options.only else [*KINDS, "stop", "kill", "questions", "rate"]
    with running_servers("kasparro-clients-", options.folder) as (servers, folder):
        arena = Arena(servers, folder, options.items)
        for name in names:
            held(arena, name, [kind for kind in KINDS if kind in parts], options)
            if "stop" in parts:
                stopped(arena, name)
            if "kill" in parts:
                killed(arena, name)
        if "questions" in parts:
            questions(arena, names[0], options)
        if "rate" in parts:
            rates(arena, names, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.clients", description=__doc__)
    parser.add_argument("--only", help=f"some of {', '.join(KINDS)}, stop, kill, questions, rate")
    parser.add_argument("--servers", default=",".join(SERVERS), help="which of them")
    parser.add_argument("--seconds", type=float, default=15, help="how long each is looked at")
    parser.add_argument("--clients", type=int, default=200, help="slow clients of each kind")
    parser.add_argument("--items", type=int, default=1_000_000, help="items in the table")
    parser.add_argument("--rounds", type=int, default=3, help="of the rates")
    parser.add_argument("--folder", help="where to work; the default is the system's folder for temporary files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
