"""`python -m bench.walk [--against COMMIT]`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.walk.counter import Walk
from testkit.service import Servers, make_database, running_servers
from testkit.tree import PRESENT, Tree, checked_out

if TYPE_CHECKING:
    from collections.abc import Sequence

COUNTER = Path(__file__).with_name("counter.py")
ROWS = 500


def counted(tree: Tree, servers: Servers, folder: Path) -> Walk:
    """The walk of one batch through a tree's code."""
    folder.mkdir()
    for name in ("before", "counted"):
        lines = (f"{n},thing {n},{n}.5\n" for n in range(ROWS))
        (folder / f"{name}.csv").write_text("id,name,price\n" + "".join(lines))
    sources = [{"name": name, "type": "csv", "file": f"{name}.csv"} for name in ("before", "counted")]
    (folder / "sources.yaml").write_text(json.dumps({"sources": sources}))
    environment = {
        "DATABASE_URL": make_database(servers, f"walk_{folder.name}"),
        "REDIS_URL": servers.valkey.url,
        "STATE_DIR": str(folder / "state"),
        "SOURCES_FILE": str(folder / "sources.yaml"),
        "CSV_ROOTS": str(folder),
        "ENV_FILE": "/dev/null",
    }
    tree.run("db", "migrate", **environment)
    tree.run("db", "sources", **environment)
    return Walk(**dict(zip(Walk._fields, json.loads(tree.output(str(COUNTER), **environment)), strict=True)))


def show(name: str, walk: Walk) -> None:
    """Print what was counted."""
    print(f"{name}: {len(walk.modules)} modules, {walk.total} crossings")
    print("  " + "\n  ".join(walk.modules))
    print("  " + "\n  ".join(f"{count:3} {crossing}" for crossing, count in walk.crossings))


def main(arguments: Sequence[str]) -> None:
    """Count the present tree and, if one is named, another."""
    parser = argparse.ArgumentParser(prog="python -m bench.walk", description=__doc__)
    parser.add_argument("--against", metavar="COMMIT", help="count this version too, and print the ratios")
    given = parser.parse_args(arguments)
    with running_servers("kasparro-walk-") as (servers, folder):
        present = counted(PRESENT, servers, folder / "present")
        show("present", present)
        if given.against:
            with checked_out(given.against, folder / "tree") as tree:
                other = counted(tree, servers, folder / "other")
            show(given.against, other)
            modules, crossings = len(present.modules) / len(other.modules), present.total / other.total
            print(f"present to {given.against}: {modules:.2f} of its modules, {crossings:.2f} of its crossings")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{(error.stderr or b'').decode()}")
