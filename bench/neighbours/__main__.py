"""`python -m bench.neighbours [--seconds 600] [--processes 2] [--dead 200] [--tree FOLDER] [--json file] [--check]`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from bench.neighbours import figures, launcher
from bench.neighbours.figures import Figure, Onlookers
from bench.neighbours.sources import KINDS, Neighbour, neighbours
from bench.neighbours.watch import KEY, Memory, Probe, Shown, seconds_to_cancel
from bench.neighbours.world import World
from testkit.service import Service, make_database, running_servers, wait_until
from testkit.tree import PRESENT, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testkit.service import Servers

_CANCELLED = "calls_c_for_ever"


def main() -> int:
    """Run it; 0 when it ran, whatever it found, unless `--check` asks for more."""
    arguments = _parser().parse_args()
    sources = neighbours(_counts(arguments))
    tree = Tree.at(arguments.tree) if arguments.tree else PRESENT
    with (
        running_servers("kasparro-neighbours-") as (servers, folder),
        World({one.address: one.answer for one in sources if one.answer}) as world,
        running_service(servers, folder, tree, arguments.processes) as service,
    ):
        found, ends = observed(service, sources, world, arguments)
    print(figures.table(found, ends))
    if arguments.json:
        said = figures.as_json(vars(arguments), found, ends)
        Path(arguments.json).write_text(json.dumps(said, indent=2, default=str) + "\n")
    return 1 if arguments.check and any(one.met is False for one in found) else 0


@contextlib.contextmanager
def running_service(servers: Servers, folder: Path, tree: Tree, processes: int) -> Iterator[Service]:
    """Worker and web as the stack runs them, but for the defects in the worker; not yet a beat."""
    url = make_database(servers, "neighbours")
    tree.run("db", "migrate", DATABASE_URL=url)
    service = Service(servers, url, folder, tree)
    service.environment |= {
        "ALLOWED_PRIVATE_HOSTS": "127.0.0.0/8",
        "WORKER_PROCESSES": str(processes),
        "LEASE_SECONDS": "60",
        "BATCH_SIZE": "5000",
        "ENABLE_SCHEDULER": "true",
        "API_KEYS": KEY,
    }
    service.flush_broker()
    try:
        # By its path, so that its folder's names do not hide those of the service.
        celery = ("-P", launcher.__file__, "-A", "worker", "worker", "--loglevel=INFO")
        service.launch("worker", *celery, f"--concurrency={processes}", "--hostname=neighbours@test")
        _await_alive(service, "worker")
        service.start_web("--workers=2")
        yield service
    finally:
        service.stop_all()


def observed(
    service: Service, sources: list[Neighbour], world: World, arguments: argparse.Namespace
) -> tuple[list[Figure], dict[str, dict[str, int]]]:
    """Let the schedule begin, look on until the time is up, and judge before anything is stopped."""
    done = service.declare(yaml.safe_dump({"sources": [one.document(world.port) for one in sources]}))
    if done.returncode:
        raise RuntimeError(done.stderr)
    service.start("beat", "celery", "-A", "worker", "beat", "--loglevel=INFO", "--pidfile=")
    _await_alive(service, "beat")
    began, ends = service.sql("SELECT clock_timestamp()")[0], time.monotonic() + arguments.seconds
    deadly = [one.name for one in sources if one.kind == "deadly"]
    seen = Onlookers(Memory(service), Probe(service), Shown(service))
    with _looking_on(seen):
        if deadly:
            seen.cancelled = seconds_to_cancel(service, seen.memory.leader, _CANCELLED, ends)
        time.sleep(max(0.0, ends - time.monotonic()))
        found = figures.lateness(service, began, arguments.processes)
    return [*found, *figures.condition(service, seen, deadly)], figures.endings(service, sources, began)


@contextlib.contextmanager
def _looking_on(seen: Onlookers) -> Iterator[None]:
    onlookers = (seen.memory, seen.probe, seen.shown)
    for one in onlookers:
        one.start()
    try:
        yield
    finally:
        for one in onlookers:
            one.stop()


def _await_alive(service: Service, kind: str) -> None:
    """Wait for its first heartbeat; without one its log says why."""
    try:
        wait_until(lambda: bool(service.sql(f"SELECT 1 FROM etl_workers WHERE kind = '{kind}'")), 60)
    except AssertionError as error:
        raise RuntimeError(service.log(kind)[-2000:]) from error


def _counts(arguments: argparse.Namespace) -> dict[str, int]:
    """How many of each kind."""
    kinds = arguments.kinds.split(",") if arguments.kinds else KINDS[1:] if arguments.processes > 1 else ["dead"]
    counts = {"healthy": arguments.healthy, "dead": arguments.dead, "dripping": arguments.dripping}
    return {kind: counts.get(kind, 1) for kind in ("healthy", *kinds)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.neighbours", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long to look on; 600 unless told")
    parser.add_argument("--processes", type=int, default=2, help="of the worker; 2 unless told")
    parser.add_argument("--healthy", type=int, default=20, help="sources at every: 10s; 20 unless told")
    parser.add_argument("--dead", type=int, default=200, help="sources at every: 60s, half refuse; 200 unless told")
    parser.add_argument("--dripping", type=int, default=20, help="some bytes a second, at every: 60s; 20 unless told")
    parser.add_argument("--kinds", help=f"some of {', '.join(KINDS[1:])}; all, or `dead` alone beside one process")
    parser.add_argument("--tree", type=Path, help="a folder with the version to run, instead of this one")
    parser.add_argument("--json", help="write the figures here too")
    parser.add_argument("--check", action="store_true", help="end with 1 when an aim is missed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
