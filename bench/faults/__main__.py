"""`python -m bench.faults [--long] [--only kills,flushes] [--seed 1] [--against commit] [--json file]`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench.faults.against import Product, product_of
from bench.faults.arena import Arena, Report
from bench.faults.scenarios import SCENARIOS
from bench.faults.truth import Truth
from testkit.fake_server import FakeServer
from testkit.service import Servers, running_servers

CONTROL = "control"
# Enough that the workers of the control arm are busy whenever one of them is killed.
CONTROL_RECORDS = 300_000


def main() -> int:
    """Run the scenarios; 0 if the books are clean, and the control arm lost records."""
    arguments = _parser().parse_args()
    names = arguments.only.split(",") if arguments.only else list(SCENARIOS)
    with (
        running_servers("kasparro-faults-") as (servers, folder),
        product_of(arguments.against, servers) as product,
    ):
        reports = [_run(name, arguments, servers, product, folder) for name in names]
    if arguments.json:
        Path(arguments.json).write_text("[" + ",\n".join(report.as_json() for report in reports) + "]\n")
    return 0 if all(map(_as_expected, reports)) else 1


def _run(name: str, arguments: argparse.Namespace, servers: Servers, product: Product, folder: Path) -> Report:
    function, short, long = SCENARIOS[name]
    count = arguments.count or (long if arguments.long else short)
    truth = _truth(name, arguments)
    report = Report(name, arguments.seed)
    place = folder / name
    place.mkdir()
    started = time.monotonic()
    with FakeServer() as fake_server:
        arena = Arena(servers, product, fake_server, truth, place, report)
        try:
            report.verdict = function(arena, count)
        finally:
            arena.stop()
    report.seconds = time.monotonic() - started
    print(report.line(), flush=True)
    for complaint in report.verdict.complaints:
        print(f"  {complaint}", flush=True)
    if not _as_expected(report):
        kept = Path(tempfile.mkdtemp(prefix=f"kasparro-{name}-"))
        shutil.copytree(place, kept, dirs_exist_ok=True)
        print(f"  the logs are in {kept}", flush=True)
    return report


def _truth(name: str, arguments: argparse.Namespace) -> Truth:
    seed = arguments.seed
    if name == "beats":
        return Truth(100 if arguments.long else 10, 20, seed)
    if name in {"crash_points", "database_crashes", "lanes", "deletions"}:
        return Truth(2, 180, seed, trouble=0, page=20, bad_every=20, every="2s")
    records = CONTROL_RECORDS if name == CONTROL else arguments.records
    return Truth(arguments.sources, records // arguments.sources, seed)


def _as_expected(report: Report) -> bool:
    return report.verdict.lost > 0 if report.scenario == CONTROL else report.verdict.clean


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.faults", description=__doc__, allow_abbrev=False)
    parser.add_argument("--long", action="store_true", help="the full counts: about an hour")
    parser.add_argument("--only", default="", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--count", type=int, default=0, help="how many faults, instead of the scenario's own number")
    parser.add_argument("--sources", type=int, default=10)
    parser.add_argument("--records", type=int, default=20_000, help="over all sources")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--against", default="", help="a commit: break the product of that time with today's suite")
    parser.add_argument("--json", default="", help="write the reports here too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
