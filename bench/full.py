"""`python -m bench.full [tables] [log] [redis]`: disks that run full under PostgreSQL's tables, under its log, and under Redis's file. Needs root.

Files are loaded onto a small disk that is filled up in the middle. Meanwhile `/health` has to say what is wrong within 30 s,
no batch may be halved and no record be quarantined; when there is room again, all has to be loaded without a hand's help.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from etl.runs.outcome import ENDED
from testkit.service import Servers, Service, isolate, make_database, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCES, ROWS = 4, 20_000
FULL_FOR = 75.0
TOLD_WITHIN = 30.0


@dataclass(frozen=True)
class Disk:
    """A small file system in a folder."""

    folder: Path
    megabytes: int

    @contextmanager
    def mounted(self) -> Iterator[Disk]:
        self.folder.mkdir(parents=True, exist_ok=True)
        options = f"size={self.megabytes}m,mode=1777"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", self.folder], check=True)
        try:
            yield self
        finally:
            subprocess.run(["umount", "-l", self.folder], check=True)

    def fill(self) -> None:
        """Leave no room, nor what has become free since."""
        with contextlib.suppress(OSError), (self.folder / "ballast").open("ab", buffering=0) as file:
            while file.write(b"\0" * 65_536):
                pass

    def make_room(self) -> None:
        (self.folder / "ballast").unlink()


def main() -> int:
    """0 if all three are survived."""
    problems = []
    places = {"tables": _tables, "log": _log, "redis": _redis}
    for name, place in places.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        found = _survive(name, place)
        print(f"{name}: {', '.join(found) or 'well'}", flush=True)
        problems += found
    return int(bool(problems))


def _tables(servers: Servers) -> Path:
    return servers.postgres.folder / "postgres" / "base"


def _log(servers: Servers) -> Path:
    return servers.postgres.folder / "postgres" / "pg_wal"


def _redis(servers: Servers) -> Path:
    return servers.valkey.folder


def _survive(name: str, place: Callable[[Servers], Path]) -> list[str]:
    folder = Path(f"/tmp/kasparro-full-{name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    isolate(folder / "state")
    servers = Servers.make(folder / "servers")
    moved = place(servers)
    with Disk(folder / "disk", 20 if name == "redis" else 700).mounted() as disk:
        shutil.copytree(moved, disk.folder / "data", dirs_exist_ok=True)
        _own_as(moved, disk.folder / "data")
        shutil.rmtree(moved)
        moved.symlink_to(disk.folder / "data")
        try:
            servers.start("postgres")
            servers.start("valkey")
            return _load(servers, folder, disk)
        finally:
            servers.remove()


def _own_as(original: Path, copy: Path) -> None:
    status = original.stat()
    subprocess.run(["chown", "-R", f"{status.st_uid}:{status.st_gid}", copy], check=True)
    copy.chmod(0o700)


def _load(servers: Servers, folder: Path, disk: Disk) -> list[str]:
    url = make_database(servers, "filled")
    service = Service(servers, url, folder)
    service.environment |= {"LEASE_SECONDS": "10", "BATCH_SIZE": "1000"}
    try:
        assert service.command(sys.executable, "-m", "db", "migrate").returncode == 0
        declared = "".join(f"  - {{name: s{n}, type: csv, file: s{n}.csv}}\n" for n in range(SOURCES))
        for n in range(SOURCES):
            text = "id,name\n" + "".join(f"{row},{'thing ' * 20}{row}\n" for row in range(ROWS))
            (folder / f"s{n}.csv").write_text(text)
        service.declare("sources:\n" + declared)
        service.start_web()
        service.start_worker()
        runs = [service.run(f"s{n}") for n in range(SOURCES)]
        wait_until(lambda: service.sql("SELECT count(*) FROM etl_batches")[0] >= 3)
        return _fill_up(servers, service, disk, runs)
    finally:
        service.stop_all()


def _fill_up(servers: Servers, service: Service, disk: Disk, runs: list[str]) -> list[str]:
    disk.fill()
    started = time.monotonic()
    told = None
    while time.monotonic() - started < FULL_FOR:
        said = _reasons(service) & {"database_failing", "database_unreachable", "broker_full", "broker_unreachable"}
        if said and told is None:
            told = time.monotonic() - started
            print(f"  told after {told:.1f} s: {', '.join(sorted(said))}", flush=True)
        servers.keep("postgres")
        disk.fill()
        time.sleep(1)
    disk.make_room()
    freed = time.monotonic()

    def have_ended() -> bool:
        servers.keep("postgres")
        return all(service.get(f"/runs/{run_id}")["status"] in ENDED for run_id in runs)

    wait_until(have_ended, 240)
    print(f"  all ended {time.monotonic() - freed:.1f} s after there was room", flush=True)
    return _judged(service, runs, told)


def _reasons(service: Service) -> set[str]:
    try:
        answer = requests.get(service.url + "/health", timeout=10)
    except requests.RequestException:
        return set()
    return {reason["code"] for reason in answer.json()["reasons"]}


def _judged(service: Service, runs: list[str], told: float | None) -> list[str]:
    problems = [] if told is not None and told <= TOLD_WITHIN else [f"told after {told}"]
    states = [service.get(f"/runs/{run_id}") for run_id in runs]
    problems += [f"{run['source_name']}: {run['error']}" for run in states if run["status"] != "success"]
    halved, rejected, items = service.sql(
        "SELECT (SELECT count(*) FROM etl_batches WHERE state = 'halved'), (SELECT count(*) FROM rejected_records), "
        "(SELECT count(*) FROM unified_items)"
    )[0]
    if halved or rejected or items != SOURCES * ROWS:
        problems.append(f"{halved} halved, {rejected} rejected, {items} of {SOURCES * ROWS} items")
    return problems


if __name__ == "__main__":
    sys.exit(main())
