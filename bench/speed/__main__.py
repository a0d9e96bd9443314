"""`python -m bench.speed [--quick] [--only load,reads] [--rows 500000] [--json file] [--plot file.png]`.

With `--against COMMIT` that version and the present one are measured in turns instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

from bench.speed import contracts, loading, matrix, pairs, purging, reading, running
from bench.speed.arms import Bench
from bench.speed.comparison import HEAD, Comparison
from bench.speed.outcome import Outcome, as_json, table
from bench.speed.peers import PEERS
from bench.speed.sizes import FULL, PAIRS, QUICK, Sizes
from testkit.service import running_servers
from testkit.tree import is_commit

BENCHMARKS = {
    "load": loading.load,
    "again": loading.again,
    "api": loading.api,
    "reads": lambda bench, sizes: [*reading.reads(bench, sizes), *matrix.matrix(bench, sizes)],
    "matrix": matrix.matrix,
    "contracts": contracts.contracts,
    "tiny": running.tiny,
    "due": running.due,
    "purging": purging.purging,
    "memory": loading.memory,
    "growth": loading.growth,
}
_PLOT = """
import json, sys
import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot
points = json.loads(sys.argv[1])
pyplot.figure(figsize=(7, 4))
pyplot.loglog([p["rows"] for p in points], [p["seconds"] for p in points], "o-", label="measured")
first = points[-1]
pyplot.loglog([p["rows"] for p in points], [p["rows"] * first["seconds"] / first["rows"] for p in points], ":", label="linear")
pyplot.xlabel("rows"); pyplot.ylabel("seconds"); pyplot.legend(); pyplot.grid(True, which="both", alpha=0.3)
pyplot.title("From file to queryable items, 2 worker processes")
pyplot.tight_layout(); pyplot.savefig(sys.argv[2], dpi=120)
"""


def main() -> int:
    """Run the benchmarks; 0 when they ran, whatever they found, unless `--check` asks for more."""
    parser = _parser()
    arguments = parser.parse_args()
    known = pairs.MEASURES if arguments.against else BENCHMARKS
    names = arguments.only.split(",") if arguments.only else [name for name in known if name != "matrix"]
    if unknown := set(names) - set(known):
        parser.error(f"--only: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if arguments.against and not is_commit(arguments.against):
        parser.error(f"--against: there is no commit {arguments.against}")
    return _in_pairs(arguments, names) if arguments.against else _beside_references(arguments, names)


def _beside_references(arguments: argparse.Namespace, names: list[str]) -> int:
    sizes = _sizes(arguments)
    outcomes: list[Outcome] = []
    with running_servers("kasparro-bench-", arguments.folder) as (servers, folder):
        bench = Bench(servers, folder)
        for name in names:
            found = BENCHMARKS[name](bench, sizes)
            print(table(found), flush=True)
            outcomes += found
    if arguments.json:
        Path(arguments.json).write_text(as_json(outcomes, vars(arguments)) + "\n")
    if arguments.plot:
        _plot(outcomes, arguments.plot)
    print("\n" + table(outcomes))
    return 0


def _in_pairs(arguments: argparse.Namespace, names: list[str]) -> int:
    """1 when a median is too low and that was to be checked."""
    found: list[Comparison] = []
    print(HEAD, flush=True)
    with (
        running_servers("kasparro-pairs-", arguments.folder) as (servers, folder),
        pairs.both(servers, folder, arguments.against) as sides,
    ):
        for name in names:
            compared = pairs.compare(sides, name, _sizes(arguments), arguments.pairs, arguments.least)
            print("\n".join(one.line() for one in compared), flush=True)
            found += compared
    if arguments.json:
        Path(arguments.json).write_text(as_json(found, vars(arguments)) + "\n")
    return 1 if arguments.check and not all(one.met for one in found) else 0


def _sizes(arguments: argparse.Namespace) -> Sizes:
    sizes = QUICK if arguments.quick else PAIRS if arguments.against else FULL
    given = {field.name: getattr(arguments, field.name) for field in fields(Sizes)}
    return replace(sizes, **{name: value for name, value in given.items() if value is not None})


def _plot(outcomes: list[Outcome], path: str) -> None:
    points = next((one.detail["points"] for one in outcomes if "points" in one.detail), None)
    if points is None or not PEERS.exists():
        print("no plot: it needs the benchmark `growth`, and `make bench` installs what draws it", file=sys.stderr)
        return
    subprocess.run([PEERS, "-c", _PLOT, json.dumps(points), path], check=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, under three minutes")
    parser.add_argument("--only", help=f"some of {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", help="write the outcomes here")
    parser.add_argument("--plot", help="draw cost against size here")
    parser.add_argument("--folder", help="where to work; the default is the system's folder for temporary files")
    parser.add_argument(
        "--against", metavar="COMMIT", help=f"measure {', '.join(pairs.MEASURES)} of it and of now in turns"
    )
    parser.add_argument("--pairs", type=_count, default=7, help="how many turns; 7 unless told")
    parser.add_argument("--check", action="store_true", help="end with 1 when a median of the pairs is below the least")
    parser.add_argument("--least", type=float, help="instead of 0.95, and 0.9 for reads")
    for field in fields(Sizes):
        kind = float if field.name == "seconds" else int
        parser.add_argument(f"--{field.name}", type=kind, help="instead of the size that is built in")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("expected a whole number of at least 1")
    return count


if __name__ == "__main__":
    sys.exit(main())
