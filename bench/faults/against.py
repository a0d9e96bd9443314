"""Today's suite against the product of another commit: what it finds there it would have found then."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from config.settings import PROJECT
from testkit.tree import checked_out

OPTIONS = ("--against", "--json")


def run_against(commit: str, arguments: list[str], report: str) -> int:
    """Run the suite with these arguments in a checkout of the commit that has our `bench`; its exit code."""
    with (
        tempfile.TemporaryDirectory(prefix="kasparro-against-") as name,
        checked_out(commit, Path(name) / "tree") as tree,
    ):
        shutil.rmtree(tree.path / "bench", ignore_errors=True)
        shutil.copytree(PROJECT / "bench", tree.path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
        rest = [*_without(arguments), *(["--json", str(Path(report).absolute())] if report else [])]
        return subprocess.run([tree.python, "-m", "bench.faults", *rest], cwd=tree.path, check=False).returncode


def _without(arguments: list[str]) -> list[str]:
    """All arguments but ours, in whichever form they come."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and not argument.startswith(OPTIONS):
            kept.append(argument)
        skip = not skip and argument in OPTIONS
    return kept
